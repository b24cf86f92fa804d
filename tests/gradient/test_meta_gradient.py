"""Every meta-gradient against closed forms on quadratics, and every mode and rule against an unrolled graph, in float64.

S = 1/2 (w-a)'A(w-a), Q = 1/2 (w-b)'B(w-b), M = I - lr A, w_K = a + M^K (w_0 - a).
"""

import gc
import weakref

import pytest
import torch
from oracles import Anchored, Decaying, unrolled

from metatrain.errors import UserError
from metatrain.gradient import second_order
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, SGD, make_inner_rule
from metatrain.gradient.meta_gradient import LEARNED, MODES, Method, _Tape, adapt, check_method, conjugate_gradients, has_recursion, meta_gradient
from metatrain.meta.vectorised import VectorisedRule

D, STEPS, LR = 6, 4, 0.07
EXACT = ("exact", "exact_recomputed", "forward_over_reverse")
EYE = torch.eye(D, dtype=torch.float64)


def spd(seed: int) -> torch.Tensor:
    m = torch.randn(D, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return m @ m.T / D + EYE


def vector(seed: int) -> torch.Tensor:
    return torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


A, B, a, b, w, c = spd(1), spd(2), vector(3), vector(4), vector(5), vector(6)
M = EYE - LR * A
POWER = torch.linalg.matrix_power(M, STEPS)


def power(exponent: int) -> torch.Tensor:
    return torch.linalg.matrix_power(M, exponent)


def rule(name: str = "sgd", steps: int = STEPS, lr: float = LR):
    return make_inner_rule(InnerConfig(rule=name, lr=lr, steps=steps, rank=2))


class Quadratic:
    """S in two parts; w is all there is and adapts."""

    def start(self, theta):
        return {"w": theta["w"]}, {name: value for name, value in theta.items() if name != "w"}

    def support_parts(self, phi, fixed, step):
        for _ in range(2):
            yield (phi["w"] - a) @ (A / 2) @ (phi["w"] - a) / 2

    def query_parts(self, phi, fixed):
        yield (phi["w"] - b) @ B @ (phi["w"] - b) / 2


class WithFixed(Quadratic):
    """Targets moved by a meta-parameter c that does not adapt: a + c in S, b - 2c in Q; w starts at 3 theta."""

    def start(self, theta):
        return {"w": 3 * theta["w"]}, {"moved": theta["c"] * 1.0}

    def support_parts(self, phi, fixed, step):
        residual = phi["w"] - a - fixed["moved"]
        yield residual @ A @ residual / 2

    def query_parts(self, phi, fixed):
        residual = phi["w"] - b + 2 * fixed["moved"]
        yield residual @ B @ residual / 2


class Curved(Quadratic):
    """Losses that are no quadratics, of a matrix and a vector; `shift` enters S and Q and does not adapt."""

    inputs, targets = torch.stack([vector(n) for n in range(10, 18)]), torch.stack([vector(n)[:2] for n in range(20, 28)])

    def start(self, theta):
        phi = {"weight": theta["weight"].tanh(), "bias": theta["bias"]}
        return phi, {name: value for name, value in theta.items() if name not in phi}

    def _loss(self, rows, phi, fixed):
        outputs = (self.inputs[rows] + fixed["shift"]).tanh() @ phi["weight"].T + phi["bias"]
        return ((outputs.sin() - self.targets[rows]) ** 2).sum()

    def support_parts(self, phi, fixed, step):
        yield self._loss(slice(0, 2), phi, fixed)
        yield self._loss(slice(2, 5), phi, fixed)

    def query_parts(self, phi, fixed):
        yield self._loss(slice(5, 6), phi, fixed)
        yield self._loss(slice(6, 8), phi, fixed)


def curved_theta(chosen) -> dict[str, torch.Tensor]:
    theta = {"weight": torch.stack([vector(30), vector(31)]), "bias": vector(32)[:2], "shift": vector(33)}
    torch.manual_seed(7)
    learned = chosen.learned({"weight": theta["weight"], "bias": theta["bias"]})
    # Not where they begin: a zero would hide what is multiplied by it.
    theta.update({LEARNED + name: value + 0.03 * torch.randn_like(value) for name, value in learned.items()})
    return theta


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def adapted(start: torch.Tensor, target: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    return target + power(steps) @ (start - target)


@pytest.mark.parametrize("mode", EXACT)
def test_maml(mode):
    found = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method(mode))
    close(found.query_loss, 0.5 * (adapted(w, a) - b) @ B @ (adapted(w, a) - b), 1e-11)
    close(found.gradient["w"], POWER.T @ B @ (adapted(w, a) - b))


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("graphs", [0, 1, STEPS - 1])
def test_the_numbers_do_not_depend_on_which_graphs_are_kept(name, graphs):
    chosen = rule(name)
    theta = curved_theta(chosen)
    for weights in (None, (0.1, 0.2, 0.3, 0.4)):
        kept, rebuilt = (meta_gradient(Curved(), theta, chosen, STEPS, Method("exact", weights=weights, graphs=n)).gradient for n in (None, graphs))
        assert kept.keys() == rebuilt.keys()
        assert all(torch.equal(kept[key], rebuilt[key]) for key in kept)


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize(("steps", "segment"), [(7, 3), (6, 3), (5, 5), (3, 8), (1, 2), (0, 2)])
def test_segments_of_the_trajectory_change_no_bit(name, mode, steps, segment):
    chosen = rule(name, steps=steps)
    theta = curved_theta(chosen)
    for weights in (None, [0.1 * k for k in range(1, steps + 1)]) if steps else (None,):
        whole, found = (meta_gradient(Curved(), theta, chosen, steps, Method(mode, weights=weights, segment=each)) for each in (None, segment))
        assert found.gradient.keys() == whole.gradient.keys()
        assert all(torch.equal(found.gradient[key], value) for key, value in whole.gradient.items())
        assert list(map(float, found.support_losses)) == list(map(float, whole.support_losses))


def test_segments_hold_twice_the_root_of_the_steps_at_most(monkeypatch):
    held = []
    back = _Tape.back
    monkeypatch.setattr(_Tape, "back", lambda self, *given: (held.append(len(self._stored) + len(self._marked)), back(self, *given))[1])
    for segment, most in ((None, 100), (10, 19)):
        held.clear()
        meta_gradient(Quadratic(), {"w": w}, rule(steps=100), 100, Method("exact_recomputed", segment=segment))
        assert len(held) == 100 and max(held) == most


def test_only_the_graphs_that_are_asked_for_are_alive_before_the_backward_pass(monkeypatch):
    alive = []
    of = second_order.GradientGraph.of.__func__

    def counted(cls, *arguments):
        found, graph = of(cls, *arguments)
        alive.append(weakref.ref(graph))
        return found, graph

    class Watched(Quadratic):
        def query_parts(self, phi, fixed):
            counts.append(sum(each() is not None for each in alive))
            yield from super().query_parts(phi, fixed)

    monkeypatch.setattr(second_order.GradientGraph, "of", classmethod(counted))
    for graphs_kept, parts in ((0, 0), (1, 2), (3, 6), (None, 2 * STEPS)):
        counts: list[int] = []
        meta_gradient(Watched(), {"w": w}, rule(), STEPS, Method("exact", graphs=graphs_kept))
        gc.collect()
        assert counts == [0, parts]
        assert all(each() is None for each in alive)
        alive.clear()


def test_finite_differences_are_exact_on_quadratics_up_to_rounding():
    found = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method("finite_difference"))
    close(found.gradient["w"], POWER.T @ B @ (adapted(w, a) - b), 1e-8)


