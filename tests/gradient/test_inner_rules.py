import pytest
import torch

from metatrain.errors import UserError
from metatrain.gradient import InnerLoop
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, Adam, advances, as_rates, has_fixed_rates, make_inner_rule, reads_whole_tensors
from metatrain.gradient.meta_gradient import LEARNED

PARAMETERS = {"encoder.w": torch.ones(2, 3), "encoder.b": torch.ones(3), "head.weight": torch.ones(4, 3), "head.bias": torch.ones(4)}
PER_CLASS = {**PARAMETERS, "head.weight": torch.ones(1, 3), "head.bias": torch.ones(1)}  # as `learned` sees it
GRADIENTS = {name: torch.full_like(value, 2.0) for name, value in PARAMETERS.items()}


@pytest.mark.parametrize("name", ["sgd", "meta_sgd", "lslr", "curvature", "alfa"])
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


@pytest.mark.parametrize("name", ["adam", "adam_lslr"])
def test_adam_advances_as_it_updates(name):
    rule = make_inner_rule(InnerConfig(rule=name, lr=0.1, head_lr=0.25, steps=2))
    learned = {key: value.double() + torch.tensor([0.0, -0.5]) for key, value in rule.learned(PER_CLASS).items()}
    start = {key: value.double() for key, value in PARAMETERS.items()}
    slow, state = start, rule.state(start)
    fast, changed = start, rule.state(start)
    for step, scale in enumerate((1.0, 1e-8, 0.0, -3.0)):  # also gradients as small as the constant in the denominator
        gradients = {key: scale * torch.linspace(0, 1, value.numel(), dtype=value.dtype).view_as(value) for key, value in start.items()}
        before = {key: value.clone() for key, value in fast.items()}
        slow, state = rule.update(slow, gradients, step, learned, state)
        advanced = rule.advance(fast, gradients, step, learned, changed)
        torch.testing.assert_close(fast, before, rtol=0, atol=0)  # the parameters before the step are untouched
        fast = advanced
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-13)
    assert advances(rule)


def test_a_rule_with_an_update_of_its_own_does_not_advance_as_its_base_class():
    class Slower(Adam):
        def update(self, adapted, gradients, step, learned, state):
            moved, after = super().update(adapted, gradients, step, learned, state)
            return {name: (adapted[name] + value) / 2 for name, value in moved.items()}, after

    assert not advances(Slower(InnerConfig()))
    assert not advances(make_inner_rule(InnerConfig(rule="sgd")))


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


def test_alfa_generates_rate_and_decay_from_means_in_any_order_of_the_tensors():
    rule = make_inner_rule(InnerConfig(rule="alfa", lr=0.1, steps=2))
    values = {"b": torch.tensor([1.0, 3.0]), "a": torch.tensor([[2.0]])}
    gradients = {"b": torch.tensor([0.5, 1.5]), "a": torch.tensor([[-1.0]])}
    learned = rule.learned(values)
    assert not has_fixed_rates(rule) and reads_whole_tensors(rule)
    assert learned["generator.in.weight"].shape == learned["generator.out.weight"].shape == (4, 4)
    learned["b.decay"] = torch.tensor([0.0, 0.01])
    learned["generator.in.weight"] = torch.eye(4)  # the hidden units are the means of the values of a and b, then of their gradients, above 0
    learned["generator.out.weight"] = torch.eye(4).flip(0)  # factors of the rates: means of the gradients; of the decay: means of the values
    for step, decay in ((0, 0.0), (1, 0.01), (7, 0.01)):
        found, state = rule.update(values, gradients, step, learned, {})
        assert list(found) == ["b", "a"] and not state
        torch.testing.assert_close(found["b"], (1 - (1 + 2.0) * decay) * values["b"] - 0.1 * (1 + 0.0) * gradients["b"])
        torch.testing.assert_close(found["a"], values["a"] - 0.1 * (1 + 1.0) * gradients["a"])


def test_alfa_gradient_agrees_with_central_differences():
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    loop = InnerLoop(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double(), "alfa", lr=0.05, steps=2)
    values = [*loop.model.parameters(), *loop.learned.values()]
    names = [*dict(loop.model.named_parameters()), *(LEARNED + name.replace("/", ".") for name in loop.learned)]
    directions = [torch.randn_like(value) for value in values]

    def found(distance: float):
        with torch.no_grad():
            for value, direction in zip(values, directions):
                value.add_(distance * direction)
        return loop.meta_gradient(lambda net: (net(x[:3]) - y[:3]).square().mean(), lambda net: (net(x[3:]) - y[3:]).square().mean())

    with torch.no_grad():  # zeros would hide what they multiply
        for value in loop.learned.values():
            value.add_(0.02 * torch.randn_like(value))
    gradient = found(0.0).gradient
    slope = sum((gradient[name] * direction).sum() for name, direction in zip(names, directions))
    high, low = found(1e-6).query_loss, found(-2e-6).query_loss
    assert float(slope) == pytest.approx(float(high - low) / 2e-6, rel=1e-6)


class _Curved(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))


def _curved(target: float, curvature: float):
    return lambda net: curvature * (net.w - target).square().sum() / 2


def _trained_loss(rule: str) -> float:
    """Mean query loss (w - a)^2 / 2 after one inner step on c (w - a)^2 / 2, for four tasks: a = +-1, curvature c = 1 or 10; after meta-training."""
    torch.manual_seed(0)
    tasks = [(a, c) for a in (-1.0, 1.0) for c in (1.0, 10.0)]
    loop = InnerLoop(_Curved(), rule, lr=0.1, steps=1)
    optimizer = torch.optim.Adam(loop.parameters(), lr=0.03)
    for _ in range(120):
        optimizer.zero_grad()
        losses = [loop.backward(_curved(a, c), _curved(a, 1.0), 0.25) for a, c in tasks]
        optimizer.step()
    return float(sum(each.query_loss for each in losses)) / len(losses)


def test_alfa_learns_what_no_fixed_rate_can():
    """One step reaches the target of a task only at the rate 1 / c, which the size of the gradient tells and no rate shared by the tasks can be.

    With any start and any rate r, the mean loss is at least min_r mean_c (1 - r c)^2 / 2 = (1 - (1 + 10)^2 / (2 (1 + 100))) / 2.
    """
    best_fixed = (1 - 11**2 / 202) / 2
    assert _trained_loss("meta_sgd") == pytest.approx(best_fixed, rel=1e-4)
    assert _trained_loss("alfa") < 0.01 * best_fixed


def test_without_a_head_rate_both_are_the_same():
    assert make_inner_rule(InnerConfig(lr=0.1)).rate("head.bias") == 0.1


def test_all_rules_are_listed():
    assert set(RULES) == {"sgd", "meta_sgd", "lslr", "curvature", "adam", "adam_lslr", "alfa"}


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"lr": float("nan")}, {"head_lr": float("inf")}, {"steps": -1}, {"evaluation_steps": -2}, {"rule": "x"}, {"rank": 0}]
)
def test_values_that_make_no_sense(wrong):
    with pytest.raises(UserError, match=f"inner.{next(iter(wrong))}"):
        make_inner_rule(InnerConfig(**wrong))


@pytest.mark.parametrize("name", sorted(RULES))
def test_nothing_is_learned_where_nothing_adapts(name):
    """A method without an inner loop, such as protonet, with this rule in a grid."""
    assert make_inner_rule(InnerConfig(rule=name, steps=0)).learned({}) == {}
