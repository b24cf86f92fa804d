"""Settings without effect are refused, and only those: measured by changing each setting of each method."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT

from metatrain.checkpoints.building import build_learner
from metatrain.checkpoints.recipe import Recipe
from metatrain.commands.effects import effects_of, effects_of_values
from metatrain.config.compose import composed
from metatrain.config.schema import SCHEMAS, TrainConfig
from metatrain.config.settings import settings_of
from metatrain.config.user_folder import settings_in
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, reads
from metatrain.gradient.meta_gradient import MODES
from metatrain.meta.algorithm import check_algorithm
from metatrain.models import adapted, heads
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode, training_episode
from metatrain.tasks.task import TaskDistribution
from metatrain.training.outer import OuterOptimizer, check_outer, interpolated

GROUPS = ("algorithm.", "inner.", "outer.")
SMALL = ["model=tiny", "outer.steps=2", "outer.warmup=0", "outer.meta_batch=1", "episode.shots=2", "episode.queries=2"]
LANGUAGE_MODEL = ["model.scratch.hidden=16", "model.scratch.heads=2"]
# What a preset needs, or where it does in two updates what it does in many.
MORE = {"in_context": ["model=scratch_gpt2", *LANGUAGE_MODEL], "mamlpp": ["algorithm.first_order_until=1"]}
# (method, setting): why no other value changes the results here.
EQUAL = {
    **{
        (name, "outer.head_lr"): "a vector that all classes share shifts all logits alike, so its meta-gradient is zero"
        for name in ("anil", "mamlpp", "reptile", "unicorn", "head=shared")
    },
    ("fit_head", "inner.fit_encoder"): "training the encoder does not help on this support set, so it is not trained",
    ("in_context", "algorithm.meta_gradient"): "it only chooses the attention of models that do not run packed",
    ("multitask", "algorithm.label_names"): "the label names disagree with this support set, so they are not read",
    ("train=adapted", "outer.weight_decay"): "the only meta-parameter is the scale of the head",
    ("recommended", "inner.fit_encoder"): "training the encoder does not help on this support set, so it is not trained",
}
# Values of which at least one differs from that of a method; those of other settings follow from their type.
OTHERS: dict[str, list[Any]] = {
    "algorithm.head": ["prototype", "ridge", "in_context", "lm"],
    "algorithm.adapt": ["last_layers", "head"],
    "algorithm.last_layers": [1],
    "algorithm.pattern": [r"layer\.1\.", r"layer\.0\."],
    "algorithm.targets": [["query"], ["value"], ["q"]],
    "algorithm.train": ["adapted", "all"],
    "algorithm.meta_gradient": ["first_order", "exact"],
    "algorithm.contrastive": ["supervised"],
    "algorithm.dropout": [0.5],
    "algorithm.dropout_in": ["query", "support"],
    "algorithm.multi_step_until": [50, 0],
    "algorithm.first_order_until": [2, 0],
    "inner.rule": ["adam", "lslr"],
    "inner.loss": ["leave_one_out", "support"],
    "outer.schedule": ["constant", "linear"],
    "outer.warmup": [2],
    "outer.clip": [1e-3],
    "outer.steps": [3],
    "outer.weight_interpolation": [0.5],
}
# Settings that change no result of a short run that goes well, each with the reason.
UNMEASURED = {
    "algorithm.name": "a name",
    "outer.optimizer": "AdamW is the only one that is not a plug-in",
    "outer.nonfinite": "concerns meta-gradients that are not finite",
    "outer.spike": "concerns meta-gradients far from the usual norm",
}


def variants() -> Iterator[tuple[str, list[str]]]:
    """Yield (name, overrides) of every preset and every choice on an axis."""
    for file in sorted((ROOT / "conf" / "algorithm").glob("*.yaml")):
        yield file.stem, [*SMALL, f"algorithm={file.stem}", *MORE.get(file.stem, [])]
    for head in heads.RULES:
        way, cosine = ["episode.way=2"] if head == "linear" else [], ["model.normalize=true"] if head == "cosine" else []
        template = ["prompt.text='{text} {mask}'"] if head == "mlm" else []
        yield f"head={head}", [*SMALL, f"algorithm.head={head}", *way, *cosine, *template]
    yield "head=lm", [*SMALL, "algorithm=fomaml", "algorithm.head=lm", "model=scratch_t5", *LANGUAGE_MODEL]
    for choice in adapted.ROWS:
        more = [r"algorithm.pattern=layer\.0\."] if choice == "pattern" else []
        yield f"adapt={choice}", [*SMALL, "algorithm=protomaml", f"algorithm.adapt={choice}", *more]
    for rule in RULES:
        yield f"rule={rule}", [*SMALL, "algorithm=protomaml", f"inner.rule={rule}"]
    for mode in MODES:
        more = ["algorithm.proximal=1"] if mode == "implicit" else []
        yield f"mode={mode}", [*SMALL, "algorithm=protomaml", f"algorithm.meta_gradient={mode}", *more]
    yield "fit_head", [*SMALL, "algorithm=protoanil", "inner.fit_head=true"]
    yield "head rate of the encoder", [*SMALL, "algorithm=protoanil", "inner.head_lr=null"]
    yield "train=adapted", [*SMALL, "algorithm=protonet", "algorithm.train=adapted"]


TYPES = {setting.key: setting.type for setting in settings_of(TrainConfig) if setting.type != "group" and setting.key.startswith(GROUPS)}
VARIANTS = dict(variants())
FAST = ("anil", "protonet")
OF_EACH_KIND = ("in_context", "multitask", "recommended")  # methods of which nothing of the inner loop is alike


@functools.cache
def tasks() -> TaskDistribution:
    return load_tasks(composed("train", [], TrainConfig).tasks, 0)


def outcome(config: TrainConfig) -> Iterator[dict[str, np.ndarray]]:
    """Meta-train for two updates, and adapt to an episode; yield all that comes of it."""
    learner = build_learner(Recipe.of_run(config, tasks().meta_train), torch.device("cpu"), torch.float64, texts=tasks().training_texts())
    tokens, initial = learner.model.tokens(), learner.copy_of_model()
    optimizer = OuterOptimizer(learner.parameters, config.outer)
    with torch.random.fork_rng():
        for step in range(2):
            indices = range(step * config.outer.meta_batch, (step + 1) * config.outer.meta_batch)
            episodes = [encode_episode(training_episode(tasks(), config.episode, config.seed, index), tokens) for index in indices]
            gradient = learner.mean_gradient(episodes, step)
            if (auxiliary := learner.auxiliary_gradient(episodes)) is not None:
                learner.add_gradient(gradient, auxiliary, config.algorithm.contrastive_weight)
            optimizer.step(gradient, step)
            yield {name: value.numpy().copy() for name, value in learner.parameters.items()}
        learner.load(interpolated(initial, learner.parameters, config.outer.weight_interpolation))
        settings = dataclasses.replace(config.episode, shots=4)
        episode = encode_episode(task_episode(tasks().meta_test[0], settings, config.seed, "meta_test", 0), tokens)
        parameters, loss = learner.adapt(episode)
    found = {name: value.numpy() for name, value in {**learner.parameters, **parameters}.items()}
    yield {**found, "loss": np.array(0.0 if math.isnan(loss) else loss), "probabilities": learner.probabilities(parameters, episode)}


def is_same(one: Iterable[dict[str, np.ndarray]], other: Iterable[dict[str, np.ndarray]]) -> bool:
    pairs = zip(one, other)  # ends at the first difference
    return all(
        left.keys() == right.keys()
        and all(value.shape == right[name].shape and np.allclose(value, right[name], rtol=0, atol=1e-10) for name, value in left.items())
        for left, right in pairs
    )


def candidates(key: str, value: Any) -> list[Any]:
    if key in OTHERS:
        return [other for other in OTHERS[key] if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [2 * value if value else 0.1]
    types = {"float | null": 0.01, "int | null": 2}
    assert value is None and TYPES[key] in types, f"give other values of {key} in OTHERS"
    return [types[TYPES[key]]]


def changed(config: TrainConfig, key: str) -> TrainConfig | None:
    """Return the configuration with another possible value of a setting; None: there is none."""
    group, name = key.split(".")
    for other in candidates(key, getattr(getattr(config, group), name)):
        found = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{name: other})})
        try:
            check_algorithm(found.algorithm, found.inner, found.model)
            check_outer(found.outer)
        except UserError:
            continue
        if heads.head_facts(found.algorithm.head).is_language_model == heads.head_facts(config.algorithm.head).is_language_model:
            return found
    return None


def mistakes(config: TrainConfig, keys: Iterable[str]) -> list[str]:
    """Return what is refused although it has an effect, or accepted although it has none."""
    effects, before, found = effects_of(config), list(outcome(config)), []
    assert is_same(before, outcome(config))
    for key in keys:
        other, refused = changed(config, key), effects.unread(key) is not None
        if other is None:
            continue
        try:
            same = is_same(before, outcome(other))
        except UserError:
            same = False  # the value was read, and is impossible for the model
        if same != refused:
            found.append(f"{key} is {'refused' if refused else 'accepted'}, and another value changes {'nothing' if same else 'the results'}")
    return found


def mark(name: str) -> Any:
    """Each takes 4 to 20 seconds."""
    return () if name in FAST else pytest.mark.slow if name in OF_EACH_KIND else pytest.mark.nightly


@pytest.mark.parametrize("name", [pytest.param(name, marks=mark(name)) for name in VARIANTS])
def test_a_setting_is_refused_if_and_only_if_it_changes_nothing(name, one_thread):
    keys = [key for key in TYPES if key not in UNMEASURED and (name, key) not in EQUAL]
    assert mistakes(composed("train", VARIANTS[name], TrainConfig), keys) == []


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        (
            "train",
            ["algorithm=protonet", "inner.lr=0.1"],
            "inner.lr has no effect: algorithm=protonet makes no inner steps (inner.steps=0); "
            "choose algorithm=maml or another method with inner steps, or leave inner.lr out",
        ),
        ("train", ["algorithm.rank=8"], "algorithm.rank has no effect: algorithm.adapt=all does not read it; choose algorithm.adapt=lora, or leave"),
        (
            "plan",
            ["algorithm=anil", "inner.lr=0.1"],
            "algorithm.adapt=head adapts only the head, at inner.head_lr=1.0; set inner.head_lr",
        ),
        ("train", ["algorithm.last_layers=2"], "choose algorithm.adapt=last_layers"),
        ("train", ["algorithm=protonet", "algorithm.rank=8"], "makes no inner steps"),  # what the setting depends on is not read
        ("train", ["outer.rule_lr=0.1"], "inner.rule=sgd has no meta-parameters"),
        ("train", ["tasks.sampling.strength=2"], "tasks.sampling.by=fixed"),
        ("train", ["tasks=news_to_reviews", "tasks.sources.agnews.hub_config=x"], "tasks.sources.agnews.path=data/agnews_test; give a data set of the hub"),
        ("train", ["hardware.reduce=fast"], "the run has one process"),
        ("train", ["evaluation.full_finetune.steps=9"], "add full_finetune or full_finetune_of_trained to evaluation.arms"),
        ("train", ["evaluation.resamples=9"], "intervals are computed in closed form; leave evaluation.resamples out"),
        ("evaluate", ["checkpoint=tiny", "tasks=reviews", "tasks.size_power=1"], "this command does not meta-train"),
        ("evaluate", ["checkpoint=tiny", "tasks=reviews", "algorithm=protonet", "inner.lr=1"], "algorithm=protonet makes no inner steps"),
        ("finetune", ["checkpoint=tiny", "data.train=examples.csv", "data.score=bleu"], "data.target=null"),
        ("finetune", ["checkpoint=tiny", "data.train=examples.csv", "algorithm=recommended", "algorithm.last_layers=2"], "algorithm.last_layers has no effect"),
        ("tasks", ["episode.way=2"], "episode.way has no effect: show=null; set show=3, or export=FILE for the episodes of metatrain train"),
        ("tasks", ["prompt.chat=true"], "prompt.chat has no effect: show=null; set show=3"),
        ("train", ["prompt=chat"], "prompt has no effect: algorithm.head=zero reads no prompt"),
        ("predict", ["model=.", "text=a", "column=b"], "column has no effect: data=null; give data=FILE, or leave column out"),
    ],
)
def test_a_setting_of_the_command_line_is_refused(cli, tmp_path, monkeypatch, command, given, said):
    monkeypatch.delenv("METATRAIN_DATA", raising=False)
    tmp_path.joinpath("examples.csv").write_text("text,label\ngood,a\nfine,a\nbad,b\npoor,b\n")
    found = cli(command, *given)
    assert found.code == 2 and said in found.err and len(found.err.splitlines()) == 1, found.err


def test_a_grid_and_a_file_name_a_setting_once(cli, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\ninner:\n  lr: 0.1\n  rank: 2\n")
    short = ["debug=fast", "algorithm=protonet", "evaluation.arms=[]", "validation.every=0", "outer.steps=1"]
    found = cli("train", *short, "inner.head_lr=0.1,0.2", "-m", "--config-dir", "conf", "+experiment=mine")
    assert found.code == 0, found.err
    assert found.out.count("warning: inner.head_lr has no effect: algorithm=protonet makes no inner steps (inner.steps=0)") == 1
    assert found.out.count("experiment/mine.yaml: inner.lr, inner.rank have no effect: algorithm=protonet makes no inner steps") == 1


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
def test_no_experiment_sets_what_has_no_effect(experiment, monkeypatch, tmp_path):
    monkeypatch.setenv("METATRAIN_DATA", str(tmp_path))
    file = ROOT / "conf" / "experiment" / f"{experiment}.yaml"
    keys = [key for key, _ in settings_in(file) if not key.startswith("defaults")]
    assert effects_of(composed("train", [f"+experiment={experiment}"], TrainConfig)).notes(keys) == []


def test_a_component_that_declares_nothing_reads_everything():
    class Undeclared(RULES["sgd"]):
        def update(self, *arguments):
            return super().update(*arguments)

    assert reads(RULES["sgd"](InnerConfig())) == ("lr", "head_lr") and reads(Undeclared(InnerConfig())) is None
    assert heads.HeadFacts().reads is None and adapted.AdaptedRow().reads is None


def test_every_condition_has_words_and_can_be_evaluated():
    for schema in SCHEMAS.values():
        effects = effects_of_values(schema, dataclasses.asdict(composed("train", [], TrainConfig)), trains=True)
        for setting in settings_of(schema):
            assert isinstance(effects.words(setting.key), str)
