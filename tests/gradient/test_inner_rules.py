import pytest
import torch

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, as_rates, make_inner_rule

PARAMETERS = {"encoder.w": torch.ones(2, 3), "encoder.b": torch.ones(3), "head.weight": torch.ones(4, 3), "head.bias": torch.ones(4)}
PER_CLASS = {**PARAMETERS, "head.weight": torch.ones(1, 3), "head.bias": torch.ones(1)}  # as `learned` sees it
GRADIENTS = {name: torch.full_like(value, 2.0) for name, value in PARAMETERS.items()}


@pytest.mark.parametrize("name", ["sgd", "meta_sgd", "lslr", "curvature"])
def test_every_rule_begins_at_sgd_with_a_rate_of_its_own_for_the_head_and_fits_any_number_of_classes(name):
    rule = make_inner_rule(InnerConfig(rule=name, lr=0.1, head_lr=0.25, steps=2, rank=2))
    moved, _ = rule.update(PARAMETERS, GRADIENTS, 1, rule.learned(PER_CLASS), rule.state(PARAMETERS))
    for key, value in moved.items():
        torch.testing.assert_close(value, torch.full_like(PARAMETERS[key], 0.5 if key.startswith("head.") else 0.8))


def test_adam_is_torchs():
    rule = make_inner_rule(InnerConfig(rule="adam", lr=0.1))
    ours = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    theirs = torch.nn.Parameter(ours.clone())
    reference, state = torch.optim.Adam([theirs], lr=0.1), rule.state({"w": ours})
    for step in range(5):
        theirs.grad = 2 * theirs.detach() + 1
        moved, state = rule.update({"w": ours}, {"w": 2 * ours + 1}, step, {}, state)
        ours = moved["w"]
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-8)


def test_adam_lslr_begins_at_adam_with_a_positive_rate_for_each_step():
    config = {"lr": 0.1, "head_lr": 0.25, "steps": 2}
    adam, learned = (make_inner_rule(InnerConfig(rule=name, **config)) for name in ("adam", "adam_lslr"))
    rates = learned.learned(PER_CLASS)
    for step in (0, 1, 5):  # beyond the last step, its rate
        expected, state = adam.update(PARAMETERS, GRADIENTS, step, {}, adam.state(PARAMETERS))
        moved, after = learned.update(PARAMETERS, GRADIENTS, step, rates, learned.state(PARAMETERS))
        torch.testing.assert_close(moved, expected)
        torch.testing.assert_close(after, state)
    halved = {name: value + torch.tensor([1.0, 0.5]).log() for name, value in rates.items()}
    torch.testing.assert_close(as_rates(learned, halved["encoder.b"]), torch.tensor([0.1, 0.05]))
    with pytest.raises(UserError, match="inner.head_lr=0"):
        make_inner_rule(InnerConfig(rule="adam_lslr", head_lr=0.0))


def test_adam_has_finite_derivatives_where_a_gradient_is_zero():
    rule = make_inner_rule(InnerConfig(rule="adam", lr=0.1))
    gradient = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    value = torch.ones(3, dtype=torch.float64)
    moved, _ = rule.update({"w": value}, {"w": gradient}, 0, {}, rule.state({"w": value}))
    moved["w"].sum().backward()
    assert torch.isfinite(gradient.grad).all()


def test_curvature_mixes_the_inputs_of_a_matrix():
    rule = make_inner_rule(InnerConfig(rule="curvature", lr=1.0, rank=2))
    u, v, d = torch.randn(3, 2), torch.randn(3, 2), torch.randn(3)
    weight, bias = torch.zeros(2, 3), torch.zeros(3)
    gradients = {"w": torch.randn(2, 3), "b": torch.randn(3)}
    moved, _ = rule.update({"w": weight, "b": bias}, gradients, 0, {"w.u": u, "w.v": v, "b.d": d}, {})
    torch.testing.assert_close(moved["w"], -gradients["w"] @ (torch.eye(3) + u @ v.T))
    torch.testing.assert_close(moved["b"], -(1 + d) * gradients["b"])


def test_without_a_head_rate_both_are_the_same():
    assert make_inner_rule(InnerConfig(lr=0.1)).rate("head.bias") == 0.1


def test_all_rules_are_listed():
    assert set(RULES) == {"sgd", "meta_sgd", "lslr", "curvature", "adam", "adam_lslr"}


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"lr": float("nan")}, {"head_lr": float("inf")}, {"steps": -1}, {"evaluation_steps": -2}, {"rule": "x"}, {"rank": 0}]
)
def test_values_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"inner.{next(iter(wrong))}"):
        make_inner_rule(InnerConfig(**wrong))