def test_fomaml_is_the_query_gradient_and_differs_from_maml():
    first = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method("first_order")).gradient["w"]
    exact = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method()).gradient["w"]
    close(first, B @ (adapted(w, a) - b), 1e-12)
    assert (first - exact).norm() > 0.1 * exact.norm()


def test_reptile_is_the_way_that_adaptation_went():
    found = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method("reptile"))
    close(found.gradient["w"], w - adapted(w, a), 1e-12)


@pytest.mark.parametrize("mode", EXACT)
def test_parameters_that_do_not_adapt_get_their_direct_and_indirect_terms(mode):
    found = meta_gradient(WithFixed(), {"w": w, "c": c}, rule(), STEPS, Method(mode)).gradient
    upstream = B @ (adapted(3 * w, a + c) - b + 2 * c)
    close(found["w"], 3 * POWER.T @ upstream)
    close(found["c"], (EYE - POWER).T @ upstream + 2 * upstream)


def test_first_order_keeps_the_direct_terms():
    found = meta_gradient(WithFixed(), {"w": w, "c": c}, rule(), STEPS, Method("first_order")).gradient
    upstream = B @ (adapted(3 * w, a + c) - b + 2 * c)
    close(found["w"], 3 * upstream, 1e-12)
    close(found["c"], 2 * upstream, 1e-12)


