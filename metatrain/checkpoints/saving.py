"""Write the meta-trained model of a run as a model directory that `finetune` and transformers load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from metatrain.checkpoints.recipe import FORMAT, Recipe, SavedRecipe
from metatrain.errors import UserError
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.learner import Learner
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.export import save_meta_trained
from metatrain.models.heads import head_facts
from metatrain.models.peft_export import Base, base_of
from metatrain.models.pretrained import commit_or_revision
from metatrain.models.scratch import PREFIX
from metatrain.run.atomic import atomic_directory


def save_model(folder: Path, learner: Learner, recipe: Recipe, export: str | None = None) -> None:
    """Write the meta-trained model with everything that `finetune` needs to adapt it; export: `checkpoint.export`."""
    adapter_of = _adapter_of(learner, recipe, export)
    learned = {name: value for name, value in learner.parameters.items() if not name.startswith(learner.prefix)}
    saved = ("pooling", "normalize", "prefix", "max_length", "max_target_length", "scratch")
    base = Base(recipe.model.name, commit_or_revision(recipe.model.name, recipe.model.revision)) if adapter_of is None else adapter_of
    facts = asdict(
        SavedRecipe(FORMAT, base.name, recipe.model, recipe.algorithm, recipe.inner, recipe.episode, recipe.seed, recipe.prompt, learner.temperature)
    )
    facts["model"] = {key: value for key, value in facts["model"].items() if key in saved} | {"revision": base.revision}
    if recipe.prompt == PromptConfig():
        del facts["prompt"]
    if learner.temperature is None:
        del facts["temperature"]
    with atomic_directory(folder) as temporary:
        save_meta_trained(temporary, learner.load_model(), learner.prefix, learned, facts, adapter_of)


def check_export(export: str | None, algorithm: AlgorithmConfig, model: ModelConfig) -> None:
    """Raises: UserError: there is no such export; or `adapter`, and not only LoRA matrices are trained, or the base model cannot be loaded elsewhere."""
    if export not in (None, "adapter", "merged"):
        raise UserError(f"checkpoint.export={export} is unknown; choose adapter or merged")
    if export == "adapter" and not _is_adapter(algorithm, model):
        raise UserError(
            "checkpoint.export=adapter writes the LoRA matrices of a pretrained model that stays as it is: set algorithm.adapt=lora algorithm.train=adapted, "
            "or choose checkpoint.export=merged"
        )


def _adapter_of(learner: Learner, recipe: Recipe, export: str | None) -> Base | None:
    """Return the base model of which only the LoRA matrices are written; None: the merged model is."""
    is_default = export is None and head_facts(recipe.algorithm.head).is_language_model
    return base_of(recipe.model) if (export == "adapter" or is_default) and _is_adapter(learner.algorithm, recipe.model) else None


def _is_adapter(algorithm: AlgorithmConfig, model: ModelConfig) -> bool:
    return algorithm.adapt == "lora" and algorithm.train == "adapted" and model.name != "tiny" and not model.name.startswith(PREFIX)
