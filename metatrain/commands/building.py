"""Shared steps of the commands: from a configuration, or a checkpoint's name, to a learner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metatrain.config.compose import composed, conf_dir, escaped
from metatrain.config.explain import explain
from metatrain.config.overrides import quoted
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, ModelOverrides, Overrides, TrainConfig
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD, LEARNS_RATES
from metatrain.gradient.meta_gradient import SECOND_ORDER
from metatrain.gradient.parameters import Parameters
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.episode_texts import EpisodeTexts
from metatrain.meta.head_fit import Fit
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import Learner
from metatrain.meta.watcher import Watcher
from metatrain.models import adapters
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.export import NONE, RECIPE, read_facts, read_recipe, save_meta_trained
from metatrain.models.folders import is_model
from metatrain.models.heads import IN_CONTEXT, LANGUAGE, ROW
from metatrain.models.language_loading import load_language_model
from metatrain.models.language_model import LanguageModel
from metatrain.models.pictures import PictureEncoder, is_of_pictures, load_picture_encoder
from metatrain.models.pretrained import check_remote_code
from metatrain.models.sentence_pipeline import read_pipeline
from metatrain.paths import local_path
from metatrain.run import checkpoint
from metatrain.run.atomic import written_whole
from metatrain.run.directory import RunDirectory, is_run
from metatrain.run.hints import resume_command
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episodes import way_of
from metatrain.tasks.labels import folded
from metatrain.training.memory_limit import fit_training, largest_episode
from metatrain.training.outer import blended
from metatrain.training.trainer import load_parameters

if TYPE_CHECKING:
    from metatrain.run.ranks import Ranks
    from metatrain.tasks.task import Task

RECIPE_FORMAT = 1
_BUILT_IN = ("minilm", "tiny")
_DEFAULT = "recommended"  # method for a model that was not meta-trained


@dataclass(frozen=True)
class Recipe:
    """What a learner is made of, apart from its weights."""

    model: ModelConfig
    algorithm: AlgorithmConfig
    inner: InnerConfig
    episode: EpisodeConfig
    seed: int
    labels: tuple[str, ...] = ()  # names of the training tasks' labels, for a joint head

    @classmethod
    def of_run(cls, config: TrainConfig, tasks: Iterable[Task] = ()) -> Recipe:
        """The recipe of a run on these training tasks; without them, until `labels` are known from a checkpoint."""
        labels = tuple(sorted({label for task in tasks for label in task.label_names}))
        return cls(config.model, config.algorithm, config.inner, config.episode, config.seed, labels)


@dataclass
class SavedRecipe:
    """What a model's directory says of its recipe (adaptation.json); what is not there is as it is for a model that was not meta-trained."""

    format: int = RECIPE_FORMAT
    base: str | None = None  # the model that was meta-trained
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name=""))  # its name is the directory's
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    inner: InnerConfig = field(default_factory=lambda: default_inner())
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    seed: int = 0


@dataclass(frozen=True)
class Opened:
    """A checkpoint, ready to use."""

    learner: Learner
    untrained: Callable[[], Learner]  # builds the same learner as it was before meta-training
    episode: EpisodeConfig  # as it was meta-trained
    config: TrainConfig | None  # of the run, if it is one
    name: str


def make_learner(model: Encoder | PictureEncoder | LanguageModel, recipe: Recipe) -> Learner:
    """The learner of a recipe around a model that is loaded."""
    if isinstance(model, LanguageModel):
        return LanguageLearner(model, recipe.algorithm, recipe.inner)
    return EncoderLearner(model, recipe.algorithm, recipe.inner, recipe.episode.way, recipe.labels)