@pytest.mark.parametrize("mode", [*EXACT, "first_order"])
def test_learned_rates(mode):
    """dQ/d alpha = - sum over steps of lambda_{k+1} * grad S(phi_k); lambda_k = (I - diag(alpha) A)' lambda_{k+1}, or lambda_K in first order."""
    alpha = 0.05 + 0.02 * torch.arange(D, dtype=torch.float64) / D
    found = meta_gradient(Quadratic(), {"w": w, "rule.w": alpha}, rule("meta_sgd"), STEPS, Method(mode)).gradient
    points = [w]
    for _ in range(STEPS):
        points.append(points[-1] - alpha * (A @ (points[-1] - a)))
    v, expected = B @ (points[-1] - b), torch.zeros(D, dtype=torch.float64)
    for point in reversed(points[:-1]):
        expected -= v * (A @ (point - a))
        if mode != "first_order":
            v = v - A @ (alpha * v)
    close(found["rule.w"], expected)
    close(found["w"], v)


@pytest.mark.parametrize("mode", EXACT)
def test_learned_rates_of_each_step(mode):
    alpha = torch.tensor([0.03, 0.07, 0.05, 0.09], dtype=torch.float64)
    found = meta_gradient(Quadratic(), {"w": w, "rule.w": alpha}, rule("lslr"), STEPS, Method(mode)).gradient
    points = [w]
    for rate in alpha:
        points.append(points[-1] - rate * (A @ (points[-1] - a)))
    v, expected = B @ (points[-1] - b), []
    for point, rate in zip(reversed(points[:-1]), reversed(alpha)):
        expected.insert(0, -(v @ A @ (point - a)))
        v = v - rate * (A @ v)
    close(found["rule.w"], torch.stack(expected))


def test_more_steps_than_trained_use_the_last_rate():
    alpha = torch.tensor([0.1, 0.05], dtype=torch.float64)
    *_, (phi, _) = adapt(Quadratic(), {"w": w}, {"rule.w": alpha}, rule("lslr", steps=2), 5)
    point = w
    for rate in (0.1, 0.05, 0.05, 0.05, 0.05):
        point = point - rate * (A @ (point - a))
    close(phi["w"], point, 1e-12)


def test_imaml_at_the_minimum_of_the_proximal_objective():
    """(I + A / lambda)^-1 dQ/dphi, with the direct and indirect terms of what does not adapt."""
    strength = 2.0
    method = Method("implicit", proximal=strength, cg_steps=50, cg_tolerance=1e-13)
    found = meta_gradient(WithFixed(), {"w": w, "c": c}, rule(lr=0.2), 400, method)
    minimum = torch.linalg.solve(A + strength * EYE, A @ (a + c) + strength * 3 * w)
    upstream = B @ (minimum - b + 2 * c)
    close(found.query_loss, (minimum - b + 2 * c) @ upstream / 2, 1e-11)
    close(found.gradient["w"], 3 * torch.linalg.solve(EYE + A / strength, upstream))
    close(found.gradient["c"], 2 * upstream + A @ torch.linalg.solve(A + strength * EYE, upstream))
    assert found.residual < 1e-12


def test_too_few_steps_of_conjugate_gradients_are_reported():
    found = meta_gradient(Quadratic(), {"w": w}, rule(lr=0.2), 100, Method("implicit", proximal=0.1, cg_steps=1))
    assert 1e-3 < found.residual < 1


