"""The time budget of a fit: what a clock that the test moves allows."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta import budget, encoder_fit, support_fit
from metatrain.meta.budget import Budget, seconds_of_adaptation
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.head_fit import Fit
from metatrain.meta.progress import Silent
from metatrain.tasks.encoded_episode import EncodedEpisode

STEPS = 2
ADAPTATION = seconds_of_adaptation(1.0, STEPS)  # of a clock that goes on by a second whenever it is read


class Said(Silent):
    """Remembers the lines that it was told."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    found = SimpleNamespace(now=0.0)

    def monotonic() -> float:
        found.now += 1
        return found.now

    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=monotonic))
    return found


def learner(encoder, loss: str = "leave_one_out") -> EncoderLearner:
    torch.manual_seed(0)
    adapts = loss == "leave_one_out"
    algorithm = AlgorithmConfig(head="cosine", head_scale=10.0, adapt="last_layers" if adapts else "head", last_layers=1)
    return EncoderLearner(encoder, algorithm, InnerConfig(loss=loss, steps=STEPS if adapts else 0, lr=0.05, fit_head=True), way=2)


def episode(encoder, per_class: int) -> EncodedEpisode:
    """Is exactly one of two words in the text?"""
    rng, texts = np.random.default_rng(0), []
    labels = np.arange(2 * per_class) % 2
    for number, label in enumerate(labels):
        one = number // 2 % 2
        words = [*rng.permutation(["green", "new", "soft", "loud"])[:3], "red" if one else "blue", "hot" if one == label else "cold"]
        texts.append(np.array(encoder.tokenizer(" ".join(rng.permutation(words)))["input_ids"]))
    return EncodedEpisode(texts, labels, (), labels[:0], ("no", "yes"), seed=3)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_folds_for_which_there_is_time(clock):
    assert Budget(None).folds(1000.0, 5) == 5 and Budget(None).left == math.inf
    # 1 second of the budget is over when it is first asked.
    assert [Budget(seconds).folds(2.0, 5) for seconds in (3, 5, 7, 13, 100)] == [0, 1, 2, 5, 5]


def test_a_long_budget_changes_nothing(encoder):
    subject, support = learner(encoder), episode(encoder, 6)
    found, fit = subject.fit_support(support)
    limited, other = subject.with_budget(1e6).fit_support(support)
    assert same(found, limited) and (fit.steps, len(fit.folds), fit.l2) == (other.steps, len(other.folds), other.l2)


def test_without_time_for_a_fold_the_head_is_that_of_the_encoder_as_it_is(encoder, clock):
    progress = Said()
    subject, support = learner(encoder), episode(encoder, 6)
    found, fit = subject.with_budget(6 * ADAPTATION).fit_support(support, progress)
    expected, frozen = learner(encoder, loss="support").fit_support(support)
    assert fit.steps == 0 and subject.keeps_encoder(found)
    assert torch.equal(fit.head["weight"], frozen.head["weight"]) and len(fit.folds) == len(frozen.folds) == support_fit.FOLDS
    line = f"inner.budget={6 * ADAPTATION:g} s: the encoder stays as it is, because inner steps and 5 of 5 folds would take about {6 * ADAPTATION:.1f} s"
    assert progress.lines == [line]


def test_folds_are_left_out_before_inner_steps(encoder, clock, monkeypatch):
    adapted, progress = [], Said()
    subject, support = learner(encoder), episode(encoder, 20)
    adapt = EncoderLearner.adapt
    monkeypatch.setattr(EncoderLearner, "adapt", lambda self, *given: adapted.append(given) or adapt(self, *given))
    found, fit = subject.with_budget(5 * ADAPTATION).fit_support(support, progress)
    assert fit.steps == STEPS and len(fit.folds) == 3 and len(adapted) == 4  # on all examples, and without each fold
    assert int((~fit.held_out.isnan().any(1)).sum()) == sum(len(fold.held_out) for fold in fit.folds)
    whole, _ = subject.fit_support(support)
    assert all(torch.equal(found[name], whole[name]) for name in subject.functional.adapted)  # the steps on all examples are the same
    assert progress.lines == [f"inner.budget={5 * ADAPTATION:g} s: inner steps on all examples and for 3 of 5 folds, about {4 * ADAPTATION:.1f} s"]
    assert subject.with_budget(4 * ADAPTATION).fit_support(support)[1].steps == 0  # two folds hold out 16 examples, too few for a temperature


