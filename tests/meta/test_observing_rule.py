"""Inner rules of a package that observe the support loss or the encodings, against a plain unrolled graph; and where they are refused."""

import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient import InnerLoop, Method
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import Observed
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.tasks.encoded_episode import EncodedEpisode

PACKAGE = '''
class Polyak:
    """Polyak's step size (1987), the loss over the squared norm of the gradient, damped and times a learned factor."""

    observes = ("loss",)

    def __init__(self, config):
        self.lr = config.lr

    def learned(self, adapted):
        return {"factor": next(iter(adapted.values())).new_tensor(self.lr)}

    def state(self, adapted):
        return {}

    def update(self, adapted, gradients, step, learned, state, observed=None):
        norm = sum(gradient.square().sum() for gradient in gradients.values())
        size = learned["factor"] * observed.loss / (1 + norm)
        return {name: value - size * gradients[name] for name, value in adapted.items()}, state


class Spread(Polyak):
    """Steps in proportion to the variance of the encodings of the support texts."""

    observes = ("features", "loss")

    def update(self, adapted, gradients, step, learned, state, observed=None):
        size = learned["factor"] * observed.features.var(0, correction=0).sum() * (1 + observed.loss)
        return {name: value - size * gradients[name] for name, value in adapted.items()}, state


class Wrong(Polyak):
    observes = ("losses",)
'''
STEPS = 3
TEXTS = ["a dull film", "a wonderful plot", "the brakes fail", "fast", "a long wait", "twice"]


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    """The rules above as an installed package."""
    (tmp_path / "steps-1.0.dist-info").mkdir()
    (tmp_path / "steps-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: steps\nVersion: 1.0\n")
    names = "polyak = step_sizes:Polyak\nspread = step_sizes:Spread\nwrong = step_sizes:Wrong\n"
    (tmp_path / "steps-1.0.dist-info" / "entry_points.txt").write_text(f"[metatrain.inner_rules]\n{names}")
    (tmp_path / "step_sizes.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def episode(encoder) -> EncodedEpisode:
    ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
    return EncodedEpisode(ids[:4], np.array([0, 1, 0, 1]), ids[4:], np.array([1, 0]), ["bad", "good"])


def learner(encoder, rule: str, mode: str = "exact", adapt: str = "last_layers", head: str = "prototype") -> EncoderLearner:
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(head=head, head_scale=3.0, adapt=adapt, last_layers=1, meta_gradient=mode)
    return EncoderLearner(encoder, algorithm, InnerConfig(rule=rule, lr=0.4, steps=STEPS), way=None)


def unrolled(subject: EncoderLearner, episode: EncodedEpisode, second_order: bool) -> dict[str, torch.Tensor]:
    """The meta-gradient with every step in one graph; without second order, gradients of the support loss are constants."""
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}
    learned = {name.removeprefix("rule."): value for name, value in theta.items() if name.startswith("rule.")}
    labels, query_labels = torch.tensor(episode.support_labels), torch.tensor(episode.query_labels)

    def encode(parameters, texts):
        weights = {name.removeprefix("encoder."): value for name, value in parameters.items() if name.startswith("encoder.")}
        return torch.cat([functional_call(subject.model, weights, (subject.model.batch([text]),)) for text in texts])

    def loss_of(parameters, features, labels):
        return F.cross_entropy(features @ parameters["head.weight"].T + parameters["head.bias"], labels)

    means = torch.stack([encode(theta, episode.support)[labels == label].mean(0) for label in (0, 1)])
    scale = theta["head.log_scale"].exp()
    parameters = {name: value * 1.0 for name, value in theta.items()}  # the inner gradient does not go through the head's start
    parameters |= {"head.weight": 2 * scale * means, "head.bias": -scale * means.square().sum(1)}
    adapted = [*subject.functional.adapted, "head.weight", "head.bias"]
    for step in range(STEPS):
        features = encode(parameters, episode.support)
        loss = loss_of(parameters, features, labels)
        gradients = torch.autograd.grad(loss, [parameters[name] for name in adapted], create_graph=second_order, retain_graph=True)
        moving = {name: parameters[name] for name in adapted}
        observed = Observed(loss, features if "features" in subject.rule.observes else None)
        moved, _ = subject.rule.update(moving, dict(zip(adapted, gradients)), step, learned, {}, observed)
        parameters = {**parameters, **moved}
    query = loss_of(parameters, encode(parameters, episode.query), query_labels)
    found = torch.autograd.grad(query, list(theta.values()), allow_unused=True)
    return {name: torch.zeros_like(theta[name]) if each is None else each for name, each in zip(theta, found)}


