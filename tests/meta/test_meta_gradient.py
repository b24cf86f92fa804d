"""The recursion against closed forms on quadratics, in float64."""

import pytest
import torch

from metatrain.errors import UserError
from metatrain.meta.inner import SGD
from metatrain.meta.meta_gradient import adapt, check_mode, meta_gradient

torch.set_default_dtype(torch.float32)
D, STEPS, LR = 6, 4, 0.07


def spd(seed: int) -> torch.Tensor:
    m = torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return m @ m.T / D + torch.eye(D, dtype=torch.float64)


def vector(seed: int) -> torch.Tensor:
    return torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A, B, a, b = spd(1), spd(2), vector(3), vector(4)
M = torch.eye(D, dtype=torch.float64) - LR * A


class Quadratic:
    """S = 1/2 (w-a)'A(w-a) in two parts, Q = 1/2 (w-b)'B(w-b); w is all there is and adapts."""

    def start(self, theta):
        return {"w": theta["w"]}, {}

    def support_parts(self, phi, fixed):
        half = A / 2
        for _ in range(2):
            yield (phi["w"] - a) @ half @ (phi["w"] - a) / 2

    def query_loss(self, phi, fixed):
        return (phi["w"] - b) @ B @ (phi["w"] - b) / 2


class WithFixed(Quadratic):
    """The same with targets moved by a meta-parameter c that does not adapt: a + c in S, b - 2c in Q; w starts at 3 theta."""

    def start(self, theta):
        return {"w": 3 * theta["w"]}, {"moved": theta["c"] * 1.0}

    def support_parts(self, phi, fixed):
        residual = phi["w"] - a - fixed["moved"]
        yield residual @ A @ residual / 2

    def query_loss(self, phi, fixed):
        residual = phi["w"] - b + 2 * fixed["moved"]
        return residual @ B @ residual / 2


def adapted(w0: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return target + torch.linalg.matrix_power(M, STEPS) @ (w0 - target)


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed"])
def test_maml_equals_the_closed_form(mode):
    w = vector(5)
    found = meta_gradient(Quadratic(), {"w": w}, SGD(LR), STEPS, mode)
    power = torch.linalg.matrix_power(M, STEPS)
    torch.testing.assert_close(found.adapted["w"], adapted(w, a), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.gradient["w"], power.T @ B @ (adapted(w, a) - b), rtol=0, atol=1e-10)


def test_first_order_is_the_query_gradient_and_differs_from_maml():
    w = vector(5)
    first = meta_gradient(Quadratic(), {"w": w}, SGD(LR), STEPS, "first_order").gradient["w"]
    exact = meta_gradient(Quadratic(), {"w": w}, SGD(LR), STEPS, "exact").gradient["w"]
    torch.testing.assert_close(first, B @ (adapted(w, a) - b), rtol=0, atol=1e-12)
    assert (first - exact).norm() > 0.1 * exact.norm()


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed"])
def test_parameters_that_do_not_adapt_get_their_direct_and_indirect_terms(mode):
    w, c = vector(5), vector(6)
    found = meta_gradient(WithFixed(), {"w": w, "c": c}, SGD(LR), STEPS, mode).gradient
    power = torch.linalg.matrix_power(M, STEPS)
    final = adapted(3 * w, a + c)
    upstream = B @ (final - b + 2 * c)
    torch.testing.assert_close(found["w"], 3 * power.T @ upstream, rtol=0, atol=1e-10)
    torch.testing.assert_close(found["c"], (torch.eye(D, dtype=torch.float64) - power).T @ upstream + 2 * upstream, rtol=0, atol=1e-10)


def test_first_order_keeps_the_direct_terms():
    w, c = vector(5), vector(6)
    found = meta_gradient(WithFixed(), {"w": w, "c": c}, SGD(LR), STEPS, "first_order").gradient
    upstream = B @ (adapted(3 * w, a + c) - b + 2 * c)
    torch.testing.assert_close(found["w"], 3 * upstream, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["c"], 2 * upstream, rtol=0, atol=1e-12)


def test_losses_before_and_after():
    w = vector(5)
    found = meta_gradient(Quadratic(), {"w": w}, SGD(LR), STEPS, "exact")
    query = Quadratic().query_loss
    assert found.query_loss_before == pytest.approx(float(query({"w": w}, {})), abs=1e-12)
    assert found.query_loss == pytest.approx(float(query({"w": adapted(w, a)}, {})), abs=1e-10)
    assert len(found.support_losses) == STEPS
    assert found.support_losses[0] == pytest.approx(float((w - a) @ A @ (w - a) / 2), abs=1e-12)


def test_no_inner_step_gives_the_query_gradient():
    w = vector(5)
    for mode in ("exact", "exact_recomputed", "first_order"):
        torch.testing.assert_close(meta_gradient(Quadratic(), {"w": w}, SGD(LR), 0, mode).gradient["w"], B @ (w - b), rtol=0, atol=1e-12)


def test_adapt_yields_the_whole_trajectory():
    w = vector(5)
    *_, last = adapt(Quadratic(), {"w": w}, {}, SGD(LR), STEPS)
    torch.testing.assert_close(last[0]["w"], adapted(w, a), rtol=0, atol=1e-12)


def test_unknown_mode():
    with pytest.raises(UserError, match="choose one of"):
        check_mode("zeroth_order")