def test_with_many_examples_the_rest_is_spent_on_the_whole_encoder(encoder, monkeypatch):
    monkeypatch.setattr(encoder_fit, "LR", 3e-3)
    subject, support = learner(encoder), episode(encoder, support_fit.MANY)
    few, fit_of_few = subject.with_budget(1e6).fit_support(episode(encoder, support_fit.MANY - 1))
    assert fit_of_few.updates == 0
    progress = Said()
    found, fit = subject.with_budget(1e6).fit_support(support, progress)
    assert fit.updates > 0 and not subject.keeps_encoder(found)
    assert progress.lines[-1].startswith("the trained encoder is used: log loss on held-out examples ")
    assert fit.steps == 0  # it starts from the encoder before these
    for other in (
        subject.with_budget(1e6, trains_encoder=False),
        learner(encoder, "support").with_budget(1e6),
    ):  # as inner.fit_encoder=false and algorithm.adapt=head ask
        assert other.fit_support(support)[1].updates == 0


def test_the_fit_with_the_lower_loss_on_held_out_examples_is_used(encoder, monkeypatch):
    monkeypatch.setattr(encoder_fit, "LR", 3e-3)
    monkeypatch.setattr(support_fit, "_is_better", lambda *given: False)
    subject, support = learner(encoder), episode(encoder, support_fit.MANY)
    found, fit = subject.with_budget(1e6).fit_support(support)
    expected, _ = subject.fit_support(support)
    assert same(found, expected) and fit.updates == 0 and fit.steps == STEPS


def test_updates_for_which_there_is_no_time_are_not_compared(encoder, clock):
    # A second for each reading of the clock: prediction of the 100 held-out examples takes one, so an update seems to take 3 * 16 / 100 s before the first.
    first = budget.PER_STEP * encoder_fit.BATCH / 100 * (support_fit.FOLDS * 20 + 20)
    before = 6 * ADAPTATION  # readings before the encoder is trained: far fewer
    progress, subject, support = Said(), learner(encoder), episode(encoder, support_fit.MANY)
    _, fit = subject.with_budget(first - 1).fit_support(support, progress)
    compared = [line for line in progress.lines if "updates: log loss" in line]
    assert len(compared) == 1 and progress.lines[-1] == f"inner.budget={first - 1:g} s: no time for 20 updates of the whole encoder"
    assert fit.updates == 0 and fit.steps == STEPS
    progress = Said()
    subject.with_budget(first + before).fit_support(support, progress)
    assert len([line for line in progress.lines if "updates: log loss" in line]) > 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_is_a_number_of_seconds(encoder, seconds):
    with pytest.raises(UserError, match=r"inner\.budget=.* must be a number of seconds above 0"):
        learner(encoder).with_budget(seconds)


def test_the_comparison_weighs_the_classes(encoder):
    def fit(logits) -> Fit:
        return Fit({}, 0.0, 1.0, 1.0, torch.tensor(logits))

    labels = torch.tensor([0, 0, 0, 0, 1])
    one, other = fit([[6.0, 0.0]] * 4 + [[0.2, 0.0]]), fit([[1.5, 0.0]] * 4 + [[0.0, 1.0]])
    for weights, expected in ((None, True), (torch.tensor([1.0, 4.0]), False)):
        assert support_fit._is_better(one, other, labels, weights, Silent()) is expected