@pytest.mark.parametrize(
    ("rule", "adapt", "mode"),
    [
        ("polyak", "last_layers", "exact"),
        ("spread", "last_layers", "exact"),
        ("spread", "head", "exact"),
        *(("spread", "last_layers", mode) for mode in ("exact_recomputed", "forward_over_reverse", "finite_difference", "first_order")),
        ("polyak", "head", "first_order"),
    ],
)
def test_the_meta_gradient_goes_through_what_a_rule_observes(encoder, episode, rule, adapt, mode):
    subject = learner(encoder, rule, mode, adapt)
    found, expected = subject.mean_gradient([episode]), unrolled(subject, episode, second_order=mode != "first_order")
    size = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=(1e-6 if mode == "finite_difference" else 1e-10) * size, msg=name)
    assert found["rule.factor"].any() and any(bool(value.any()) for name, value in found.items() if name.startswith("encoder."))


def test_parts_of_the_support_set_and_stored_steps_do_not_matter(encoder, episode):
    subject = learner(encoder, "spread")
    expected = subject.mean_gradient([episode])
    for plan in (ExecutionPlan(part_tokens=1), ExecutionPlan(graph_tokens=0.0)):
        for name, value in subject.with_plan(plan).mean_gradient([episode]).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_reptile_and_adaptation_only_run_the_rule(encoder, episode):
    subject = learner(encoder, "spread", "reptile", head="shared")
    (adapted, _), found = subject.adapt(episode), subject.mean_gradient([episode])
    for name in subject.functional.adapted:
        torch.testing.assert_close(found[name], subject.parameters[name] - adapted[name], rtol=0, atol=1e-12)


def test_its_episodes_are_not_vectorised(encoder, episode):
    plan = ExecutionPlan(vectorised=2)
    assert [len(group) for group in learner(encoder, "sgd").with_plan(plan).groups([episode, episode])] == [2]
    assert [len(group) for group in learner(encoder, "polyak").with_plan(plan).groups([episode, episode])] == [1, 1]


@pytest.mark.parametrize(
    ("rule", "algorithm", "message"),
    [
        ("polyak", {"meta_gradient": "implicit", "proximal": 1.0}, "inner.rule=polyak observes the loss .* proximal term"),
        ("spread", {"head": "lm"}, "inner.rule=spread observes the features .* no encodings"),
        ("wrong", {}, "inner.rule=wrong: .* 'losses'; a rule can observe loss and features"),
    ],
)
def test_what_is_not_there_is_refused(rule, algorithm, message):
    with pytest.raises(UserError, match=message):
        check_algorithm(AlgorithmConfig(**{"head": "prototype", **algorithm}), InnerConfig(rule=rule), ModelConfig(name="tiny"))


def test_a_module_of_ones_own():
    polyak, spread = (importlib.import_module("step_sizes").__dict__[name](InnerConfig(lr=0.4)) for name in ("Polyak", "Spread"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    x, y = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 1, dtype=torch.float64)
    loop = InnerLoop(model, rule=polyak, steps=2)
    found = loop.meta_gradient(lambda net: F.mse_loss(net(x[0]), y[0]), lambda net: F.mse_loss(net(x[1]), y[1])).gradient
    theta, factor = (
        {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()},
        torch.tensor(0.4, dtype=torch.float64, requires_grad=True),
    )
    phi = dict(theta)
    for step in range(2):
        loss = F.mse_loss(functional_call(model, phi, (x[0],)), y[0])
        gradients = dict(zip(phi, torch.autograd.grad(loss, list(phi.values()), create_graph=True)))
        phi, _ = polyak.update(phi, gradients, step, {"factor": factor}, {}, Observed(loss))
    query = F.mse_loss(functional_call(model, phi, (x[1],)), y[1])
    for name, value in zip([*theta, "rule.factor"], torch.autograd.grad(query, [*theta.values(), factor])):
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="rule=Spread observes the features of the support set: the loss functions of InnerLoop return no encodings"):
        InnerLoop(model, rule=spread)
    with pytest.raises(UserError, match="rule=Polyak observes the loss"):
        InnerLoop(model, rule=polyak, steps=2, mode=Method("implicit", proximal=1.0))


@pytest.mark.slow
def test_such_a_rule_trains_and_adapts(cli, examples):
    found = cli("train", "debug=fast", "inner.rule=spread", "algorithm=protoanil", "hardware.threads=1", "hydra.run.dir=run", "evaluation.episodes=1")
    assert found.code == 0, found.err
    tuned = cli("finetune", "checkpoint=run", f"data.train={examples}", "hydra.run.dir=tuned")
    assert tuned.code == 0, tuned.err
    refused = cli("train", "debug=fast", "inner.rule=spread", "algorithm=protoanil", "hardware.vectorized_episodes=2", "hydra.run.dir=other")
    assert refused.code == 2 and "inner.rule=spread observes the support set of each episode" in refused.err
