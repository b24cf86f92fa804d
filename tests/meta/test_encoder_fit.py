"""Training the whole encoder on a support set: against a plain loop, and what it is judged by."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta import encoder_fit
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.name_choice import NameChoice
from metatrain.meta.plan import ExecutionPlan
from metatrain.meta.progress import Silent
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

OTHERS = ("green", "new", "soft", "loud", "fast")


def learner(names: bool = False, train: str = "all") -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", normalize=True, max_length=16), second_order=True, dtype=torch.float64)
    algorithm = AlgorithmConfig(head="cosine", head_scale=10.0, adapt="head", label_names=names, meta_gradient="first_order", train=train)
    return EncoderLearner(encoder, algorithm, InnerConfig(steps=0, fit_head=True, fit_encoder=True), way=2)


def without_the_encoder(subject: EncoderLearner, episode: EncodedEpisode) -> dict[str, torch.Tensor]:
    """What fitting the head alone gives."""
    subject.inner = replace(subject.inner, fit_encoder=False)
    found, _ = subject.fit_support(episode)
    subject.inner = replace(subject.inner, fit_encoder=True)
    return found


def episode(subject: EncoderLearner, per_class: int, seed: int = 0) -> EncodedEpisode:
    """Is exactly one of two words in the text? No sum over its words says that."""
    rng = np.random.default_rng(seed)
    texts, labels = [], np.arange(2 * per_class) % 2
    for number, label in enumerate(labels):
        one = number // 2 % 2
        words = [*rng.permutation(OTHERS)[:3], "red" if one else "blue", "hot" if one == label else "cold"]
        texts.append(" ".join(rng.permutation(words)))
    ids = [np.array(subject.model.tokenizer(text)["input_ids"]) for text in texts]
    names = tuple(np.array(subject.model.tokenizer(name)["input_ids"]) for name in ("no", "yes"))
    return EncodedEpisode(ids, labels, (), labels[:0], ("no", "yes"), seed=3, name_tokens=names)


class Watching(Silent):
    """Remembers what it was told: lines, and of each job how many updates there were to be and were."""

    def __init__(self):
        self.lines, self.jobs = [], []

    def say(self, line):
        self.lines.append(line)

    def start(self, title, total, *, brief=False):
        self.brief = brief
        if not brief:
            self.jobs.append([total, 0])

    def advance(self, *, by=1):
        if not self.brief:
            self.jobs[-1][1] += by


@pytest.fixture
def looks(monkeypatch):
    """Sets the numbers of updates that are looked at."""
    return lambda *numbers: monkeypatch.setattr(encoder_fit, "_numbers", lambda examples: list(numbers))


@pytest.mark.parametrize(("train", "tokens"), [("all", 8192), ("all", 16), ("adapted", 8192), pytest.param("adapted", 16, marks=pytest.mark.nightly)])
def test_it_is_adam_on_the_whole_model(looks, tokens, train):
    looks(25)
    subject = learner(train=train)
    subject = subject.with_plan(ExecutionPlan(part_tokens=tokens))
    support, model = episode(subject, 12), copy.deepcopy(subject.model)
    head = without_the_encoder(subject, support)
    found, fit = subject.fit_support(support)

    weight, bias = (head[f"head.{name}"].clone().requires_grad_() for name in ("weight", "bias"))
    inside = [value.requires_grad_() for value in model.parameters()]
    adam = torch.optim.Adam([{"params": inside, "lr": encoder_fit.LR}, {"params": [weight, bias], "lr": encoder_fit.HEAD_LR}])
    rng, order = np.random.default_rng(support.seed), np.zeros(0, np.int64)
    for update in range(25):
        order = order if len(order) else rng.permutation(24)
        batch, order = order[: encoder_fit.BATCH], order[encoder_fit.BATCH :]
        for group, rate in zip(adam.param_groups, (encoder_fit.LR, encoder_fit.HEAD_LR)):
            group["lr"] = rate * min(1.0, (update + 1) / encoder_fit.WARMUP)
        adam.zero_grad()
        features = model(model.batch([support.support[row] for row in batch]))
        F.cross_entropy(features @ weight.T + bias, torch.tensor(support.support_labels[batch])).backward()
        adam.step()
    assert fit.updates == 25
    for name, value in model.named_parameters():
        if name not in subject.functional.unreached and "encoder." + name not in subject.functional.unreached:
            torch.testing.assert_close(found["encoder." + name], value.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found["head.weight"] * fit.temperature, weight.detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found["head.bias"] * fit.temperature, bias.detach(), rtol=0, atol=1e-9)
    assert not subject.keeps_encoder(found) and subject.keeps_encoder(head)
    assert torch.equal(subject.fit_support(support)[0]["head.weight"], found["head.weight"])  # nothing of the learner was touched


def test_examples_are_judged_by_an_encoder_that_has_not_seen_them(looks, monkeypatch):
    judged = []

    class Watched(encoder_fit.Training):
        def logits(self, rows):
            judged.append((set(self.examples.tolist()), rows.tolist()))
            return super().logits(rows)

    monkeypatch.setattr(encoder_fit, "Training", Watched)
    monkeypatch.setattr("metatrain.meta.support_fit.choose_names", lambda *given: NameChoice(True, "by this test"))
    looks(20)
    subject = learner(names=True)
    _, fit = subject.fit_support(episode(subject, 7))
    *folds, (trained_on, of) = judged
    assert not any(examples & set(rows) for examples, rows in folds)
    assert sorted(row for _, rows in folds for row in rows) == list(range(14))  # each once, and the names of the classes never
    assert all(examples == set(range(16)) - set(rows) for examples, rows in folds)
    assert trained_on == set(range(16)) and of == list(range(16))
    assert fit.held_out.isnan().any(1).tolist() == [False] * 14 + [True] * 2


def test_what_is_left_out_has_no_part_in_training():
    subject = learner()
    support = episode(subject, 8)
    head, examples = without_the_encoder(subject, support), np.arange(12)
    found = []
    for labels in (support.support_labels, np.where(np.arange(16) < 12, support.support_labels, 1 - support.support_labels)):
        texts, rows = subject.functional.occurring(support.support)
        whole = encoder_fit.Support(texts, torch.from_numpy(labels), rows)
        training = encoder_fit.Training(
            encoder_fit.Start(subject.functional, subject.parameters), whole, examples, {name: head[f"head.{name}"] for name in ("weight", "bias")}, 3
        )
        training.train(10, Silent())
        found.append(training.logits(np.arange(16)))
    assert torch.equal(*found)


def test_no_more_folds_than_it_takes(looks, monkeypatch):
    monkeypatch.setattr(encoder_fit, "ENOUGH_HELD_OUT", 10)
    looks(20)
    subject = learner()
    _, fit = subject.fit_support(episode(subject, 15))
    assert int((~fit.held_out.isnan().any(1)).sum()) == 12  # two folds of three of each class


def test_the_encoder_stays_where_training_is_of_no_use(monkeypatch):
    monkeypatch.setattr(encoder_fit, "LR", 0.0)
    monkeypatch.setattr(encoder_fit, "HEAD_LR", 0.0)
    subject, progress = learner(), Watching()
    found, fit = subject.fit_support(episode(subject, 6), progress)
    assert fit.updates == 0 and subject.keeps_encoder(found)
    assert "the fitted head alone is as good" in progress.lines[-1]
    assert len(progress.lines) == 1 + encoder_fit._PATIENCE + 1  # it did not go on to the end
    assert progress.jobs == [[5 * 80, 5 * 40]]


def test_what_the_frozen_encoder_cannot_tell_is_learned(monkeypatch):
    monkeypatch.setattr(encoder_fit, "LR", 3e-3)
    subject = learner()
    support, unseen = episode(subject, 60), episode(subject, 40, seed=1)

    def right(parameters) -> float:
        return float((subject.logits(parameters, unseen.support).argmax(1).numpy() == unseen.support_labels).mean())

    progress = Watching()
    found, fit = subject.fit_support(support, progress)
    assert progress.jobs[-1] == [fit.updates, fit.updates]
    assert fit.updates > 0 and right(found) > right(without_the_encoder(subject, support)) + 0.2


def test_one_example_a_class_says_nothing():
    subject = learner()
    found, fit = subject.fit_support(episode(subject, 1))
    assert (fit.updates, fit.l2, fit.held_out) == (0, math.inf, None) and subject.keeps_encoder(found)


def test_it_needs_a_fitted_head():
    with pytest.raises(UserError, match=r"inner.fit_head=true"):
        check_algorithm(AlgorithmConfig(), InnerConfig(fit_encoder=True), ModelConfig())
