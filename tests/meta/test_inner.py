import pytest
import torch

from metatrain.errors import UserError
from metatrain.meta.config import InnerConfig
from metatrain.meta.inner import SGD, make_inner_rule


def test_sgd_has_a_rate_of_its_own_for_the_head():
    parameters = {"encoder.w": torch.ones(2), "head.weight": torch.ones(2)}
    gradients = {name: torch.full((2,), 2.0) for name in parameters}
    found = SGD(0.1, 0.25).update(parameters, gradients, 0)
    torch.testing.assert_close(found["encoder.w"], torch.full((2,), 0.8))
    torch.testing.assert_close(found["head.weight"], torch.full((2,), 0.5))


def test_without_a_head_rate_both_are_the_same():
    assert SGD(0.1).head_lr == 0.1


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"lr": float("nan")}, {"head_lr": float("inf")}, {"steps": -1}, {"evaluation_steps": -2}, {"rule": "x"}])
def test_values_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"inner.{next(iter(wrong))}"):
        make_inner_rule(InnerConfig(**wrong))
