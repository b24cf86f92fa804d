"""The learner on a tiny BERT in float64 against a plain unrolled autograd graph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.meta.config import AlgorithmConfig, InnerConfig
from metatrain.meta.learner import EpisodeTexts, Learner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder

STEPS, LR, HEAD_LR = 3, 0.05, 0.4
TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are unpredictable", "fast", "cold soup and a long wait", "we came back twice"]
ADAPT = ("all", "body", "last_layers", "head", "layer_norm", "pattern")
METHODS = [
    *((head, adapt, "sgd") for head in ("prototype", "linear") for adapt in ADAPT),
    *((head, "all", "sgd") for head in ("zero", "shared", "cosine", "ridge", "generated")),
    *(("prototype", "all", rule) for rule in ("meta_sgd", "lslr", "curvature")),  # Adam divides rounding errors by rounding errors
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return load_encoder(ModelConfig(name="tiny", normalize=True, max_length=16), second_order=True, dtype=torch.float64)[0]


def learner(encoder: Encoder, head: str, adapt: str, meta_gradient: str = "exact", rule: str = "sgd") -> Learner:
    torch.manual_seed(1)
    pattern = r"attention.*query" if adapt == "pattern" else None
    algorithm = AlgorithmConfig(head=head, head_scale=2.0, adapt=adapt, last_layers=1, pattern=pattern, meta_gradient=meta_gradient)
    return Learner(encoder, algorithm, InnerConfig(rule=rule, lr=LR, head_lr=HEAD_LR, steps=STEPS, rank=2), way=2)


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

    zeros = {"weight": torch.zeros(2, subject.encoder.hidden_size, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}
    learned = {name[len("head.") :]: value for name, value in theta.items() if name.startswith("head.")}
    head = subject.head.start(learned, zeros, encode(theta, episode.support), torch.tensor(episode.support_labels))
    # Copies within the graph: an inner gradient is taken at (encoder, head), not through the head's making from the encoder.
    start = {**theta, **{f"head.{name}": value for name, value in head.items()}}
    parameters = {name: (value if value.requires_grad else value.requires_grad_()) * 1.0 for name, value in start.items()}
    adapted = [*subject.adapted, *(["head.weight", "head.bias"] if subject.algorithm.adapt != "body" else [])]
    rates = {name[len("rule.") :]: value for name, value in theta.items() if name.startswith("rule.")}
    state = subject.rule.state({name: parameters[name] for name in adapted})
    for step in range(STEPS):
        support = loss(parameters, episode.support, episode.support_labels)
        gradients = torch.autograd.grad(support, [parameters[name] for name in adapted], create_graph=True)
        phi = {name: parameters[name] for name in adapted}
        moved, state = subject.rule.update(phi, dict(zip(adapted, gradients)), step, rates, state)
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


@pytest.mark.parametrize(("head", "adapt", "rule"), METHODS)
@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse"])
def test_exact_equals_the_unrolled_graph(encoder, episode, head, adapt, rule, mode):
    subject = learner(encoder, head, adapt, mode, rule)
    found, part = dense(subject, episode)
    expected, loss = unrolled(subject, episode)
    assert part.loss_after == pytest.approx(loss, abs=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=name)
    assert sum(float(value.abs().sum()) for value in found.values()) > 0


@pytest.mark.parametrize(("head", "adapt", "rule"), METHODS)
def test_first_order_differs_from_exact(encoder, episode, head, adapt, rule):
    exact, _ = dense(learner(encoder, head, adapt, rule=rule), episode)
    first, _ = dense(learner(encoder, head, adapt, "first_order", rule), episode)
    distance = sum(float((exact[name] - first[name]).square().sum()) for name in exact) ** 0.5
    assert distance > 1e-3 * sum(float(value.square().sum()) for value in exact.values()) ** 0.5


def other_models():
    from transformers import DistilBertConfig, DistilBertModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, T5Config, T5Model

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    return {
        "distilbert": lambda size: DistilBertModel(DistilBertConfig(vocab_size=size, dim=16, n_layers=2, n_heads=2, hidden_dim=32)),
        "gpt2": lambda size: GPT2Model(GPT2Config(vocab_size=size, n_embd=16, n_layer=2, n_head=2)),
        "llama": lambda size: LlamaModel(LlamaConfig(vocab_size=size, **small)),
        "t5": lambda size: T5Model(T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)),
    }


@pytest.mark.parametrize("architecture", ["distilbert", "gpt2", "llama", "t5"])
def test_exact_modes_agree_on_other_architectures(tmp_path, architecture):
    from metatrain.models.tiny import tokenizer

    words = tokenizer()
    torch.manual_seed(0)
    other_models()[architecture](len(words)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, _ = load_encoder(ModelConfig(name=str(tmp_path), max_length=16), second_order=True, dtype=torch.float64)
    ids = [np.array(words(text)["input_ids"]) for text in TEXTS]
    episode = EpisodeTexts(ids[:4], np.array([0, 1, 1, 0]), ids[4:], np.array([1, 0]), way=2)
    expected, _ = unrolled(learner(encoder, "prototype", "all"), episode)
    for mode in ("exact", "exact_recomputed"):
        found, _ = dense(learner(encoder, "prototype", "all", mode), episode)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9, msg=f"{mode} {name}")
    forward = learner(encoder, "prototype", "all", "forward_over_reverse")
    if architecture == "llama":
        with pytest.raises(UserError, match="silu.*choose exact_recomputed"):
            dense(forward, episode)
        return
    found, _ = dense(forward, episode)
    size = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        # T5 and Llama compute their norms in float32, whatever the dtype, so two ways to the same number differ by its rounding.
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9 if architecture != "t5" else 1e-5 * size, msg=name)


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

    step = 1e-6
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


def test_a_head_that_does_not_adapt_stays_as_it_started(encoder, episode):
    subject = learner(encoder, "linear", "body")
    parameters, _ = subject.adapt(episode.support, episode.support_labels, 2)
    assert torch.equal(parameters["head.weight"], subject.parameters["head.weight"])
    assert not torch.equal(
        parameters["encoder.backbone.encoder.layer.0.output.dense.weight"], subject.parameters["encoder.backbone.encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize("mode", ["implicit", "reptile", "finite_difference"])
def test_the_other_modes_run_on_a_transformer(encoder, episode, mode):
    torch.manual_seed(1)
    algorithm = AlgorithmConfig(head="prototype", meta_gradient=mode, proximal=2.0 if mode == "implicit" else 0.0)
    subject = Learner(encoder, algorithm, InnerConfig(lr=LR, steps=STEPS), way=2)
    part = subject.outer_gradient(episode)
    assert (part.residual is not None) == (mode == "implicit")
    assert sum(float(value.abs().sum()) for value in part.gradient.values()) > 0
    if mode == "finite_difference":
        exact, _ = dense(learner_like(subject, encoder), episode)
        found, _ = dense(subject, episode)
        dot = sum(float((exact[name] * found[name]).sum()) for name in exact)
        size = sum(float(value.square().sum()) for value in exact.values()) * sum(float(value.square().sum()) for value in found.values())
        assert dot / size**0.5 > 1 - 1e-6


def learner_like(subject: Learner, encoder: Encoder) -> Learner:
    torch.manual_seed(1)
    return Learner(encoder, replace(subject.algorithm, meta_gradient="exact"), subject.inner, way=2)


def test_derivatives_of_second_order_begin_when_they_are_to(encoder, episode):
    torch.manual_seed(1)
    subject = Learner(encoder, AlgorithmConfig(head="prototype", first_order_until=10), InnerConfig(lr=LR, steps=STEPS), way=2)
    gradients = [subject.outer_gradient(episode, step).gradient["head.log_scale"] for step in (0, 9, 10)]
    assert gradients[0] == gradients[1] != gradients[2]
