"""Recipes of learners."""

import pytest
import torch

from metatrain.checkpoints.building import build_leave_one_out
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.checkpoints.recipe import Recipe, SavedRecipe, leave_one_out_recipe, plain_recipe, within_layers
from metatrain.config.compose import composed
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, ModelOverrides, Overrides, TrainConfig
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig

CPU = (torch.device("cpu"), torch.float32)


def test_the_default_inner_loop_is_the_same_in_the_code_and_in_conf():
    chosen = composed("train", ["algorithm=maml"], TrainConfig).inner
    assert SavedRecipe().inner == chosen
    assert InnerConfig().lr == chosen.lr


def opened(say=lambda line: None, **settings):
    kinds = {"algorithm": AlgorithmOverrides, "inner": InnerOverrides, "model": ModelOverrides}
    return open_checkpoint("tiny", Overrides(**{key: kinds[key](**value) for key, value in settings.items()}), *CPU, say)


def test_a_plain_encoder_adapts_its_last_layers_and_then_a_head_is_fitted():
    """As algorithm=leave_one_out, whose head is made of prototypes instead."""
    found, preset = opened().learner, composed("train", ["algorithm=leave_one_out"], TrainConfig)
    assert found.algorithm == preset.algorithm and found.model.normalize
    assert found.inner.fit_head and (found.inner.loss, found.inner.rule, found.inner.lr, found.inner.steps) == ("leave_one_out", "adam", 2e-4, 3)
    named = opened(algorithm={"name": "leave_one_out"}).learner
    assert named.algorithm == preset.algorithm and named.inner == preset.inner


@pytest.mark.parametrize(
    ("settings", "loss", "adapt", "fit_head"),
    [
        ({"inner": {"steps": 5, "lr": 1e-4}}, "leave_one_out", "last_layers", True),
        ({"inner": {"fit_head": True}}, "leave_one_out", "last_layers", True),
        ({"algorithm": {"adapt": "last_layers", "last_layers": 1}}, "leave_one_out", "last_layers", True),
        ({"inner": {"loss": "leave_one_out", "fit_head": False}}, "leave_one_out", "last_layers", False),
        ({"algorithm": {"name": "recommended"}}, "support", "head", True),
        ({"algorithm": {"adapt": "head"}}, "support", "head", True),
        ({"inner": {"fit_encoder": True}}, "support", "head", True),
        ({"inner": {"fit_head": False}}, "support", "all", False),
        ({"inner": {"loss": "support"}}, "support", "all", False),
        ({"inner": {"head_lr": 0.1}}, "support", "all", False),
        ({"algorithm": {"adapt": "layer_norm"}}, "support", "layer_norm", False),
        ({"algorithm": {"adapt": "head"}, "inner": {"steps": 2}}, "support", "head", False),
    ],
)
def test_settings_choose_the_method_of_a_plain_encoder(settings, loss, adapt, fit_head):
    found = opened(**settings).learner
    assert (found.inner.loss, found.algorithm.adapt, found.inner.fit_head) == (loss, adapt, fit_head)
    if (steps := settings.get("inner", {}).get("steps")) is not None:
        assert found.steps(evaluation=True) == steps


def test_without_unit_length_the_head_starts_from_prototypes():
    found = opened(model={"normalize": False}).learner
    assert (found.algorithm.head, found.algorithm.head_scale, found.inner.loss) == ("prototype", 1.0, "leave_one_out") and not found.model.normalize


def test_a_model_without_layers_that_are_known(monkeypatch):
    saved = plain_recipe("tiny", Overrides())
    recipe = Recipe(saved.model, saved.algorithm, saved.inner, saved.episode, 0)
    assert within_layers(recipe, 1) == (recipe, None)
    monkeypatch.setattr("metatrain.checkpoints.building.number_of_layers", lambda names: 0)
    said = []
    found = opened(said.append)
    assert found.learner.algorithm.adapt == found.untrained().algorithm.adapt == "head" and found.learner.inner.fit_head
    assert [line for line in said if "only a head is fitted (algorithm=recommended)" in line]
    with pytest.raises(UserError, match="leave_one_out adapts the last layers, and model.name=tiny has none"):
        build_leave_one_out(recipe, *CPU)


def test_leave_one_out_before_meta_training_is_the_same_for_every_method():
    """For the method itself it is `no_meta_training`; other methods, with other models of the same name, start from the same encoder."""
    own = composed("train", ["model=tiny", "algorithm=leave_one_out"], TrainConfig)
    assert leave_one_out_recipe(Recipe.of_run(own)) == Recipe.of_run(own)
    other = composed("train", ["model=tiny", "algorithm=maml_lora"], TrainConfig)
    found, ours = build_leave_one_out(Recipe.of_run(other), *CPU), opened(algorithm={"name": "leave_one_out"}).untrained()
    assert found.algorithm == ours.algorithm and found.inner == ours.inner and found.model.normalize
    assert found.parameters.keys() == ours.parameters.keys()
    assert all(torch.equal(value, ours.parameters[name]) for name, value in found.parameters.items())
