"""A learner is introduced with the numbers of its parameters."""

import pytest
import torch

from metatrain.checkpoints.building import build_learner, parameters_line
from metatrain.checkpoints.recipe import Recipe
from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["algorithm=maml"], "233,472 (whole model) and the head, 3 inner steps"),
        (["algorithm=anil", "inner.evaluation_steps=1"], "head only, 3 inner steps (1 in evaluation)"),
        (["algorithm=protomaml", "algorithm.adapt=last_layers", "inner.steps=1"], "66,944 (last 2 layers) and the head, 1 inner step"),
        (["algorithm=protomaml", "algorithm.adapt=layer_norm", "inner.steps=1"], "640 (layer norm) and the head, 1 inner step"),
        (["algorithm=boil"], "233,472 (whole model), 3 inner steps"),
    ],
)
def test_what_adapts_to_each_task_is_counted(settings, said):
    learner = build_learner(Recipe.of_run(composed("train", ["model=tiny", *settings], TrainConfig)), torch.device("cpu"), torch.float32)
    line = parameters_line(learner)
    assert line.endswith(f" in the outer loop; adapted per task: {said}"), line
    assert line.startswith(f"trainable: {sum(value.numel() for value in learner.parameters.values()):,} in")


@pytest.mark.parametrize("algorithm", ["protonet", "r2d2", "recommended"])
def test_without_an_inner_loop_nothing_is_said_of_steps(algorithm):
    learner = build_learner(Recipe.of_run(composed("train", ["model=tiny", f"algorithm={algorithm}"], TrainConfig)), torch.device("cpu"), torch.float32)
    assert parameters_line(learner).endswith(" in the outer loop; adapted per task: only the head, which is computed from the support set")