def build_learner(
    recipe: Recipe, device: torch.device, dtype: torch.dtype, say: Callable[[str], None] = lambda line: None, texts: Iterable[str] = ()
) -> Learner:
    """A learner with its initial weights, which depend on the seed where they are not pretrained.

    texts: of the training tasks, for a model with random weights that has no tokenizer yet.
    """
    check_remote_code(recipe.model)
    torch.manual_seed(recipe.seed)
    algorithm = recipe.algorithm
    second_order = algorithm.meta_gradient in SECOND_ORDER
    model: Any
    if recipe.model.name not in _BUILT_IN and ":" not in recipe.model.name and not local_path(recipe.model.name).is_dir():
        say(f"model: loading {recipe.model.name} from the hub or its local cache")  # which may take a while, without another word
    if algorithm.head in LANGUAGE:
        model, notes = load_language_model(recipe.model, second_order, dtype, texts, algorithm.head == IN_CONTEXT)
    elif is_of_pictures(recipe.model):
        model, notes = load_picture_encoder(recipe.model, second_order, dtype, texts)
    else:
        model, notes = load_encoder(recipe.model, second_order, dtype)
    if algorithm.adapt in adapters.KINDS:
        adapters.attach(model.backbone, algorithm.adapt, algorithm.rank, algorithm.targets, algorithm.context_size)
    learner = make_learner(model.to(device), recipe)
    for note in notes:
        say(note)
    trained = sum(value.numel() for value in learner.parameters.values())
    adapting = sum(value.numel() for name, value in learner.initial.items() if name in learner.adapted)
    parts = [*([_count(adapting)] if adapting else []), *(["head"] if learner.head_adapts else [])]
    adapted = " and the ".join(parts) if adapting else f"{parts[0]} only" if parts else "nothing"
    say(f"trainable: {_count(trained)} (outer loop); adapted per task: {adapted}")
    idle = learner.unreached
    if idle:
        say(f"{len(idle)} parameters are unused by the model and stay fixed: {', '.join(idle[:3])}{' ...' if len(idle) > 3 else ''}")
    return learner


