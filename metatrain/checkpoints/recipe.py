"""Recipe of a learner: its settings without its weights, as a run or a model directory states them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metatrain.config.compose import composed, groups_of
from metatrain.config.explain import explain
from metatrain.config.overrides import quoted
from metatrain.config.renamed import current
from metatrain.config.schema import InnerOverrides, Overrides, TrainConfig
from metatrain.config.settings import escaped
from metatrain.errors import UserError
from metatrain.evaluation.config import LoraConfig
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD, has_fixed_rates, make_inner_rule
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.temperature import LearnedTemperature
from metatrain.models.adapted import row_of
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.export import RECIPE
from metatrain.models.heads import ROW
from metatrain.models.windows import CUT
from metatrain.paths import local_path
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.task import Task

FORMAT = 1
_NO_PRESETS = ("minilm", "mpnet", "tiny", "hub")  # presets that a checkpoint is not opened by: three are names of models, one needs a name
LEAVE_ONE_OUT, _FROZEN = "leave_one_out", "recommended"  # methods of a plain model: the last layers adapt, or only a head is fitted


@dataclass(frozen=True)
class Recipe:
    """Settings from which a learner is built; its weights are separate."""

    model: ModelConfig
    algorithm: AlgorithmConfig
    inner: InnerConfig
    episode: EpisodeConfig
    seed: int
    labels: tuple[str, ...] = ()  # label names of the training tasks, for algorithm.head=joint
    prompt: PromptConfig = field(default_factory=PromptConfig)

    @classmethod
    def of_run(cls, config: TrainConfig, tasks: Iterable[Task] = ()) -> Recipe:
        """Return the recipe of a run. Without the training tasks, `labels` is empty until a checkpoint gives them."""
        labels = tuple(sorted({label for task in tasks for label in task.label_names}))
        return cls(config.model, config.algorithm, config.inner, replace(config.episode, file=None), config.seed, labels, config.prompt)


@dataclass
class SavedRecipe:
    """Recipe in a model directory (adaptation.json). The defaults stand for keys that the file lacks, and for a plain model with inner-loop settings."""

    format: int = FORMAT
    base: str | None = None  # name of the model before meta-training
    model: ModelConfig = field(default_factory=lambda: ModelConfig(name=""))  # its name is that of the directory
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    inner: InnerConfig = field(default_factory=lambda: InnerConfig(lr=0.02, head_lr=1.0, steps=3))  # as in conf/inner/sgd.yaml
    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    seed: int = 0
    prompt: PromptConfig = field(default_factory=PromptConfig)
    temperature: LearnedTemperature | None = None


def plain_recipe(reference: str, settings: Overrides) -> SavedRecipe:
    """Return the recipe of a plain model: the one with which `metatrain train` would start for a method.

    Without a method, the last layers adapt by `leave_one_out` and then a head is fitted (`adapts_layers`); settings that need a frozen encoder
    choose `recommended`, which only fits a head, and those of other inner loops an inner loop over the whole encoder.

    Raises:
        UserError: there is no such method.
    """
    method = settings.algorithm.name
    if method is None and _is_inner_loop(settings):
        return SavedRecipe()
    found = _preset(method or (LEAVE_ONE_OUT if adapts_layers(settings) else _FROZEN), reference)
    algorithm, inner = found.algorithm, found.inner
    if method is None:
        inner = replace(inner, fit_head=True)
        if settings.model.normalize is False:  # cosines compare directions
            algorithm = replace(algorithm, head="prototype", head_scale=1.0)
    return SavedRecipe(model=found.model, algorithm=algorithm, inner=inner, episode=found.episode, prompt=found.prompt)


def adapts_layers(settings: Overrides) -> bool:
    """Return whether the last layers of a plain model adapt by `leave_one_out` under these settings, without a method being named."""
    inner, algorithm = settings.inner, settings.algorithm
    if algorithm.name is not None or _is_inner_loop(settings):
        return False
    return inner.loss == LEAVE_ONE_OUT or (inner.loss is None and algorithm.adapt != "head" and not inner.fit_encoder)


def within_layers(recipe: Recipe, layers: int) -> tuple[Recipe, str | None]:
    """Return the recipe of `adapts_layers` for a model of this number of layers, and a line for the log where none are known."""
    if layers:
        return recipe, None
    algorithm = recipe.algorithm
    frozen = _preset(_FROZEN, recipe.model.name)
    head: dict[str, Any] = {} if recipe.model.normalize else {"head": algorithm.head, "head_scale": algorithm.head_scale}
    changed = replace(frozen.algorithm, label_names=algorithm.label_names, **head)
    line = f"adaptation: no layers are known of this model, so the encoder stays as it is and only a head is fitted (algorithm={_FROZEN})"
    return replace(recipe, algorithm=changed, inner=frozen.inner), line


def check_long_texts(recipe: Recipe, is_encoder: bool) -> None:
    """Raises: UserError: long texts are to be read in windows, and the encoder would adapt, or the model is no encoder of texts."""
    if recipe.model.long_texts == CUT:
        return
    if not is_encoder:
        raise UserError(f"model.long_texts={recipe.model.long_texts} is for encoders of texts; leave it out")
    inner, row = recipe.inner, row_of(recipe.algorithm.adapt)
    steps = inner.steps if inner.evaluation_steps is None else inner.evaluation_steps
    if inner.fit_encoder or row.attach is not None or (row.model_adapts and steps):
        raise UserError(
            f"model.long_texts={recipe.model.long_texts} needs an encoder that stays as it is, and here it adapts (algorithm={recipe.algorithm.name}); "
            "add algorithm.adapt=head, without inner.fit_encoder"
        )


def leave_one_out_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe by which the same model adapts by the method `leave_one_out`."""
    found = _preset(LEAVE_ONE_OUT, recipe.model.name)
    return replace(recipe, model=replace(recipe.model, normalize=True), algorithm=found.algorithm, inner=found.inner)


