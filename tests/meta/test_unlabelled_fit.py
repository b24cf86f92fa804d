"""A head that learns from texts without labels: its loss, when it is used, and what else changes with it."""

import math

import numpy as np
import pytest
import torch

from metatrain.meta import unlabelled_fit
from metatrain.meta.head_fit import fit_head
from metatrain.meta.unlabelled_fit import CONDITIONAL, MARGINAL, fit_unlabelled, information_loss, is_helped, refine


def blobs(per_class: int, way: int = 3, spread: float = 0.5, seed: int = 0):
    """Features around a direction of each class, float64, with labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(way).repeat(per_class)
    return torch.eye(way, 6, dtype=torch.float64)[labels] + spread * torch.randn(len(labels), 6, generator=generator, dtype=torch.float64), labels


def means_of(features, labels):
    def start(rows):
        rows = torch.from_numpy(rows)
        means = torch.stack([features[rows][labels[rows] == label].mean(0) for label in range(int(labels.max()) + 1)])
        return {"weight": means, "bias": means.new_zeros(len(means))}

    return start


def learned(features, labels, pool):
    """A fit with and without texts without labels; each head has its own encodings of these."""
    start, nothing_kept, asked = means_of(features, labels), np.zeros(len(labels), dtype=bool), []

    def encode(rows):
        asked.append(rows.tolist())
        return features, pool

    fit = fit_head(start, features, labels, nothing_kept, 0)
    return fit, fit_unlabelled(start, fit, encode, len(pool), labels, nothing_kept), asked


def test_the_loss_is_that_of_the_entropies():
    certain_and_even = 50 * torch.eye(4, dtype=torch.float64)
    assert float(information_loss(certain_and_even)) == pytest.approx(-MARGINAL * math.log(4))
    assert float(information_loss(torch.zeros(7, 4, dtype=torch.float64))) == pytest.approx((CONDITIONAL - MARGINAL) * math.log(4))
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = logits.softmax(1).numpy()
    expected = MARGINAL * (p.mean(0) * np.log(p.mean(0))).sum() - CONDITIONAL * (p * np.log(p)).sum(1).mean()
    assert float(information_loss(logits)) == pytest.approx(expected)


def test_steps_lower_the_sum_of_both_losses():
    features, labels = blobs(2)
    pool, _ = blobs(30, seed=1)
    head = means_of(features, labels)(np.arange(6))

    def loss(head):
        logits = [each @ head["weight"].T + head["bias"] for each in (features, pool)]
        return float(torch.nn.functional.cross_entropy(logits[0], labels) + information_loss(logits[1]))

    assert loss(refine(head, features, labels, pool)) < loss(head)


def test_a_biased_head_is_corrected_by_texts_without_labels():
    pool, truth = blobs(60, spread=0.2, seed=3)
    features, labels = torch.eye(3, 6, dtype=torch.float64), torch.arange(3)
    biased = {"weight": features, "bias": torch.tensor([0.9, 0.0, 0.0], dtype=torch.float64)}

    def accuracy(head):
        return float(((pool @ head["weight"].T + head["bias"]).argmax(1) == truth).double().mean())

    assert accuracy(biased) < 0.8 and accuracy(refine(biased, features, labels, pool)) > 0.9


def test_few_examples_use_them_with_a_reason():
    features, labels = blobs(2, spread=0.2)
    before, after, asked = learned(features, labels, blobs(30, seed=1)[0])
    assert after.unlabelled is not None and after.unlabelled.read and after.unlabelled.texts == 90
    assert after.unlabelled.why.startswith("6 held-out examples are too few to decide")
    assert after.unlabelled.shares is not None and after.unlabelled.shares.sum() == pytest.approx(1)
    assert not torch.equal(before.head["weight"], after.head["weight"])
    # every held-out example is judged by a head, and on encodings, that have not seen it
    assert before.unlabelled is None and asked[0] == list(range(6))
    for fold, rows in zip(after.folds, asked[1:], strict=True):
        assert not set(fold.held_out) & set(rows)
        logits = features[torch.from_numpy(fold.held_out)] @ fold.head["weight"].T + fold.head["bias"]
        torch.testing.assert_close(after.held_out[torch.from_numpy(fold.held_out)], logits)


def test_cross_validation_decides_from_ten_held_out_examples():
    labels = torch.arange(2).repeat(5)
    good, bad = (scale * torch.nn.functional.one_hot(labels, 2).double() for scale in (3.0, -3.0))
    assert is_helped(bad, good, labels) == (True, "log loss on held-out examples 0.049 with them, 3.049 without")
    assert is_helped(good, bad, labels) == (False, "log loss on held-out examples 3.049 with them, 0.049 without")
    assert is_helped(good[:9], bad[:9], labels[:9])[0]
    assert is_helped(None, None, labels)[1].startswith("0 held-out examples are too few")


def test_a_pool_that_does_not_help_leaves_the_fit_as_it_is(monkeypatch):
    monkeypatch.setattr(unlabelled_fit, "is_helped", lambda *_: (False, "reason"))
    features, labels = blobs(8)
    before, after, _ = learned(features, labels, blobs(30, seed=1)[0])
    assert after.head is before.head and after.held_out is before.held_out
    assert after.unlabelled is not None and (after.unlabelled.read, after.unlabelled.why, after.unlabelled.shares) == (False, "reason", None)


def test_many_examples_do_not_use_them_and_encode_nothing():
    features, labels = blobs(9)
    before, after, asked = learned(features, labels, blobs(30, seed=1)[0])
    assert after.head is before.head and not asked
    assert after.unlabelled is not None and not after.unlabelled.read and after.unlabelled.why.startswith("there are 9 examples per class")