def _count(number: int) -> str:
    """A number of parameters, in millions if it is large."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,}"


def fit_memory(config: TrainConfig, learner: Learner, tasks: Sequence[Task], device: torch.device, ranks: Ranks) -> str:
    """Make the run's meta-gradients fit in this process's share of memory; returns a line for the log.

    Raises:
        UserError: `hardware.max_memory` is too little.
    """
    way = max(way_of(task, config.episode) for task in tasks)
    rows = max(int(np.bincount(task.labels).max()) for task in tasks)
    largest = largest_episode(config.episode, way, rows, learner.model.max_length, learner.reads_support)
    return fit_training(config.hardware, learner, largest, device, ranks.local_size, math.ceil(config.outer.meta_batch / ranks.size))


def open_checkpoint(reference: str, settings: Overrides, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]) -> Opened:
    """A run (directory, one of its checkpoints, or `latest`) or a Hugging Face model, as a learner.

    Raises:
        UserError: there is no such thing, it cannot be read, or the settings do not fit it.
    """
    path = local_path(reference)
    if (path / checkpoint.MANIFEST).is_file():
        return _open_run(RunDirectory.find(str(path.parent.parent)), path, settings, device, dtype, say)
    if reference == "latest" or is_run(path) or ((path / "config.yaml").is_file() and not is_model(path)):
        return _open_run(RunDirectory.find(reference), None, settings, device, dtype, say)
    if not path.is_dir() and reference not in _BUILT_IN and (path.is_absolute() or reference.startswith((".", "~", "outputs"))):
        raise UserError(f"checkpoint={reference}: no such run or model directory")
    if path.is_dir() and not is_model(path):
        raise UserError(f"checkpoint={reference}: the directory has neither a run of metatrain train (config.yaml) nor a model (config.json)")
    found = read_recipe(path)
    encoding = {} if found is not None else _encoding(reference, settings.model, say)
    if found is None and settings.algorithm.name is None and settings.model.normalize is None:
        # What is silent on it is normalized where the default method wants it, but for `first`, which is as a classifier of transformers reads.
        own_choice = encoding.get("normalize", False if settings.model.pooling == "first" else None)
        settings = replace(settings, model=replace(settings.model, normalize=own_choice))
    saved, learned = (_plain(reference, settings), {}) if found is None else (_saved(path, found[0]), found[1])
    if saved.model.normalize:  # the method compares directions
        encoding["normalize"] = True
    own = replace(saved.model, name=reference, **encoding)
    recipe = _overridden(Recipe(own, saved.algorithm, saved.inner, saved.episode, saved.seed, _labels(learned)), settings, plain=found is None)
    learner = build_learner(recipe, device, dtype, say)
    if found is None and learner.model.tokenizer is None and settings.algorithm.label_names is None:  # a model of images reads no names
        learner.algorithm = replace(learner.algorithm, label_names=False)
    if found is not None:
        _check_learned(reference, settings.algorithm, {name for name in learner.parameters if not name.startswith(learner.prefix)}, learned)
    learner.load(learned)
    base = replace(recipe, model=replace(recipe.model, name=saved.base or reference, tokenizer=reference))
    return Opened(learner, lambda: build_learner(base, device, dtype), recipe.episode, None, reference)


def open_joint(reference: str | None, trained: TrainConfig | None, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]) -> Learner | None:
    """The learner of joint training that `evaluation.joint` names, to be compared with a run.

    Raises:
        UserError: it is no run of joint training, or of another model or on other tasks than the run.
    """
    if reference is None:
        return None
    opened = open_checkpoint(reference, Overrides(), device, dtype, say)
    if opened.config is None or opened.config.algorithm.head != "joint":
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
    """Pooling, normalization and length of a model that was not meta-trained, as far as its directory says.

    Raises:
        UserError: it is a sentence-transformers pipeline that an encoder here cannot compute, and the settings do not say what to do instead.
    """
    pipeline = None if reference in _BUILT_IN else read_pipeline(reference, overrides.revision)
    if pipeline is None:
        found = read_facts(local_path(reference)).get("encoding", {})
        return {key: found[key] for key in ("pooling", "normalize", "max_length") if key in found}
    if pipeline.unknown and None in (overrides.pooling, overrides.normalize):
        raise UserError(
            f"checkpoint={reference} is a sentence-transformers pipeline {pipeline.unknown}; choose another model, "
            "or set model.pooling and model.normalize to use only its transformer"
        )
    if pipeline.labels:
        say(f"model: {reference} is a classifier; its encoder is used with a new head")
    return pipeline.encoding


def _plain(reference: str, settings: Overrides) -> SavedRecipe:
    """The recipe for a model that was not meta-trained: that of a method, as `metatrain train` would begin with it.

    The default is `recommended`, which fits a head to the examples, or an inner loop of the whole encoder where its settings are given.

    Raises:
        UserError: there is no such method.
    """
    method = settings.algorithm.name
    if method is None and _is_inner_loop(settings):
        return SavedRecipe()
    found: TrainConfig = composed("train", [f"algorithm={method or _DEFAULT}", "model=hub", f"model.name={quoted(reference)}"], TrainConfig)
    algorithm = found.algorithm
    if method is None and settings.model.normalize is False:  # cosines compare directions
        algorithm = replace(algorithm, head="prototype", head_scale=1.0)
    return SavedRecipe(model=found.model, algorithm=algorithm, inner=found.inner, episode=found.episode)


def _is_inner_loop(settings: Overrides) -> bool:
    """Whether settings are of an inner loop, and not of a head that is fitted."""
    inner, algorithm = settings.inner, settings.algorithm
    if algorithm.head is not None or algorithm.adapt not in (None, "head") or inner.fit_head is False:
        return True
    return not (inner.fit_head or inner.fit_encoder) and any(each is not None for each in (inner.steps, inner.lr, inner.head_lr))


def _saved(folder: Path, settings: dict[str, Any]) -> SavedRecipe:
    """The recipe of a meta-trained model's directory.

    Raises:
        UserError: it cannot be read, or this version does not know it.
    """
    if settings.get("format", RECIPE_FORMAT) != RECIPE_FORMAT:
        raise UserError(f"{folder / RECIPE} has format {settings['format']}, this version of metatrain reads {RECIPE_FORMAT}; use the version that wrote it")
    try:
        recipe: SavedRecipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SavedRecipe), escaped(settings)))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{folder / RECIPE}: {explain(error)}; another version of metatrain may have written it") from error
    return recipe


def _open_run(run: RunDirectory, wanted: Path | None, settings: Overrides, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]) -> Opened:
    config: TrainConfig = run.load_config(TrainConfig)
    recipe = Recipe.of_run(run.with_tokenizer(config))
    found = _read_checkpoint(run, wanted, say)
    recipe = _overridden(replace(recipe, labels=_labels(found.tensors["model"])), settings, plain=False)
    learner = build_learner(recipe, device, dtype, say)
    _check_learned(str(run.path), settings.algorithm, learner.parameters, found.tensors["model"])
    start, share = learner.of_model, config.outer.blend
    load_parameters(learner, found)
    learner.load(blended(start, learner.parameters, share))
    say(f"weights: {found.path}")
    return Opened(learner, lambda: build_learner(recipe, device, dtype), config.episode, config, str(run.path))


def _read_checkpoint(run: RunDirectory, wanted: Path | None, say: Callable[[str], None]) -> checkpoint.Checkpoint:
    """The wanted checkpoint, or the run's best, or its newest, passing over broken ones."""
    paths = [wanted] if wanted is not None else list(reversed(checkpoint.steps(run.checkpoints)))
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
        if wanted is None and best is not None and best != found.state["step"]:
            return checkpoint.load_for_use(run.checkpoints, best)
        return found
    if problems:
        raise UserError(f"unreadable checkpoint: {problems[0]}")
    raise UserError(f"{run.path} has no checkpoint yet; resume it with: {resume_command(run.path)}")


