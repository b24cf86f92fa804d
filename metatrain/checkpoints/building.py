"""Build a learner from its recipe, with initial weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from metatrain.checkpoints.recipe import Recipe, check_long_texts, leave_one_out_recipe, lora_recipe, within_layers
from metatrain.errors import UserError
from metatrain.evaluation.config import LoraConfig
from metatrain.gradient.meta_gradient import mode_of
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import Learner
from metatrain.models.adapted import attach, number_of_layers
from metatrain.models.adapters import AdapterSettings
from metatrain.models.cloze import load_cloze_encoder
from metatrain.models.config import BUILT_IN
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.heads import head_facts
from metatrain.models.images import ImageEncoder, is_image_model, load_image_encoder
from metatrain.models.language_loading import load_language_model
from metatrain.models.language_model import LanguageModel
from metatrain.models.pretrained import check_remote_code
from metatrain.paths import local_path
from metatrain.tasks.episodes import fixed_way


def make_learner(model: Encoder | ImageEncoder | LanguageModel, recipe: Recipe) -> Learner:
    """Return the learner of a recipe for a loaded model."""
    if isinstance(model, LanguageModel):
        return LanguageLearner(model, recipe.algorithm, recipe.inner)
    return EncoderLearner(model, recipe.algorithm, recipe.inner, fixed_way(recipe.episode), recipe.labels)


def build_learner(
    recipe: Recipe,
    device: torch.device,
    dtype: torch.dtype,
    say: Callable[[str], None] = lambda line: None,
    texts: Iterable[str] = (),
    fitting: Callable[[Recipe, int], Recipe] = lambda recipe, layers: recipe,
) -> Learner:
    """Return a learner with initial weights: pretrained, or random with the seed of the recipe.

    texts: texts of the training tasks, from which a randomly initialised model learns its tokenizer. fitting: returns the recipe with the method
    that fits a model of this number of layers; it must not change the model.
    """
    check_remote_code(recipe.model)
    torch.manual_seed(recipe.seed)
    second_order = mode_of(recipe.algorithm.meta_gradient).is_second_order
    model: Any
    if recipe.model.name not in BUILT_IN and ":" not in recipe.model.name and not local_path(recipe.model.name).is_dir():
        say(f"model: loading {recipe.model.name} from the hub or its local cache")  # may take minutes
    facts = head_facts(recipe.algorithm.head)
    if facts.is_language_model:
        model, notes = load_language_model(recipe.model, second_order, dtype, texts, facts.reads_support, recipe.prompt)
    elif facts.reads_word_embeddings:
        model, notes = load_cloze_encoder(recipe.model, recipe.prompt, second_order, dtype)
    elif is_image_model(recipe.model):
        model, notes = load_image_encoder(recipe.model, second_order, dtype, texts)
    else:
        model, notes = load_encoder(recipe.model, second_order, dtype)
    recipe = fitting(recipe, number_of_layers([name for name, _ in model.named_parameters()]))
    check_long_texts(recipe, isinstance(model, Encoder))
    algorithm = recipe.algorithm
    attach(model.backbone, algorithm.adapt, AdapterSettings(algorithm.rank, algorithm.targets, algorithm.context_size))
    learner = make_learner(model.to(device), recipe)
    for note in notes:
        say(note)
    say(parameters_line(learner))
    idle = learner.functional.unreached
    if idle:
        say(f"{len(idle)} parameters are unused by the model and stay fixed: {', '.join(idle[:3])}{' ...' if len(idle) > 3 else ''}")
    return learner


def parameters_line(learner: Learner) -> str:
    """Return how many parameters the outer loop trains, and how many an inner loop adapts to each task, if there is one."""
    algorithm, head_adapts = learner.algorithm, learner.functional.head_adapts
    trained = sum(value.numel() for value in learner.parameters.values())
    adapting = sum(value.numel() for name, value in learner.initial.items() if name in learner.functional.adapted)
    line, steps, evaluated = f"trainable: {_count(trained)} in the outer loop", learner.steps(evaluation=False), learner.steps(evaluation=True)
    if not steps and not evaluated:
        return f"{line}; adapted per task: only the head, which is computed from the support set" if head_adapts else line
    what = {"all": "whole model", "body": "whole model", "last_layers": last_layers(learner)}
    of_model = f"{_count(adapting)} ({what.get(algorithm.adapt, algorithm.adapt.replace('_', ' '))})"
    adapted = " and the ".join([*([of_model] if adapting else []), *(["head"] if head_adapts else [])]) + ("" if adapting else " only")
    in_evaluation = "" if steps == evaluated else f" ({evaluated} in evaluation)"
    return f"{line}; adapted per task: {adapted}, {steps} inner step{'s' * (steps != 1)}{in_evaluation}"


def last_layers(learner: Learner) -> str:
    """Return which layers adapt with `algorithm.adapt=last_layers`, in words."""
    number = number_of_layers(learner.functional.adapted)
    return "last layer" if number == 1 else f"last {number} layers"


def build_leave_one_out(recipe: Recipe, device: torch.device, dtype: torch.dtype, texts: Iterable[str] = ()) -> Learner:
    """Return a learner of the same model with initial weights, which adapts by the method `leave_one_out`; texts as in `build_learner`.

    Raises:
        UserError: no layers are known of the model.
    """

    def fitting(recipe: Recipe, layers: int) -> Recipe:
        if not layers:
            raise UserError(f"evaluation.arms: leave_one_out adapts the last layers, and model.name={recipe.model.name} has none that are known; remove it")
        return within_layers(recipe, layers)[0]

    return as_read(build_learner(leave_one_out_recipe(recipe), device, dtype, texts=texts, fitting=fitting))


def build_lora(recipe: Recipe, config: LoraConfig, device: torch.device, dtype: torch.dtype, texts: Iterable[str] = ()) -> Learner:
    """Return a learner of the same language model with initial weights, finetuned by LoRA; texts as in `build_learner`."""
    return build_learner(lora_recipe(recipe, config), device, dtype, texts=texts)


def as_read(learner: Learner) -> Learner:
    """Return a learner that reads no label names if its model reads no texts."""
    return learner if learner.model.tokenizer is not None else learner.with_algorithm(replace(learner.algorithm, label_names=False))


def _count(number: int) -> str:
    """Return a number of parameters as text, in millions from one million."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,}"