def lora_recipe(recipe: Recipe, config: LoraConfig) -> Recipe:
    """Return the recipe by which the same language model is finetuned by LoRA."""
    algorithm = AlgorithmConfig(
        name="lora", head="lm", adapt="lora", train="adapted", rank=config.rank, targets=recipe.algorithm.targets, meta_gradient="first_order"
    )
    return replace(recipe, algorithm=algorithm, inner=InnerConfig(rule="adam", lr=config.lr, steps=config.steps))


def language_recipe(model: ModelConfig, decoder_only: bool, is_finetuned: bool) -> SavedRecipe:
    """Return the recipe of a plain language model: finetuned by LoRA, or with its own parameters, which reads the support set if it is decoder-only."""
    if is_finetuned:
        found = lora_recipe(Recipe(model, AlgorithmConfig(), InnerConfig(), EpisodeConfig(), 0), LoraConfig())
        return SavedRecipe(model=model, algorithm=found.algorithm, inner=found.inner)
    head = "in_context" if decoder_only else "lm"
    return SavedRecipe(model=model, algorithm=AlgorithmConfig(name=head, head=head, adapt="head", meta_gradient="first_order"), inner=InnerConfig(steps=0))


def names_no_method(settings: Overrides) -> bool:
    """Return whether no setting chooses how a plain model adapts."""
    return all(value is None for group in (settings.algorithm, settings.inner) for value in asdict(group).values())


def plain_model(reference: str) -> ModelConfig:
    """Return the settings of a model preset of conf/model, or of a hub id or directory."""
    found: TrainConfig = composed("train", _named(reference), TrainConfig)
    return found.model


def _named(reference: str) -> list[str]:
    """Return the overrides that choose a model: a preset of conf/model, or a hub id or directory."""
    if reference not in _NO_PRESETS and reference in groups_of("train")["model"] and not local_path(reference).exists():
        return [f"model={reference}"]
    return ["model=hub", f"model.name={quoted(reference)}"]


def _preset(method: str, reference: str) -> TrainConfig:
    """Return the settings with which `metatrain train` would start for a method. Raises: UserError: there is no such method."""
    found: TrainConfig = composed("train", [f"algorithm={method}", *_named(reference)], TrainConfig)
    return found


def _is_inner_loop(settings: Overrides) -> bool:
    """Return whether the settings ask for an inner loop on the support loss, instead of `leave_one_out` or a fitted head."""
    inner, algorithm = settings.inner, settings.algorithm
    if inner.loss == LEAVE_ONE_OUT:
        return False
    if algorithm.head is not None or algorithm.adapt not in (None, "head", "last_layers") or inner.fit_head is False:
        return True
    by_loss = algorithm.adapt == "head" or inner.loss is not None
    own = (inner.loss, inner.head_lr, *((inner.steps, inner.lr) if by_loss else ()))
    return not (inner.fit_head or inner.fit_encoder) and any(each is not None for each in own)