def check_none_of_these(share: float | None, learner: Learner) -> None:
    """Raises: UserError: `none_of_these` makes no sense, or the learner fits no head that could tell."""
    if share is None:
        return
    if not 0 < share < 1:
        raise UserError(f"none_of_these={share} is the fraction of in-scope texts that may be rejected; set it between 0 and 1, 0.05 for example")
    if not learner.inner.fit_head:
        raise UserError(
            "none_of_these needs a head fitted to the examples, and no other adapted parameters: set inner.fit_head=true algorithm.adapt=head "
            '(Python: fit_head=True, adapt="head")'
        )


def check_no_label_is_none(labels: Iterable[str], source: str) -> None:
    """Raises: UserError: with `none_of_these`, a label of the examples has the name of the answer to texts of no label, or nearly."""
    if (found := next((label for label in labels if folded(label) == folded(NONE)), None)) is not None:
        near = "" if found == NONE else f" (nearly {NONE})"
        raise UserError(
            f"{source}: the label {found}{near} is reserved for out-of-scope texts; remove the examples with this label, rename it, or remove none_of_these"
        )


def adapted_to(learner: Learner, texts: EpisodeTexts, watcher: Watcher | None = None) -> tuple[Parameters, float, Fit | None]:
    """(all parameters, the last support loss, what was chosen where parameters are fitted) after adaptation to a support set.

    Raises:
        UserError: it does not stay finite.
    """
    found: tuple[Parameters, float, Fit | None]
    if isinstance(learner, EncoderLearner) and learner.inner.fit_head:
        adapted, fit = learner.fit(texts, watcher)
        found = adapted, fit.loss, fit
    else:
        adapted, loss = learner.adapt(texts)
        found = adapted, loss, None
    if not all(bool(value.isfinite().all()) for name, value in adapted.items() if value is not learner.parameters.get(name)):
        raise UserError(
            f"adaptation to these examples diverges (non-finite values); lower inner.lr={learner.inner.lr:g} or inner.steps, or check the weights of the model"
        )
    return found


