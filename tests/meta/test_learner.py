"""The learner on a tiny BERT in float64 against a plain unrolled autograd graph."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.meta.learner import EpisodeTexts, Learner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder

STEPS, LR, HEAD_LR = 3, 0.05, 0.4
INNER = InnerConfig(lr=LR, head_lr=HEAD_LR, steps=STEPS)
TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are unpredictable", "fast", "cold soup and a long wait", "we came back twice"]
METHODS = [(head, adapt) for head in ("zero", "linear", "prototype") for adapt in ("all", "last_layers", "head")]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return load_encoder(ModelConfig(name="tiny", max_length=16), second_order=True, dtype=torch.float64)[0]


def learner(encoder: Encoder, head: str, adapt: str, meta_gradient: str = "exact") -> Learner:
    torch.manual_seed(1)
    return Learner(encoder, AlgorithmConfig(head=head, head_scale=0.5, adapt=adapt, last_layers=1, meta_gradient=meta_gradient), INNER, way=2)


@pytest.fixture(scope="module")
def episode(encoder) -> EpisodeTexts:
    ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
    return EpisodeTexts(ids[:4], np.array([0, 1, 1, 0]), ids[4:], np.array([1, 0]), way=2)


def unrolled(subject: Learner, episode: EpisodeTexts) -> tuple[dict[str, torch.Tensor], float]:
    """The meta-gradient as the textbook has it: every step in one graph, over whole parameters and padded batches of one text."""
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}

    def encode(parameters, texts):
        weights = {name[len("encoder.") :]: value for name, value in parameters.items() if name.startswith("encoder.")}
        return torch.cat([functional_call(subject.encoder, weights, (subject.encoder.batch([text]),)) for text in texts])

    def loss(parameters, texts, labels):
        logits = encode(parameters, texts) @ parameters["head.weight"].T + parameters["head.bias"]
        return F.cross_entropy(logits, torch.tensor(labels))

    hidden = subject.encoder.hidden_size
    if subject.algorithm.head == "linear":
        head = {"head.weight": theta["head.weight"], "head.bias": theta["head.bias"]}
    elif subject.algorithm.head == "zero":
        head = {"head.weight": torch.zeros(2, hidden, dtype=torch.float64), "head.bias": torch.zeros(2, dtype=torch.float64)}
    else:
        features, labels = encode(theta, episode.support), torch.tensor(episode.support_labels)
        means = torch.stack([features[labels == label].mean(0) for label in range(2)])
        scale = theta["head.log_scale"].exp()
        head = {"head.weight": 2 * scale * means, "head.bias": -scale * means.square().sum(1)}
    # Copies within the graph: an inner gradient is taken at (encoder, head), not through the head's making from the encoder.
    parameters = {name: value.requires_grad_() * 1.0 for name, value in {**theta, **head}.items()}
    adapted = [*subject.adapted, "head.weight", "head.bias"]
    for _ in range(STEPS):
        support = loss(parameters, episode.support, episode.support_labels)
        gradients = torch.autograd.grad(support, [parameters[name] for name in adapted], create_graph=True)
        moved = {name: parameters[name] - (HEAD_LR if name.startswith("head") else LR) * g for name, g in zip(adapted, gradients)}
        parameters = {**parameters, **moved}
    query = loss(parameters, episode.query, episode.query_labels)
    found = torch.autograd.grad(query, list(theta.values()), allow_unused=True)
    return {name: torch.zeros_like(theta[name]) if g is None else g for name, g in zip(theta, found)}, query.item()


def dense(subject: Learner, episode: EpisodeTexts):
    """The learner's own meta-gradient, with zeros where it has none."""
    part = subject.outer_gradient(episode)
    total = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
    subject.add_gradient(total, part, 1.0)
    return total, part