def saved_recipe(folder: Path, settings: dict[str, Any]) -> SavedRecipe:
    """Return the recipe of the directory of a meta-trained model.

    Raises:
        UserError: it cannot be read, or its format is unknown to this version.
    """
    if settings.get("format", FORMAT) != FORMAT:
        raise UserError(f"{folder / RECIPE} has format {settings['format']}, this version of metatrain reads {FORMAT}; use the version that wrote it")
    try:
        recipe: SavedRecipe = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SavedRecipe), escaped(current(settings)[0])))  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{folder / RECIPE}: {explain(error)}; another version of metatrain may have written it") from error
    return recipe


def joint_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the label names of a joint head from the names of its parameters."""
    prefix = HEAD + ROW
    return tuple(sorted(name[len(prefix) :] for name in names if name.startswith(prefix)))


def overridden(recipe: Recipe, settings: Overrides, plain: bool) -> Recipe:
    """Return the recipe of a checkpoint with settings replaced.

    plain: the model was not meta-trained; `plain_recipe` has applied `algorithm.name`.

    Raises:
        UserError: the settings are incompatible with each other, or with a meta-trained model.
    """
    if settings.algorithm.name is not None and not plain:
        raise UserError(
            f"algorithm={settings.algorithm.name} selects the method of a plain model, but this checkpoint was meta-trained with "
            f"algorithm={recipe.algorithm.name}; remove it, or start from a plain model, checkpoint=minilm for example"
        )
    algorithm, model = _with(recipe.algorithm, settings.algorithm), _with(recipe.model, settings.model)
    prompt = _with(recipe.prompt, settings.prompt)
    inner = recipe.inner
    if settings.inner.fit_encoder and settings.algorithm.adapt is None and settings.inner.loss is None and inner.loss == LEAVE_ONE_OUT:
        algorithm = replace(algorithm, adapt="head")  # all layers are trained after the head is fitted, so none adapt before
    if algorithm.adapt == "head" and inner.loss == LEAVE_ONE_OUT and settings.inner.loss is None:
        inner = replace(inner, loss="support", steps=0, evaluation_steps=None)  # a loss of the encodings, which stay as they are: its steps are none
    found = replace(recipe, algorithm=algorithm, inner=_inner(inner, settings.inner, plain), model=model, prompt=prompt)
    check_algorithm(found.algorithm, found.inner, found.model)
    return found


def keeps_temperature(learned: Recipe, recipe: Recipe) -> bool:
    """Return whether a temperature that was learned with one recipe is that of another: the same head on encodings made the same way.

    A fitted head has it whichever layers adapt before; other methods only without any other change.
    """
    if replace(learned.model, max_length=recipe.model.max_length) != recipe.model or learned.prompt != recipe.prompt:
        return False
    if learned.inner.fit_head and recipe.inner.fit_head:
        before, after = learned.algorithm, recipe.algorithm
        return all(getattr(before, key) == getattr(after, key) for key in ("head", "head_scale", "label_names", "label_names_weight"))
    return (learned.algorithm, learned.inner) == (recipe.algorithm, recipe.inner)


def _inner(inner: InnerConfig, overrides: InnerOverrides, plain: bool) -> InnerConfig:
    """Return the inner-loop settings of a checkpoint with other learning rates or another number of steps for adaptation.

    Raises:
        UserError: the learning rates were learned, or the number of steps is negative.
    """
    if overrides.steps is not None and overrides.steps < 0:  # inner.steps is what the user typed; below, it sets evaluation_steps
        raise UserError(f"inner.steps={overrides.steps} must be zero or more")
    for key in ("lr", "head_lr"):
        if getattr(overrides, key) is not None and not plain and not has_fixed_rates(make_inner_rule(inner)):
            raise UserError(f"inner.{key}: the learning rates of this model are learned (inner.rule={inner.rule}) and cannot be set; remove it")
    # inner.steps of training stays, because parameters may have been learned for each step.
    steps = inner.evaluation_steps if overrides.steps is None else overrides.steps
    return replace(_with(inner, replace(overrides, steps=None)), evaluation_steps=steps)


def _with(settings: Any, overrides: Any) -> Any:
    """Return the settings with the overrides that are not null."""
    return replace(settings, **{key: value for key, value in asdict(overrides).items() if value is not None})
