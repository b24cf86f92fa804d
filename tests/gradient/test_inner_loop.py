"""The meta-gradient of a module against closed forms and unrolled graphs, in float64; what it leaves alone; what it refuses."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient import InnerLoop, Method
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import RULES, Adam, Curvature
from metatrain.gradient.meta_gradient import LEARNED

EXACT = ("exact", "exact_recomputed", "forward_over_reverse")
X, XQ = (torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
Y, YQ = X.sin().sum(1, keepdim=True), XQ.sin().sum(1, keepdim=True)


def support(net):
    return (net(X) - Y).square().mean()


def query(net):
    return (net(XQ) - YQ).square().mean()


def network(*middle: nn.Module, seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), *middle, nn.Tanh(), nn.Linear(5, 1)).double()


def close(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def unrolled(loop: InnerLoop, steps: int, weights=None, first_order: bool = False) -> dict[str, torch.Tensor]:
    """The meta-gradient by automatic differentiation of all inner steps in one graph, with a plain functional call of the model."""
    net = loop.model
    theta = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}
    learned = {name.replace("/", "."): value.detach().clone().requires_grad_() for name, value in loop.learned.items()}
    buffers = {name: value.clone() for name, value in net.named_buffers()}

    def call(phi, x):
        return functional_call(net, {**theta, **phi, **{name: value.clone() for name, value in buffers.items()}}, (x,))

    phi = {name: theta[name] for name in loop.adapted}
    state, total = loop.rule.state(phi), 0.0
    for k in range(steps):
        inner = (call(phi, X) - Y).square().mean()
        gradients = dict(zip(phi, torch.autograd.grad(inner, list(phi.values()), create_graph=True)))
        if first_order:
            gradients = {name: value.detach() for name, value in gradients.items()}
        phi, state = loop.rule.update(phi, gradients, k, learned, state)
        weight = float(k == steps - 1) if weights is None else weights[k]
        if weight:
            total = total + weight * (call(phi, XQ) - YQ).square().mean()
    inputs = {**theta, **{LEARNED + name: value for name, value in learned.items()}}
    found = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return {name: value for name, value in zip(inputs, found) if value is not None}


def check(loop: InnerLoop, expected: dict[str, torch.Tensor], atol: float = 1e-10) -> None:
    found = loop.meta_gradient(support, query).gradient
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        close(found[name], value, atol)


@pytest.mark.parametrize("mode", EXACT)
def test_the_closed_form_on_a_quadratic(mode):
    """S = |w - a|^2 / 2, Q = |w - b|^2 / 2: the meta-gradient after K steps at rate r is (1 - r)^K (w_K - b)."""

    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))

    model, a, b = Point(), torch.tensor([3.0, 1.0], dtype=torch.float64), torch.tensor([0.5, 4.0], dtype=torch.float64)
    found = InnerLoop(model, lr=0.2, steps=3, mode=mode).meta_gradient(lambda net: (net.w - a).square().sum() / 2, lambda net: (net.w - b).square().sum() / 2)
    moved = a + 0.8**3 * (model.w.detach() - a)
    close(found.gradient["w"], 0.8**3 * (moved - b), 1e-14)
    close(found.query_loss, (moved - b).square().sum() / 2, 1e-14)
    close(found.query_loss_before, (model.w.detach() - b).square().sum() / 2, 1e-14)


@pytest.mark.parametrize("mode", [*EXACT, "first_order"])
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("adapt", [None, "2.*", ["0.weight", "2.bias"], lambda name: name.endswith("bias")])
def test_every_rule_mode_and_choice_of_parameters_equals_the_unrolled_graph(mode, rule, adapt):
    loop = InnerLoop(network(), rule, lr=0.05, steps=3, adapt=adapt, mode=mode)
    with torch.no_grad():  # zeros would hide the factors that they multiply
        for value in loop.learned.values():
            value.add_(0.03 * torch.randn_like(value))
    check(loop, unrolled(loop, 3, first_order=mode == "first_order"))


def test_finite_differences_come_close():
    loop = InnerLoop(network(), lr=0.05, steps=3, mode="finite_difference")
    check(loop, unrolled(loop, 3), 1e-8)


@pytest.mark.parametrize("mode", EXACT)
def test_the_multi_step_loss_and_a_limit_on_stored_steps(mode):
    weights = [0.2, 0.3, 0.5]
    loop = InnerLoop(network(), lr=0.05, steps=3, mode=Method(mode, weights=weights, graphs=1))
    check(loop, unrolled(loop, 3, weights))


def test_rules_as_objects():
    for rule in (Adam(InnerConfig(lr=0.02)), Curvature(InnerConfig(lr=0.02, rank=2))):
        loop = InnerLoop(network(), rule, steps=2)
        check(loop, unrolled(loop, 2))


def test_reptile_is_the_way_that_adaptation_went():
    model = network()
    found = InnerLoop(model, lr=0.1, steps=3, mode="reptile").meta_gradient(support, query)
    adapted = dict(InnerLoop(model, lr=0.1, steps=3).adapt(support).named_parameters())
    for name, value in model.named_parameters():
        close(found.gradient[name], (value - adapted[name]).detach(), 1e-14)


def test_implicit_gradients_solve_the_linear_system():
    model = nn.Linear(3, 1).double()
    strength = 2.0
    loop = InnerLoop(model, lr=0.1, steps=600, mode=Method("implicit", proximal=strength, cg_steps=50, cg_tolerance=1e-13))
    found = loop.meta_gradient(support, query).gradient
    ones = torch.ones(7, 1, dtype=torch.float64)
    rows, rows_query = torch.cat([X, ones], 1), torch.cat([XQ, ones], 1)
    hessian = 2 / 7 * rows.T @ rows
    start = torch.cat([model.weight.detach()[0], model.bias.detach()])[:, None]
    eye = torch.eye(4, dtype=torch.float64)
    minimum = torch.linalg.solve(hessian + strength * eye, 2 / 7 * rows.T @ Y + strength * start)
    expected = torch.linalg.solve(eye + hessian / strength, 2 / 7 * rows_query.T @ (rows_query @ minimum - YQ))[:, 0]
    close(torch.cat([found["weight"][0], found["bias"]]), expected)


def test_backward_adds_episodes_up_and_an_optimizer_uses_them():
    loop = InnerLoop(network(), "lslr", lr=0.05, steps=2)
    episodes = [(support, query), (query, support)]
    total: dict[str, torch.Tensor] = {}
    for pair in episodes:
        for name, value in loop.meta_gradient(*pair).gradient.items():
            total[name] = total.get(name, 0) + value / 2
    for pair in episodes:
        loop.backward(*pair, weight=0.5)
    for name, value in loop.model.named_parameters():
        close(value.grad, total[name], 1e-14)
    for name, value in loop.learned.items():
        close(value.grad, total["rule." + name.replace("/", ".")], 1e-14)
    before = [value.detach().clone() for value in loop.parameters()]
    torch.optim.SGD(loop.parameters(), lr=0.1).step()
    for old, value in zip(before, loop.parameters()):
        close(value.detach(), old - 0.1 * value.grad, 1e-14)


def test_a_loss_in_parts_is_their_sum():
    def parts(net):
        for rows in (slice(0, 3), slice(3, 7)):
            yield (net(X[rows]) - Y[rows]).square().sum() / 7

    for mode in EXACT:
        loop = InnerLoop(network(), lr=0.05, steps=3, mode=mode)
        found = loop.meta_gradient(parts, lambda net: [query(net) / 4, query(net) * 3 / 4]).gradient
        for name, value in unrolled(loop, 3).items():
            close(found[name], value)


def test_a_loss_may_use_the_model_that_it_closes_over():
    model = network()
    loop = InnerLoop(model, lr=0.05, steps=2)
    for name, value in loop.meta_gradient(lambda _: support(model), lambda _: query(model)).gradient.items():
        close(value, unrolled(loop, 2)[name])


@pytest.mark.parametrize("mode", EXACT)
@pytest.mark.parametrize("training", [True, False])
def test_batch_normalisation_keeps_its_running_statistics(mode, training):
    model = network(nn.BatchNorm1d(5)).train(training)
    with torch.no_grad():
        model[1].running_mean.add_(0.3)
    before = copy.deepcopy(model.state_dict())
    loop = InnerLoop(model, lr=0.05, steps=3, mode=mode)
    check(loop, unrolled(loop, 3))
    adapted = loop.adapt(support)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(adapted[1], name), getattr(model[1], name))
    assert adapted.training is training


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_dropout_has_the_same_mask_whenever_a_step_is_evaluated(rule):
    model = network(nn.Dropout(0.4))
    torch.manual_seed(5)
    torch.randint(2**31, (4,))  # an episode of three steps draws four seeds, and nothing else
    after = int(torch.randint(1000, ()))
    found = []
    for method in (Method("exact"), Method("exact", graphs=1), Method("exact_recomputed"), Method("forward_over_reverse"), Method("finite_difference")):
        torch.manual_seed(5)
        found.append(InnerLoop(model, rule, lr=0.05, steps=3, mode=method).meta_gradient(support, query).gradient)
        assert int(torch.randint(1000, ())) == after, method
    for number, other in enumerate(found[1:], start=1):
        for name, value in found[0].items():
            close(other[name], value, 1e-6 if number == 4 else 1e-12)
    torch.manual_seed(6)
    other = InnerLoop(model, rule, lr=0.05, steps=3).meta_gradient(support, query).gradient
    assert (other["0.weight"] - found[0]["0.weight"]).abs().max() > 1e-3


def test_masks_differ_from_step_to_step_and_from_episode_to_episode():
    masks = []

    def watched(net):
        masks.append(net(torch.ones(1, 50, dtype=torch.float64)).detach())
        return (net(torch.ones(1, 50, dtype=torch.float64)) * net.weight).sum()

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(50, dtype=torch.float64))

        def forward(self, x):
            return torch.nn.functional.dropout(x, 0.5)

    for _ in range(2):
        InnerLoop(Masked(), steps=2, mode="first_order").meta_gradient(watched, watched)
    steps = [masks[1], masks[2], masks[5], masks[6]]  # of each episode: query, two support steps, query
    assert all(not torch.equal(one, other) for number, one in enumerate(steps) for other in steps[:number])
    assert torch.equal(masks[0], masks[3])


class Tied(nn.Module):
    """A language model in little: the output layer is the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.mix = nn.Linear(4, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("ids", torch.arange(6))  # a buffer of integers

    def forward(self):
        return self.out(self.mix(self.embed(self.ids)).tanh())


@pytest.mark.parametrize("adapt", [None, "out.weight", "embed.*"])
def test_tied_parameters_are_one_parameter_under_either_name(adapt):
    torch.manual_seed(0)
    model = Tied().double()
    labels = torch.tensor([1, 2, 3, 4, 5, 0])

    def loss(net):
        return torch.nn.functional.cross_entropy(net(), labels)

    loop = InnerLoop(model, lr=0.3, steps=2, adapt=adapt)
    found = loop.meta_gradient(loss, loss)
    theta = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    phi = {name: theta[name] for name in loop.adapted}
    for _ in range(2):
        inner = torch.nn.functional.cross_entropy(functional_call(model, {**theta, **phi}, ()), labels)
        phi = dict(
            zip(phi, (value - 0.3 * gradient for value, gradient in zip(phi.values(), torch.autograd.grad(inner, list(phi.values()), create_graph=True))))
        )
    outer = torch.nn.functional.cross_entropy(functional_call(model, {**theta, **phi}, ()), labels)
    for name, value in zip(theta, torch.autograd.grad(outer, list(theta.values()))):
        close(found.gradient[name], value)
    adapted = loop.adapt(loss)
    assert adapted.out.weight is adapted.embed.weight and not torch.equal(adapted.embed.weight, model.embed.weight)


def test_attention_runs_in_second_order():
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 1)).double()
    x = torch.randn(4, 5, 8, dtype=torch.float64)

    def loss(net):
        return net(x).square().mean()

    modes = {mode: InnerLoop(model, lr=0.05, steps=2, mode=mode).meta_gradient(loss, loss).gradient for mode in ("exact", "finite_difference")}
    for name, value in modes["exact"].items():
        close(modes["finite_difference"][name], value, 1e-7)


