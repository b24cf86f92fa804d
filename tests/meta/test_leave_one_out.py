"""The inner loss `leave_one_out` against brute force and a plain unrolled graph, and the head that is made after the inner steps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.evaluation.adapted_arms import Adapted
from metatrain.gradient.config import InnerConfig
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.functional import FunctionalClassifier
from metatrain.meta.head_fit import FITS
from metatrain.meta.leave_one_out import leave_one_out_loss
from metatrain.meta.progress import Silent
from metatrain.meta.prototypes import SCALE
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

STEPS, LR = 3, 0.05
TEXTS = ["a dull film", "a wonderful plot", "the brakes fail", "fast", "a long wait", "we came back", "cold soup", "twice"]
NAMES = ["bad", "good"]


@pytest.fixture(scope="module")
def episode(encoder) -> EncodedEpisode:
    ids, names = ([np.array(encoder.tokenizer(text)["input_ids"]) for text in texts] for texts in (TEXTS, NAMES))
    return EncodedEpisode(ids[:5], np.array([0, 1, 1, 0, 1]), ids[5:], np.array([1, 0, 0]), NAMES, name_tokens=names)


class Counted(Silent):
    """The units of the latest job: announced, and done."""

    total = done = 0

    def start(self, title, total, *, brief=False):
        self.total, self.done = total, 0

    def advance(self, *, by=1):
        self.done += by


def learner(encoder: Encoder, head: str = "cosine", mode: str = "exact", **more) -> EncoderLearner:
    torch.manual_seed(1)
    inner = {"rule": "sgd", "lr": LR, "steps": STEPS, "loss": "leave_one_out"} | {key: more.pop(key) for key in ("rule", "fit_head", "lr") if key in more}
    algorithm = AlgorithmConfig(head=head, head_scale=5.0, adapt="last_layers", last_layers=1, meta_gradient=mode, **more)
    check_algorithm(algorithm, InnerConfig(**inner), ModelConfig(name="tiny", normalize=True))
    return EncoderLearner(encoder, algorithm, InnerConfig(**inner), way=None)


def brute_force(features: torch.Tensor, labels: list[int], texts: list[int], way: int) -> torch.Tensor:
    losses, shares = [], []
    for i, (label, text) in enumerate(zip(labels, texts)):
        others = [[j for j in range(len(labels)) if labels[j] == c and not (texts[j] == text and labels[j] == label)] for c in range(way)]
        if others[label]:
            unit = F.normalize(features, dim=1)
            scores = torch.stack([SCALE * F.cosine_similarity(unit[i], unit[rows].sum(0), dim=0) for rows in others])
            copies = sum(other == text and labels[j] == label for j, other in enumerate(texts))
            losses.append(-scores.log_softmax(0)[label] / copies)
            shares.append(1 / copies)
    return torch.stack(losses).sum() / sum(shares)


@pytest.mark.parametrize(
    ("labels", "texts"), [([0, 1, 1, 0, 2, 2], [0, 1, 2, 3, 4, 5]), ([0, 1, 1, 0, 2], [0, 1, 2, 3, 4]), ([0, 0, 0, 1, 1, 0], [0, 1, 1, 2, 3, 3])]
)
def test_the_loss_is_that_of_brute_force_and_twice_differentiable(labels, texts):
    torch.manual_seed(0)
    features, way = torch.randn(len(labels), 5, dtype=torch.float64, requires_grad=True), max(labels) + 1
    found = leave_one_out_loss(features, torch.tensor(labels), torch.tensor(texts), way)
    expected = brute_force(features, labels, texts, way)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(each, features)[0] for each in (found, expected)), rtol=0, atol=1e-12)
    assert torch.autograd.gradgradcheck(lambda x: leave_one_out_loss(x, torch.tensor(labels), torch.tensor(texts), way), features)


def test_a_support_set_of_single_texts_has_no_loss_and_no_gradient():
    features = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    loss = leave_one_out_loss(features, torch.arange(3), torch.arange(3), 3)
    assert loss == 0 and not torch.autograd.grad(loss, features)[0].any()


def unrolled(subject: EncoderLearner, episode: EncodedEpisode) -> tuple[dict[str, torch.Tensor], float]:
    """The meta-gradient with every step in one graph: the encoder adapts, then the head is made, then the queries are classified."""
    theta = {name: value.clone().requires_grad_() for name, value in subject.parameters.items()}
    learned = {name.removeprefix("head."): value for name, value in theta.items() if name.startswith("head.")}
    rates = {name.removeprefix("rule."): value for name, value in theta.items() if name.startswith("rule.")}
    read = subject.functional.read(episode)
    labels = torch.tensor(read.support_labels)
    distinct = [[bytes(each) for each in read.support].index(bytes(text)) for text in read.support]

    def encode(parameters, texts):
        weights = {name.removeprefix("encoder."): value for name, value in parameters.items() if name.startswith("encoder.")}
        return torch.cat([functional_call(subject.model, weights, (subject.model.batch([text]),)) for text in texts])

    parameters, adapted = {name: value * 1.0 for name, value in theta.items()}, subject.functional.adapted
    state = subject.rule.state({name: parameters[name] for name in adapted})
    for step in range(STEPS):
        loss = brute_force(encode(parameters, read.support), read.support_labels.tolist(), distinct, 2)
        gradients = torch.autograd.grad(loss, [parameters[name] for name in adapted], create_graph=True)
        moved, state = subject.rule.update({name: parameters[name] for name in adapted}, dict(zip(adapted, gradients)), step, rates, state)
        parameters = {**parameters, **moved}
    empty = {"weight": torch.zeros(2, subject.model.hidden_size, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}
    head = subject.functional.head.start(learned, empty, encode(parameters, read.support), labels, NAMES)
    query = F.cross_entropy(encode(parameters, read.query) @ head["weight"].T + head["bias"], torch.tensor(read.query_labels))
    found = torch.autograd.grad(query, list(theta.values()), allow_unused=True)
    return {name: torch.zeros_like(theta[name]) if each is None else each for name, each in zip(theta, found)}, query.item()


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed"])
@pytest.mark.parametrize(
    ("head", "more"),
    [("cosine", {}), ("ridge", {}), ("prototype", {"label_names": True, "label_names_weight": 2}), ("cosine", {"rule": "adam_lslr", "lr": 1e-3})],
)
def test_the_exact_meta_gradient_goes_through_the_head_made_after_the_steps(encoder, episode, head, more, mode):
    subject = learner(encoder, head, mode, **more)
    part = subject.outer_gradient(episode)
    found = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
    subject.add_gradient(found, part, 1.0)
    expected, loss = unrolled(subject, episode)
    assert part.loss_after == pytest.approx(loss, abs=1e-10) and part.loss_after != pytest.approx(float(part.loss_before), abs=1e-6)
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=(1e-6 if "rule" in more else 1e-9) * max(1.0, scale), msg=name)
    assert any(bool(value.any()) for name, value in found.items() if name.startswith("encoder.")) and found["head.log_scale"].any()


def test_texts_in_parts_give_the_same_gradient(encoder, episode):
    subject = learner(encoder)
    parts = subject.with_plan(type(subject.plan)(part_tokens=1))
    for one, other in zip(*(each.outer_gradient(episode).gradient.values() for each in (subject, parts))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_adaptation_predicts_as_the_meta_gradient_saw(encoder, episode):
    subject = learner(encoder)
    adapted, _ = subject.adapt(episode)
    loss = F.cross_entropy(subject.logits(adapted, episode.query), torch.tensor(episode.query_labels))
    assert float(loss) == pytest.approx(float(subject.outer_gradient(episode).loss_after), abs=1e-10)


def test_no_step_is_made_where_no_class_has_two_examples(encoder, episode):
    subject = learner(encoder, label_names=True)
    single = EncodedEpisode(episode.support[:2], np.array([0, 1]), episode.query, episode.query_labels, NAMES, name_tokens=episode.name_tokens)
    adapted, _ = subject.adapt(single)
    assert subject.keeps_encoder(adapted) and not subject.keeps_encoder(subject.adapt(episode)[0])


def test_the_fitted_head_is_fitted_to_encodings_after_the_steps(encoder, episode):
    subject, progress = learner(encoder, fit_head=True), Counted()
    adapted, fit = subject.fit_support(episode, progress)
    assert progress.done == progress.total == FITS + len(fit.folds) + 1  # as many as were announced
    stepped, _ = learner(encoder).adapt(episode)
    for name in subject.functional.adapted:
        assert torch.equal(adapted[name], stepped[name])
    # A held-out example is predicted by an encoder that has not seen it.
    fold = fit.folds[0]
    others = np.setdiff1d(np.arange(5), fold.held_out)
    part = EncodedEpisode([episode.support[row] for row in others], episode.support_labels[others], (), np.zeros(0, np.int64), NAMES)
    without, _ = learner(encoder).adapt(part)
    features = subject.functional.features(without, [episode.support[row] for row in fold.held_out])
    expected = features @ fold.head["weight"].T + fold.head["bias"]
    torch.testing.assert_close(fit.held_out[fold.held_out], expected, rtol=0, atol=1e-10)


def test_a_name_with_weight_two_counts_as_two_examples(encoder, episode):
    read = learner(encoder, label_names=True, label_names_weight=2).functional.read(episode)
    assert [len(read.support), *read.support_labels[5:]] == [9, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("algorithm", "inner", "message"),
    [
        ({"adapt": "head", "head": "prototype"}, {}, "algorithm.adapt=last_layers"),
        ({"adapt": "last_layers", "head": "zero"}, {}, "algorithm.head=prototype"),
        ({"adapt": "last_layers", "head": "prototype"}, {"fit_head": True, "fit_encoder": True}, "remove one"),
        ({"adapt": "last_layers", "head": "prototype"}, {"loss": "nothing"}, "leave_one_out"),
        ({"adapt": "last_layers", "head": "prototype", "label_names_weight": 0}, {}, "label_names_weight=0"),
        ({"adapt": "all", "head": "lm"}, {}, "inner.loss=leave_one_out"),
    ],
)
def test_incompatible_settings_are_refused(algorithm, inner, message):
    with pytest.raises(UserError, match=message):
        check_algorithm(AlgorithmConfig(**algorithm), InnerConfig(**{"loss": "leave_one_out", **inner}), ModelConfig())


@pytest.mark.parametrize("names", [False, True])
def test_the_layers_below_the_first_adapted_one_run_once_for_a_fit(encoder, episode, names, monkeypatch):
    subject = learner(encoder, fit_head=True, label_names=names)
    lower: list[int] = []
    hook = encoder.architecture.layers[0].register_forward_pre_hook(lambda *_: lower.append(1))
    adapted, fit = subject.fit_support(episode)
    assert len(lower) == 1 and fit.steps == STEPS and len(fit.folds) == 3
    monkeypatch.setattr(FunctionalClassifier, "caching", lambda self, *_: self)
    lower.clear()
    expected, again = subject.fit_support(episode)
    hook.remove()
    assert len(lower) > 6 and again.l2 == fit.l2
    assert adapted.keys() == expected.keys()
    for name, value in adapted.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6), name
    assert torch.allclose(fit.held_out, again.held_out, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_cached_output_is_used_only_where_the_frozen_layers_are_the_same(encoder, episode):
    subject = learner(encoder)
    classifier, texts = subject.functional, [episode.support[2], episode.support[0]]
    caching, batch = classifier.caching(subject.parameters), encoder.batch(texts)
    torch.testing.assert_close(caching.known(texts, batch), classifier.encode_frozen(subject.parameters, batch, None))
    moved = {name: value + 0.1 for name, value in subject.parameters.items()}
    last = {name: moved[name] if name in classifier.adapted else value for name, value in subject.parameters.items()}
    assert caching.known(texts, batch, last) is not None and caching.known(texts, batch, moved) is None
    for parameters in (last, moved):
        torch.testing.assert_close(caching.features(parameters, texts), classifier.features(parameters, texts))
    assert classifier.known(texts, batch) is None and caching.caching({}) is caching
    whole = FunctionalClassifier(encoder, AlgorithmConfig(head="cosine", adapt="all"), classifier.head)
    assert whole.caching(subject.parameters) is whole


def test_an_arm_runs_the_layers_that_do_not_adapt_once_for_each_text(encoder, episode):
    subject = learner(encoder)
    arm, swapped = Adapted(subject), replace(episode, support=episode.query, support_labels=np.array([1, 0, 0]), query=episode.support)
    lower: list[int] = []
    hook = encoder.architecture.layers[0].register_forward_pre_hook(lambda *_: lower.append(1))
    found = [arm.predict(each).probabilities for each in (episode, swapped, episode)]
    hook.remove()
    assert len(lower) == 2  # the support texts of the first episode, and its queries
    for each, probabilities in zip((episode, swapped, episode), found):
        np.testing.assert_allclose(probabilities, subject.probabilities(subject.adapt(each)[0], each), rtol=1e-4, atol=1e-6)
