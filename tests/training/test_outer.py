import math

import pytest
import torch

from metatrain.errors import UserError
from metatrain.training.config import OuterConfig
from metatrain.training.outer import OuterOptimizer, check_outer, rate


def parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"encoder.w": torch.randn(4, 3, generator=generator), "encoder.b": torch.randn(3, generator=generator), "head.log_scale": torch.tensor(0.5)}


def gradient(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(value.shape, generator=generator) for name, value in parameters().items()}


def test_schedules():
    cosine = OuterConfig(steps=110, warmup=10, schedule="cosine")
    assert [rate(cosine, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(cosine, 60) == pytest.approx(0.5)
    assert rate(cosine, 109) < 0.001
    assert rate(OuterConfig(steps=110, warmup=10, schedule="linear"), 35) == pytest.approx(0.75)
    assert rate(OuterConfig(steps=110, warmup=0, schedule="constant"), 0) == 1.0


def test_meta_updates_are_those_of_adamw():
    config = OuterConfig(lr=0.1, head_lr=0.3, steps=5, schedule="constant", warmup=0, clip=None, weight_decay=0.2)
    ours, theirs = parameters(), parameters()
    optimizer = OuterOptimizer(ours, config)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs["encoder.w"]], "weight_decay": 0.2},
            {"params": [theirs["encoder.b"]], "weight_decay": 0.0},
            {"params": [theirs["head.log_scale"]], "weight_decay": 0.0, "lr": 0.3},
        ],
        lr=0.1,
    )
    for step in range(5):
        optimizer.step(gradient(step), step)
        for name, value in gradient(step).items():
            theirs[name].grad = value
        reference.step()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_clipping_bounds_the_norm_and_reports_it_as_it_was():
    ours = parameters()
    optimizer = OuterOptimizer(ours, OuterConfig(clip=0.01, schedule="constant", warmup=0))
    norm = optimizer.step(gradient(0), 0)
    assert norm == pytest.approx(math.sqrt(sum(float(value.square().sum()) for value in gradient(0).values())), rel=1e-5)
    scaled = optimizer.optimizer.state[ours["encoder.b"]]["exp_avg"]
    torch.testing.assert_close(scaled, 0.1 * gradient(0)["encoder.b"] * 0.01 / norm, rtol=1e-4, atol=1e-9)


def test_a_gradient_that_is_not_finite_changes_nothing():
    ours = parameters()
    optimizer = OuterOptimizer(ours, OuterConfig())
    bad = gradient(0)
    bad["encoder.b"][1] = float("nan")
    assert not math.isfinite(optimizer.step(bad, 0))
    for name, value in parameters().items():
        assert torch.equal(ours[name], value)
    assert optimizer.state() == {}


def test_a_restored_optimizer_continues_with_the_same_bits():
    whole, halves = parameters(), parameters()
    optimizer = OuterOptimizer(whole, OuterConfig(steps=6))
    first = OuterOptimizer(halves, OuterConfig(steps=6))
    for step in range(6):
        optimizer.step(gradient(step), step)
    for step in range(3):
        first.step(gradient(step), step)
    state = {name: value.clone() for name, value in first.state().items()}
    second = OuterOptimizer(halves, OuterConfig(steps=6))
    second.load_state(state)
    for step in range(3, 6):
        second.step(gradient(step), step)
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"meta_batch": 0}, {"lr": -1.0}, {"clip": math.nan}, {"warmup": -1}, {"schedule": "x"}])
def test_values_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"outer.{next(iter(wrong))}"):
        check_outer(OuterConfig(**wrong))