def default_inner() -> InnerConfig:
    """The inner loop for a model that brings no recipe: conf/inner/sgd.yaml."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "inner" / "sgd.yaml"))
    return InnerConfig(**settings)


def save_model(folder: Path, learner: Learner, recipe: Recipe) -> None:
    """Write the meta-trained model with everything `finetune` needs to adapt it."""
    learned = {name: value for name, value in learner.parameters.items() if not name.startswith(learner.prefix)}
    kept = ("pooling", "normalize", "max_length", "max_target_length", "scratch")
    facts = asdict(SavedRecipe(RECIPE_FORMAT, recipe.model.name, recipe.model, recipe.algorithm, recipe.inner, recipe.episode, recipe.seed))
    facts["model"] = {key: value for key, value in facts["model"].items() if key in kept}
    with written_whole(folder) as temporary:
        save_meta_trained(temporary, learner.load_model(), learner.prefix, learned, facts)


def _labels(names: Iterable[str]) -> tuple[str, ...]:
    """The labels of a joint head, from the names of its parameters."""
    prefix = HEAD + ROW
    return tuple(sorted(name[len(prefix) :] for name in names if name.startswith(prefix)))


def _overridden(recipe: Recipe, settings: Overrides, plain: bool) -> Recipe:
    """A checkpoint's recipe with other settings; `plain`: it was not meta-trained, so that `algorithm.name` has its effect already.

    Raises:
        UserError: the settings make no sense together, or do not fit a meta-trained model.
    """
    if settings.algorithm.name is not None and not plain:
        raise UserError(
            f"algorithm={settings.algorithm.name} selects the method of a plain model, but this checkpoint was meta-trained with "
            f"algorithm={recipe.algorithm.name}; remove it"
        )
    algorithm, model = _with(recipe.algorithm, settings.algorithm), _with(recipe.model, settings.model)
    found = replace(recipe, algorithm=algorithm, inner=_inner(recipe.inner, settings.inner, plain), model=model)
    check_algorithm(found.algorithm, found.inner, found.model)
    return found


def _check_learned(reference: str, given: AlgorithmOverrides, ours: Iterable[str], learned: Iterable[str]) -> None:
    """Raises: UserError: with settings of its own the algorithm needs other learned parameters than the checkpoint has."""
    chosen = [f"algorithm.{key}={value}" for key, value in asdict(given).items() if value is not None]
    differing = set(ours) ^ set(learned)
    if chosen and differing:
        raise UserError(f"{' '.join(chosen)} does not fit checkpoint={reference}, which was meta-trained with other parameters ({min(differing)}); remove it")


def _inner(inner: InnerConfig, overrides: InnerOverrides, plain: bool) -> InnerConfig:
    """The inner loop of a checkpoint with other rates or another number of steps for adaptation.

    Raises:
        UserError: the rates were learned, or a number of steps is negative.
    """
    if overrides.steps is not None and overrides.steps < 0:  # by the name that was typed, which is not that of the setting below
        raise UserError(f"inner.steps={overrides.steps} must be zero or more")
    for key in ("lr", "head_lr"):
        if getattr(overrides, key) is not None and inner.rule in LEARNS_RATES and not plain:
            raise UserError(f"inner.{key}: the learning rates of this model are learned (inner.rule={inner.rule}) and cannot be set; remove it")
    # Steps of training stay as they were: what was learned for each of them has their number.
    steps = inner.evaluation_steps if overrides.steps is None else overrides.steps
    return replace(_with(inner, replace(overrides, steps=None)), evaluation_steps=steps)


def _with(settings: Any, overrides: Any) -> Any:
    """Settings with those overrides that are not null."""
    return replace(settings, **{key: value for key, value in asdict(overrides).items() if value is not None})