def test_frozen_parameters_stay_and_shared_ones_get_a_gradient():
    model = network()
    model[0].weight.requires_grad_(False)
    loop = InnerLoop(model, lr=0.05, steps=2, adapt="2.*")
    found = loop.backward(support, query).gradient
    assert found.keys() == {"0.bias", "2.weight", "2.bias"} and model[0].weight.grad is None
    adapted = loop.adapt(support)
    assert torch.equal(adapted[0].bias, model[0].bias) and not torch.equal(adapted[2].bias, model[2].bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    model = network().to(dtype)

    def loss(net):
        return (net(X.to(dtype)) - Y.to(dtype)).square().mean()

    loop = InnerLoop(model, lr=0.05, steps=2)
    found = loop.backward(loss, loss)
    assert all(value.dtype == dtype and value.isfinite().all() for value in found.gradient.values())
    assert loop.adapt(loss)[0].weight.dtype == dtype


def test_adaptation_is_that_of_torch_optim():
    model = network()
    theirs = copy.deepcopy(model)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for _ in range(4):
        optimizer.zero_grad()
        support(theirs).backward()
        optimizer.step()
    with torch.no_grad():  # as one evaluates
        adapted = InnerLoop(model, lr=0.05, steps=2).adapt(support, steps=4)
    for one, other in zip(adapted.parameters(), theirs.parameters()):
        close(one, other, 1e-14)
    assert all(torch.equal(one, other) for one, other in zip(InnerLoop(model).adapt(support, steps=0).parameters(), model.parameters()))


def test_the_state_is_saved_and_loaded():
    loop, other = (InnerLoop(network(seed=seed), "meta_sgd", lr=0.05, steps=2) for seed in (1, 2))
    other.load_state_dict(loop.state_dict())
    for name, value in loop.meta_gradient(support, query).gradient.items():
        assert torch.equal(value, other.meta_gradient(support, query).gradient[name])


def checkpointed():
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8))
    model.gradient_checkpointing_enable()
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InnerLoop(network(), "sgdd"), "sgdd is unknown"),
        (lambda: InnerLoop(network(), mode="exakt"), "exakt is unknown"),
        (lambda: InnerLoop(network(), mode="implicit"), "proximal"),
        (lambda: InnerLoop(network(), mode="reptile", steps=0), "steps"),
        (lambda: InnerLoop(network(), steps=2, mode=Method(weights=[1.0])), "each of the 2 inner steps; it has 1"),
        (lambda: InnerLoop(network(), lr=-1), "lr=-1"),
        (lambda: InnerLoop(network(), Adam(InnerConfig()), lr=0.1), "has its own"),
        (lambda: InnerLoop(network(), adapt="head.*"), "matches no trainable parameter of the model; it begins with 0.weight"),
        (lambda: InnerLoop(network(), adapt=lambda name: False), "no trainable parameter"),
        (lambda: InnerLoop(network().requires_grad_(False)), "no trainable parameter"),
        (lambda: InnerLoop(nn.ModuleDict({"rule": nn.Linear(1, 1)})), "prefix"),
        (lambda: InnerLoop(checkpointed()).adapt(support), "gradient_checkpointing_disable"),
        (lambda: InnerLoop(network()).meta_gradient(lambda net: net(X), query), r"support_loss must return a scalar.* \[7, 1\]"),
        (lambda: InnerLoop(network()).meta_gradient(support, lambda net: 1.0), "query_loss must return a scalar.*float"),
        (lambda: InnerLoop(network()).meta_gradient(lambda net: X.sum(), query), "support_loss does not depend"),
        (lambda: InnerLoop(network().half(), mode="finite_difference"), "float32 or float64"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_an_operation_without_forward_derivatives_is_refused_in_one_line():
    loop = InnerLoop(network(), lr=0.05, steps=1, mode="forward_over_reverse")
    with pytest.raises(UserError, match="choose exact_recomputed"):
        loop.meta_gradient(lambda net: torch.nn.functional.mse_loss(net(X), Y), query)


def test_a_parameter_is_not_taken_for_state_of_the_rule():
    """The state of Adam has the names m.NAME and v.NAME."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.state = nn.Linear(3, 5), nn.ModuleDict({"m": nn.ModuleDict({"first": nn.Linear(3, 5)})})

        def forward(self, x):
            return (self.first(x) * self.state["m"]["first"](x)).tanh().sum(1, keepdim=True)

    loop = InnerLoop(Named().double(), "adam", lr=0.05, steps=2)
    assert {"first.weight", "state.m.first.weight"} <= set(loop.adapted)
    check(loop, unrolled(loop, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_masks_are_the_same_when_recomputed_and_the_generator_continues():
    model = network(nn.BatchNorm1d(5), nn.Dropout(0.4)).cuda()

    def loss(net):
        return (net(X.cuda()) - Y.cuda()).square().mean()

    found, states = [], []
    for mode in EXACT:
        torch.manual_seed(5)
        found.append(InnerLoop(model, "lslr", lr=0.05, steps=3, mode=mode).meta_gradient(loss, loss).gradient)
        states.append(torch.cuda.get_rng_state())
    for other, state in zip(found[1:], states[1:]):
        assert torch.equal(state, states[0])
        for name, value in found[0].items():
            close(other[name], value)