@pytest.mark.parametrize(("head", "adapt"), METHODS)
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed"])
def test_exact_equals_the_unrolled_graph(encoder, episode, head, adapt, mode):
    subject = learner(encoder, head, adapt, mode)
    found, part = dense(subject, episode)
    expected, loss = unrolled(subject, episode)
    assert part.loss_after == pytest.approx(loss, abs=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)
    assert sum(float(value.abs().sum()) for value in found.values()) > 0


@pytest.mark.parametrize(("head", "adapt"), METHODS)
def test_first_order_differs_from_exact(encoder, episode, head, adapt):
    exact, _ = dense(learner(encoder, head, adapt), episode)
    first, _ = dense(learner(encoder, head, adapt, "first_order"), episode)
    distance = sum(float((exact[name] - first[name]).square().sum()) for name in exact) ** 0.5
    assert distance > 1e-3 * sum(float(value.square().sum()) for value in exact.values()) ** 0.5


def test_exact_agrees_with_finite_differences(encoder, episode):
    subject = learner(encoder, "prototype", "all")
    found, _ = dense(subject, episode)
    generator = torch.Generator().manual_seed(3)
    direction = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in subject.parameters.items()}

    def loss_at(step: float) -> float:
        moved = learner(encoder, "prototype", "all")
        for name, value in moved.parameters.items():
            value.add_(direction[name], alpha=step)
        return moved.outer_gradient(episode).loss_after

    step = 1e-5
    slope = (loss_at(step) - loss_at(-step)) / (2 * step)
    assert sum(float((found[name] * direction[name]).sum()) for name in found) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("head", ["zero", "prototype"])
def test_the_part_that_does_not_adapt_may_run_once_or_in_each_step(encoder, episode, head):
    once, each = learner(encoder, head, "last_layers"), learner(encoder, head, "last_layers")
    assert once._cut == 1
    each._cut = 0
    for name, value in dense(once, episode)[0].items():
        torch.testing.assert_close(value, dense(each, episode)[0][name], rtol=0, atol=1e-12)


def test_adaptation_equals_what_the_meta_gradient_saw(encoder, episode):
    subject = learner(encoder, "zero", "all")
    parameters, _ = subject.adapt(episode.support, episode.support_labels, 2)
    logits = subject.logits(parameters, episode.query)
    loss = F.cross_entropy(logits, torch.from_numpy(episode.query_labels)).item()
    assert loss == pytest.approx(subject.outer_gradient(episode).loss_after, abs=1e-12)


def test_adaptation_changes_no_meta_parameter_and_only_occurring_embeddings(encoder, episode):
    subject = learner(encoder, "zero", "all")
    before = {name: value.clone() for name, value in subject.parameters.items()}
    parameters, _ = subject.adapt(episode.support, episode.support_labels, 2)
    assert all(torch.equal(before[name], value) for name, value in subject.parameters.items())
    name = "encoder." + encoder.word_embeddings
    changed = (parameters[name] != before[name]).any(1).nonzero().flatten()
    assert set(changed.tolist()) <= set(np.concatenate(episode.support).tolist())
    assert len(changed) > 5


def test_predictions_do_not_depend_on_the_other_queries(encoder, episode):
    subject = learner(encoder, "prototype", "all")
    parameters, _ = subject.adapt(episode.support, episode.support_labels, 2)
    together = subject.logits(parameters, episode.query)
    alone = torch.cat([subject.logits(parameters, [text]) for text in episode.query])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_a_large_support_set_in_chunks_gives_the_same(encoder, episode, monkeypatch):
    subject = learner(encoder, "prototype", "last_layers")
    whole, _ = dense(subject, episode)
    monkeypatch.setattr("metatrain.meta.learner.chunks", lambda texts: [slice(i, i + 1) for i in range(len(texts))])
    parts, _ = dense(subject, episode)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-12)


def test_any_number_of_classes_without_a_learned_head(encoder, episode):
    subject = learner(encoder, "zero", "head")
    parameters, _ = subject.adapt(episode.support, np.array([0, 1, 2, 3]), 4)
    assert subject.logits(parameters, episode.query).shape == (2, 4)