class Saddle(WithFixed):
    """S curves downwards along some axes: curvatures -3 to 2."""

    curvature = torch.diag(torch.linspace(-3, 2, D, dtype=torch.float64))

    def support_parts(self, phi, fixed, step):
        residual = phi["w"] - a - fixed["moved"]
        yield residual @ self.curvature @ residual / 2


@pytest.mark.parametrize("strength", [0.01, 0.5, 2.9])
def test_without_a_minimum_the_solution_is_that_of_the_stronger_damping_which_is_reported(strength):
    method = Method("implicit", proximal=strength, cg_steps=50, cg_tolerance=1e-13)
    found = meta_gradient(Saddle(), {"w": w, "c": c}, rule(lr=0.01), 1, method)
    assert found.damping * strength > 3 and found.residual < 1e-12
    *_, (phi, _) = adapt(Saddle(), {"w": 3 * w}, {"moved": c}, rule(lr=0.01), 1, proximal=strength)
    upstream = B @ (phi["w"] - b + 2 * c)
    solution = torch.linalg.solve(EYE + Saddle.curvature / (found.damping * strength), upstream)
    close(found.gradient["w"], 3 * solution)
    close(found.gradient["c"], 2 * upstream + Saddle.curvature @ solution / (found.damping * strength))


def test_a_minimum_needs_no_damping_and_a_residual_that_is_too_large_does():
    method = Method("implicit", proximal=3.1, cg_steps=50, cg_tolerance=1e-13)
    assert meta_gradient(Saddle(), {"w": w, "c": c}, rule(lr=0.01), 1, method).damping == 1
    spread = torch.diag(torch.logspace(0, 6, D, dtype=torch.float64))
    _, residual, lowest = conjugate_gradients(lambda v: {"w": spread @ v["w"]}, {"w": torch.ones(D, dtype=torch.float64)}, 2, 1e-6)
    assert residual > 1 and lowest > 0  # conjugate gradients on the way, of a matrix that is hard

    class Hard(Quadratic):
        def support_parts(self, phi, fixed, step):
            yield (phi["w"] - a) @ spread @ (phi["w"] - a) / 2

    found = meta_gradient(Hard(), {"w": w}, rule(lr=1e-7), 1, Method("implicit", proximal=1.0, cg_steps=2))
    assert found.damping > 1 and found.residual <= 0.5


def test_a_solution_that_is_not_finite_stays_so():
    class Broken(Quadratic):
        def support_parts(self, phi, fixed, step):
            yield (phi["w"] * float("inf")).square().sum()

    found = meta_gradient(Broken(), {"w": w}, rule(lr=0.0), 1, Method("implicit", proximal=1.0))
    assert not found.gradient["w"].isfinite().all()


@pytest.mark.parametrize("mode", [*EXACT, "first_order"])
def test_losses_along_the_way(mode):
    weights = [0.1, 0.2, 0.3, 0.4]
    found = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method(mode, weights=weights)).gradient["w"]
    terms = [B @ (adapted(w, a, k) - b) for k in range(1, STEPS + 1)]
    if mode != "first_order":
        terms = [power(k).T @ term for k, term in enumerate(terms, start=1)]
    close(found, sum(weight * term for weight, term in zip(weights, terms)))


@pytest.mark.parametrize("kind", [*RULES.values(), Decaying, Anchored])
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "first_order"])
@pytest.mark.parametrize("weights", [None, [0.2, 0.3, 0.5]])
def test_what_a_rule_does_decides_on_the_recursion(kind, mode, weights):
    chosen = kind(InnerConfig(lr=LR, steps=3, rank=2))
    theta = curved_theta(chosen)
    found = meta_gradient(Curved(), theta, chosen, 3, Method(mode, weights=weights)).gradient
    for key, value in unrolled(Curved(), theta, chosen, 3, weights, first_order=mode == "first_order").items():
        close(found[key], value)


def test_first_order_keeps_no_trajectory_of_a_rule_that_says_it_adds():
    for name, kind in RULES.items():
        assert has_recursion(Method("first_order"), kind(InnerConfig()), learns_rates=False) == (name == "alfa")  # which scales phi
    assert has_recursion(Method("first_order"), Decaying(InnerConfig()), learns_rates=False)
    assert has_recursion(Method("first_order"), Anchored(InnerConfig()), learns_rates=False)
    assert has_recursion(Method("first_order"), VectorisedRule(Decaying(InnerConfig())), learns_rates=False)
    assert not has_recursion(Method("first_order"), VectorisedRule(SGD(InnerConfig())), learns_rates=False)


