"""Recipes of learners."""

from metatrain.checkpoints.recipe import SavedRecipe
from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig
from metatrain.gradient.config import InnerConfig


def test_the_default_inner_loop_is_the_same_in_the_code_and_in_conf():
    chosen = composed("train", ["algorithm=maml"], TrainConfig).inner
    assert SavedRecipe().inner == chosen
    assert InnerConfig().lr == chosen.lr
