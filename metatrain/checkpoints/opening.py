"""Open the value of `checkpoint=`: a run, one of its checkpoints, an exported model directory, or a plain Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from metatrain.checkpoints.building import as_read, build_learner, build_leave_one_out, build_lora
from metatrain.checkpoints.recipe import (
    Recipe,
    SavedRecipe,
    adapts_layers,
    joint_labels,
    keeps_temperature,
    language_recipe,
    names_no_method,
    overridden,
    plain_model,
    plain_recipe,
    saved_recipe,
    within_layers,
)
from metatrain.config.schema import AlgorithmOverrides, ModelOverrides, Overrides, TrainConfig
from metatrain.errors import UserError
from metatrain.evaluation.config import LoraConfig
from metatrain.meta.learner import Learner
from metatrain.meta.temperature import LearnedTemperature
from metatrain.models import bases
from metatrain.models.config import BUILT_IN, ModelConfig
from metatrain.models.export import RECIPE, read_recipe
from metatrain.models.finetuned_folder import read_facts, read_object
from metatrain.models.folders import is_model
from metatrain.models.heads import head_facts
from metatrain.models.language_loading import DECODER_ONLY, language_model_kind
from metatrain.models.peft_export import read_adapter, read_base
from metatrain.models.sentence_pipeline import read_pipeline
from metatrain.paths import local_path
from metatrain.run import checkpoint
from metatrain.run.directory import RunDirectory, is_run
from metatrain.run.hints import resume_command
from metatrain.tasks.config import EpisodeConfig
from metatrain.training.outer import interpolated


@dataclass(frozen=True)
class Opened:
    """An opened checkpoint."""

    learner: Learner
    untrained: Callable[[], Learner]  # builds the same learner with the weights before meta-training
    leave_one_out: Callable[[], Learner]  # builds a learner with these weights that adapts by the method `leave_one_out`
    lora: Callable[[LoraConfig], Learner]  # builds a language model with these weights that adapts by LoRA
    episode: EpisodeConfig  # episode settings of meta-training
    config: TrainConfig | None  # of the run; None: the checkpoint is a model directory or a plain model
    name: str
    is_plain: bool = False  # whether it is a model that was not meta-trained


def open_checkpoint(
    reference: str, settings: Overrides, device: torch.device, dtype: torch.dtype, say: Callable[[str], None], generates: bool | None = None
) -> Opened:
    """Open a run (its directory, one of its checkpoints, or `latest`) or a Hugging Face model as a learner.

    generates: whether a plain language model for which the settings name no method is finetuned to generate texts; False: it is used as it is, with
    the support set in its prompt; None: it is an encoder.

    Raises:
        UserError: it does not exist, it cannot be read, or the settings do not fit it.
    """
    path = local_path(reference)
    if reference in bases.NAMES and not path.exists():
        return open_base(reference, settings, device, dtype, say)
    if (path / checkpoint.MANIFEST).is_file():
        return _open_run(RunDirectory.find(str(path.parent.parent)), path, settings, device, dtype, say)
    if reference == "latest" or is_run(path) or ((path / "config.yaml").is_file() and not is_model(path)):
        return _open_run(RunDirectory.find(reference), None, settings, device, dtype, say)
    if not path.is_dir() and reference not in BUILT_IN and (path.is_absolute() or reference.startswith((".", "~", "outputs"))):
        raise UserError(f"checkpoint={reference}: no such run or model directory")
    if path.is_dir() and not is_model(path):
        raise UserError(f"checkpoint={reference}: the directory has neither a run of metatrain train (config.yaml) nor a model (config.json)")
    found = read_recipe(path)
    if found is None and (under := read_base(path)) is not None:
        raise UserError(f"checkpoint={reference} is a LoRA adapter; give its base model, checkpoint={under.name}, or write the whole model with export=merged")
    plain = plain_model(reference) if found is None else None
    encoding = {} if plain is None else _encoding(plain.name, settings.model, say)
    if found is None and settings.algorithm.name is None and settings.model.normalize is None:
        # If the directory does not say, the method decides about normalization; pooling=first is that of transformers' classifiers, which do not normalize.
        own_choice = encoding.get("normalize", False if settings.model.pooling == "first" else None)
        settings = replace(settings, model=replace(settings.model, normalize=own_choice))
    if found is not None:
        saved, learned = saved_recipe(path, found[0]), found[1]
    else:
        saved, learned = _untrained(reference, plain, settings, generates if names_no_method(settings) and not encoding else None), {}
    if saved.model.normalize:  # the method compares directions of encodings
        encoding["normalize"] = True
    adapter = read_adapter(path) if found is not None else {}
    name = (saved.base or reference) if adapter else reference if plain is None else plain.name
    own = replace(saved.model, name=name, **encoding)
    as_saved = Recipe(own, saved.algorithm, saved.inner, saved.episode, saved.seed, joint_labels(learned), saved.prompt)
    recipe = overridden(as_saved, settings, plain=found is None)

    def fitting(recipe: Recipe, layers: int) -> Recipe:
        if found is not None or not adapts_layers(settings) or {settings.algorithm.adapt, settings.algorithm.last_layers} != {None}:
            return recipe
        recipe, line = within_layers(recipe, layers)
        if line:
            say(line)
        return recipe

    learner = build_learner(recipe, device, dtype, say, fitting=fitting)
    if found is None and settings.algorithm.label_names is None:
        learner = as_read(learner)
    if found is not None:
        _check_learned(reference, settings.algorithm, {name for name in learner.parameters if not name.startswith(learner.prefix)}, learned)
    learner.load({**learned, **{f"{learner.prefix}backbone.{key}": value.to(device, dtype) for key, value in adapter.items()}})
    learner = _with_temperature(learner, saved.temperature, as_saved, recipe, say)
    model = replace(recipe.model, name=saved.base or reference, tokenizer=reference)
    base = replace(recipe, model=model, algorithm=learner.algorithm, inner=learner.inner)
    return Opened(learner, *_builders(base, device, dtype), recipe.episode, None, reference, is_plain=found is None)


def _untrained(reference: str, plain: ModelConfig | None, settings: Overrides, generates: bool | None) -> SavedRecipe:
    """Return the recipe of a plain model; generates: as of `open_checkpoint`, None also for a model with an encoding of its own."""
    kind = None if generates is None or plain is None else language_model_kind(plain)
    if kind is None or plain is None:
        return plain_recipe(reference, settings)
    return language_recipe(plain, kind == DECODER_ONLY, bool(generates))


Builders = tuple[Callable[[], Learner], Callable[[], Learner], Callable[[LoraConfig], Learner]]


def _builders(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> Builders:
    """Return what builds a learner with the weights before meta-training: by the method of the recipe, by `leave_one_out`, and by LoRA."""
    return (
        lambda: build_learner(recipe, device, dtype),
        lambda: build_leave_one_out(recipe, device, dtype),
        lambda settings: build_lora(recipe, settings, device, dtype),
    )


def open_base(name: str, settings: Overrides, device: torch.device, dtype: torch.dtype, say: Callable[[str], None], folder: Path = bases.FOLDER) -> Opened:
    """Open a meta-trained model of the package: its public model, with the difference added; folder: that has the folder of the base.

    Raises:
        UserError: it cannot be read, or the settings do not fit it.
    """
    facts, difference = bases.read_base(name, folder)
    learned = {key: torch.tensor(value) for key, value in facts.pop("learned").items()}
    saved = saved_recipe(folder / name, facts)
    as_saved = Recipe(replace(saved.model, name=facts["base"]), saved.algorithm, saved.inner, saved.episode, saved.seed)
    recipe = overridden(as_saved, settings, plain=False)
    learner = build_learner(recipe, device, dtype, say)
    module = {learner.prefix + key: value for key, value in learner.model.named_parameters()}
    learner.load({**learned, **{key: module[key] + value.to(device, dtype) for key, value in difference.items()}})
    say(f"weights: {name}, meta-trained on the collection everyday, part of metatrain")
    learner = _with_temperature(learner, saved.temperature, as_saved, recipe, say)
    return Opened(learner, *_builders(recipe, device, dtype), recipe.episode, None, name)


def open_joint(reference: str | None, trained: TrainConfig | None, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]) -> Learner | None:
    """Return the learner of joint training that `evaluation.joint` names, for comparison with a run.

    Raises:
        UserError: it is not a run of joint training, or has another model or other tasks than the run.
    """
    if reference is None:
        return None
    opened = open_checkpoint(reference, Overrides(), device, dtype, say)
    if opened.config is None or not head_facts(opened.config.algorithm.head).row_per_label:
        raise UserError(f"evaluation.joint={reference} is not a run of joint training; create one with: metatrain train algorithm=multitask")
    if trained is None:
        raise UserError("evaluation.joint needs a run of meta-training to compare with, and checkpoint is a plain model; remove it")
    for what, mine, other in (
        ("model", trained.model.name, opened.config.model.name),
        ("tasks", (trained.tasks.path, trained.tasks.meta_train), (opened.config.tasks.path, opened.config.tasks.meta_train)),
    ):
        if mine != other:
            raise UserError(f"evaluation.joint={reference} was trained with another `{what}` than the run it is compared with; train both with the same")
    return opened.learner


def _encoding(reference: str, overrides: ModelOverrides, say: Callable[[str], None]) -> dict[str, Any]:
    """Return pooling, normalisation and maximum length of a plain model, as far as its directory states them.

    Raises:
        UserError: it is a sentence-transformers pipeline with unsupported modules, and the settings do not replace them.
    """
    pipeline = None if reference in BUILT_IN else read_pipeline(reference, overrides.revision)
    if pipeline is None:
        found = read_facts(local_path(reference)).get("encoding", {})
        return {key: found[key] for key in ("pooling", "normalize", "max_length", "prefix") if key in found}
    if pipeline.unknown and None in (overrides.pooling, overrides.normalize):
        raise UserError(
            f"checkpoint={reference} is a sentence-transformers pipeline {pipeline.unknown}; choose another model, "
            "or set model.pooling and model.normalize to use only its transformer"
        )
    if pipeline.labels:
        say(f"model: {reference} is a classifier; its encoder is used, its head is not")
    return pipeline.encoding


def _open_run(run: RunDirectory, requested: Path | None, settings: Overrides, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]) -> Opened:
    config: TrainConfig = run.load_config(TrainConfig)
    as_trained = Recipe.of_run(run.with_own_model(config))
    found = _read_checkpoint(run, requested, say)
    recipe = overridden(replace(as_trained, labels=joint_labels(found.tensors["model"])), settings, plain=False)
    learner = build_learner(recipe, device, dtype, say)
    _check_learned(str(run.path), settings.algorithm, learner.parameters, found.tensors["model"])
    start, share = learner.copy_of_model(), config.outer.weight_interpolation
    checkpoint.copy_parameters(found, learner.parameters)
    learner.load(interpolated(start, learner.parameters, share))
    say(f"weights: {found.path}")
    learner = _with_temperature(learner, _temperature_of(run, found.state["step"]), as_trained, recipe, say)
    return Opened(learner, *_builders(recipe, device, dtype), config.episode, config, str(run.path))


def _temperature_of(run: RunDirectory, step: int) -> LearnedTemperature | None:
    """Return the temperature that the run has learned with the parameters of a checkpoint; None: it has not."""
    if not (run.model / RECIPE).is_file():
        return None
    found = saved_recipe(run.model, read_object(run.model / RECIPE)).temperature
    return found if found is not None and found.step == step else None


def _with_temperature(learner: Learner, temperature: LearnedTemperature | None, saved: Recipe, recipe: Recipe, say: Callable[[str], None]) -> Learner:
    """Return a learner with the temperature of its checkpoint, if it was learned with the same settings."""
    if temperature is not None and not keeps_temperature(saved, recipe):
        say("temperature: that of the checkpoint was learned with other settings of the head or the encoder, and is not used")
        return learner
    if temperature is not None and (saved.algorithm, saved.inner) != (recipe.algorithm, recipe.inner):
        temperature = replace(temperature, made_sets=None, fitted_sets=None)  # whose coverage is that of the same adaptation
    return learner.with_temperature(temperature)


def _read_checkpoint(run: RunDirectory, requested: Path | None, say: Callable[[str], None]) -> checkpoint.Checkpoint:
    """Return the requested checkpoint, else the best one of the run, else the newest one that verifies."""
    paths = [requested] if requested is not None else list(reversed(checkpoint.steps(run.checkpoints)))
    problems = []
    for path in paths:
        try:
            found = checkpoint.load(path)
        except checkpoint.BrokenCheckpoint as error:
            problems.append(str(error))
            continue
        for problem in problems:
            say(f"warning: {problem}; using {path.name}")
        best = found.state.get("best_step")
        if requested is None and best is not None and best != found.state["step"]:
            return checkpoint.load_for_use(run.checkpoints, best)
        return found
    if problems:
        raise UserError(f"unreadable checkpoint: {problems[0]}")
    raise UserError(f"{run.path} has no checkpoint yet; resume it with: {resume_command(run.path)}")


def _check_learned(reference: str, given: AlgorithmOverrides, ours: Iterable[str], learned: Iterable[str]) -> None:
    """Raises: UserError: the replaced algorithm settings need other learned parameters than the checkpoint has."""
    chosen = [f"algorithm.{key}={value}" for key, value in asdict(given).items() if value is not None]
    differing = set(ours) ^ set(learned)
    if chosen and differing:
        raise UserError(f"{' '.join(chosen)} does not fit checkpoint={reference}, which was meta-trained with other parameters ({min(differing)}); remove it")