@pytest.mark.parametrize("name", list(RULES))
@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("weights", [None, [0.2, 0.3, 0.5]])
def test_every_rule_and_exact_mode_equals_the_unrolled_graph(name, mode, weights):
    chosen = rule(name, steps=3)
    theta = curved_theta(chosen)
    found = meta_gradient(Curved(), theta, chosen, 3, Method(mode, weights=weights)).gradient
    expected = unrolled(Curved(), theta, chosen, 3, weights)
    assert found.keys() == expected.keys() == theta.keys()
    for key, value in expected.items():
        close(found[key], value)


def test_the_oracle_would_notice_a_wrong_rule():
    """The comparison above, with a rule that is off by a hundredth in one place, fails."""

    class Wrong(SGD):
        def update(self, adapted, gradients, step, learned, state):
            moved, _ = super().update(adapted, gradients, step, learned, state)
            return {name: value - (0.01 * self.lr * gradients[name] if step == 1 else 0) for name, value in moved.items()}, {}

    theta = curved_theta(rule())
    found = meta_gradient(Curved(), theta, Wrong(InnerConfig(lr=LR, steps=3)), 3, Method()).gradient
    expected = unrolled(Curved(), theta, rule(), 3)
    assert max(float((found[key] - value).abs().max()) for key, value in expected.items()) > 1e-6


def test_losses_before_and_after():
    found = meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method())
    assert found.query_loss_before == pytest.approx(float((w - b) @ B @ (w - b) / 2), abs=1e-12)
    assert found.query_loss == pytest.approx(float((adapted(w, a) - b) @ B @ (adapted(w, a) - b) / 2), abs=1e-10)
    assert len(found.support_losses) == STEPS
    assert found.support_losses[0] == pytest.approx(float((w - a) @ A @ (w - a) / 2), abs=1e-12)


@pytest.mark.parametrize("mode", [name for name, row in MODES.items() if row.needs_steps is None])
def test_no_inner_step_gives_the_query_gradient(mode):
    close(meta_gradient(Quadratic(), {"w": w}, rule(), 0, Method(mode)).gradient["w"], B @ (w - b), 1e-12)


@pytest.mark.parametrize(("name", "proximal"), [("implicit", 1.0), ("reptile", 0.0)])
def test_a_mode_is_what_its_row_says_whatever_its_name(monkeypatch, name, proximal):
    monkeypatch.setitem(MODES, "another", MODES[name])
    found, expected = (meta_gradient(Quadratic(), {"w": w}, rule(), STEPS, Method(mode, proximal)) for mode in ("another", name))
    assert found.residual == expected.residual
    assert torch.equal(found.gradient["w"], expected.gradient["w"])


def test_modes_that_differentiate_adaptation():
    assert {name for name, row in MODES.items() if not row.differentiates_adaptation} == {"first_order", "reptile"}


def test_adapt_yields_the_whole_trajectory():
    trajectory = list(adapt(Quadratic(), {"w": w}, {}, rule(), STEPS))
    for k, (phi, loss) in enumerate(trajectory, start=1):
        close(phi["w"], adapted(w, a, k), 1e-12)
        before = adapted(w, a, k - 1)
        assert loss == pytest.approx(float((before - a) @ A @ (before - a) / 2), abs=1e-12)


@pytest.mark.parametrize(
    ("method", "steps", "words"),
    [
        (Method("zeroth_order"), 3, "choose one of"),
        (Method("implicit"), 3, "proximal"),
        (Method("exact", proximal=1.0), 3, "proximal"),
        (Method("implicit", proximal=1.0), 0, "inner.steps"),
        (Method("implicit", proximal=1.0, cg_steps=0), 3, "cg_steps"),
        (Method("reptile"), 0, "inner.steps"),
        (Method("reptile", weights=[1.0]), 1, "multi_step_until"),
    ],
)
def test_meta_gradients_that_cannot_be(method, steps, words):
    with pytest.raises(UserError, match=words):
        check_method(method, steps)
