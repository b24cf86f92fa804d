"""Write the meta-trained model of a run as a model directory that `finetune` and transformers load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from metatrain.checkpoints.recipe import FORMAT, Recipe, SavedRecipe
from metatrain.meta.learner import Learner
from metatrain.models.export import save_meta_trained
from metatrain.run.atomic import atomic_directory


def save_model(folder: Path, learner: Learner, recipe: Recipe) -> None:
    """Write the meta-trained model with everything that `finetune` needs to adapt it."""
    learned = {name: value for name, value in learner.parameters.items() if not name.startswith(learner.prefix)}
    saved = ("pooling", "normalize", "prefix", "max_length", "max_target_length", "scratch")
    facts = asdict(SavedRecipe(FORMAT, recipe.model.name, recipe.model, recipe.algorithm, recipe.inner, recipe.episode, recipe.seed))
    facts["model"] = {key: value for key, value in facts["model"].items() if key in saved}
    with atomic_directory(folder) as temporary:
        save_meta_trained(temporary, learner.load_model(), learner.prefix, learned, facts)
