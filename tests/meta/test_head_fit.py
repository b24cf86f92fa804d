"""A head fitted to a support set: the minimum that it claims, what is left out, and what is chosen."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metatrain.errors import UserError
from metatrain.meta import head_fit
from metatrain.meta.head_fit import fit_head


def blobs(per_class: int, way: int = 3, spread: float = 0.5, seed: int = 0):
    """Features around a direction of each class, float64, with labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(way).repeat(per_class)
    features = torch.eye(way, 6, dtype=torch.float64)[labels] + spread * torch.randn(len(labels), 6, generator=generator, dtype=torch.float64)
    return features, labels


def means_of(features, labels, scale=1.0):
    """Class means of the examples that are asked for, as a head."""

    def start(rows):
        rows = torch.from_numpy(rows)
        way = int(labels.max()) + 1
        means = torch.stack([features[rows][labels[rows] == label].mean(0) for label in range(way)])
        return {"weight": scale * means, "bias": means.new_zeros(way)}

    return start


def none_kept(labels):
    return np.zeros(len(labels), dtype=bool)


def test_it_is_the_minimum(monkeypatch):
    monkeypatch.setattr(head_fit, "STRENGTHS", (0.3,))
    monkeypatch.setattr(head_fit, "best_temperature", lambda logits, labels, **_: 1.0)
    monkeypatch.setattr(head_fit, "_ITERATIONS", 200)
    features, labels = blobs(8)
    start = means_of(features, labels)
    begin, fitted = start(np.arange(len(labels))), fit_head(start, features, labels, none_kept(labels), 0).head

    def slope(head) -> float:
        weight, bias = head["weight"].clone().requires_grad_(), head["bias"].clone().requires_grad_()
        pulled = (weight - begin["weight"]).square().sum() + (bias - begin["bias"]).square().sum()
        loss = F.cross_entropy(features @ weight.T + bias, labels, reduction="sum") + 0.15 * pulled
        return max(float(gradient.abs().max()) for gradient in torch.autograd.grad(loss, [weight, bias]))

    assert slope(fitted) < 1e-3 * slope(begin)


def test_a_head_has_not_seen_the_examples_that_it_is_judged_on(monkeypatch):
    monkeypatch.setattr(head_fit, "STRENGTHS", (0.3,))
    monkeypatch.setattr(head_fit, "best_temperature", lambda logits, labels, **_: 1.0)
    features, labels = blobs(5)
    before = fit_head(means_of(features, labels), features, labels, none_kept(labels), 0)
    changed = features.clone()
    changed[4] = 0.0  # then its logits are the biases of the heads that have not seen it
    after = fit_head(means_of(changed, labels), changed, labels, none_kept(labels), 0)
    again = features.clone()
    again[4] = 100.0 * features[4]
    far = fit_head(means_of(again, labels), again, labels, none_kept(labels), 0)
    torch.testing.assert_close(far.held_out[4] - after.held_out[4], 100 * (before.held_out[4] - after.held_out[4]), rtol=1e-3, atol=1e-3)


def test_one_example_a_class_leaves_the_head_as_it_is():
    features, labels = blobs(1)
    start = means_of(features, labels)
    fit = fit_head(start, features, labels, none_kept(labels), 0)
    assert torch.equal(fit.head["weight"], start(np.arange(3))["weight"])
    assert (fit.l2, fit.temperature, fit.held_out) == (math.inf, 1.0, None)
    with pytest.raises(UserError, match="needs cross-validation"):
        fit.threshold(0.05)


def test_one_example_a_class_beside_its_name_is_judged_by_the_name():
    features, labels = blobs(2)
    kept = np.arange(len(labels)) >= 3
    start = means_of(features, labels)
    fit = fit_head(start, features, labels, kept, 0)
    assert torch.equal(fit.head["weight"], start(np.arange(6))["weight"]) and (fit.l2, fit.temperature) == (math.inf, 1.0)
    assert fit.held_out.isnan().any(1).tolist() == kept.tolist()
    names = features[3:].clone()  # in the order of the classes: what is left of class 1 without its example is its name
    expected = features[1] @ torch.stack([(features[0] + names[0]) / 2, names[1], (features[2] + names[2]) / 2]).T
    torch.testing.assert_close(fit.held_out[1], expected)
    assert fit.held_out[:3].amax(1).min() <= fit.threshold(0.5) <= fit.held_out[:3].amax(1).max()


def test_names_are_never_left_out():
    features, labels = blobs(3)
    kept = np.arange(len(labels)) >= 6
    fit = fit_head(means_of(features, labels), features, labels, kept, 0)
    assert fit.held_out.isnan().any(1).tolist() == kept.tolist()


def test_the_strength_is_high_where_the_start_is_good_and_low_where_it_is_not():
    few, labels = blobs(3, spread=0.6)
    truth = {"weight": 6 * torch.eye(3, 6, dtype=torch.float64), "bias": torch.zeros(3, dtype=torch.float64)}
    assert fit_head(lambda rows: truth, few, labels, none_kept(labels), 0).l2 >= 1
    many, labels = blobs(80, spread=0.3)
    nothing = {"weight": torch.zeros(3, 6, dtype=torch.float64), "bias": torch.zeros(3, dtype=torch.float64)}
    fit = fit_head(lambda rows: nothing, many, labels, none_kept(labels), 0)
    assert fit.l2 <= 0.1
    accuracy = (many @ fit.head["weight"].T + fit.head["bias"]).argmax(1).eq(labels).double().mean()
    assert accuracy > 0.95


@pytest.mark.parametrize("scale", [0.2, 20.0])
def test_the_temperature_mends_probabilities_that_are_too_sure_or_not_sure_enough(monkeypatch, scale):
    monkeypatch.setattr(head_fit, "STRENGTHS", (math.inf,))
    features, labels = blobs(40, spread=0.7)
    fit = fit_head(means_of(features, labels, scale), features, labels, none_kept(labels), 0)
    assert (fit.temperature > 1.5) if scale > 1 else (fit.temperature < 0.7)
    right = fit.held_out.argmax(1) == labels
    sure = fit.held_out.softmax(1).max(1).values
    raw = (fit.held_out * fit.temperature).softmax(1).max(1).values
    assert abs(float(sure.mean() - right.double().mean())) < abs(float(raw.mean() - right.double().mean()))


def test_classes_of_unequal_size_and_of_one_example():
    features, labels = blobs(12)
    rows = torch.cat([(labels == 0).nonzero().flatten(), (labels == 1).nonzero().flatten()[:1], (labels == 2).nonzero().flatten()[:4]])
    features, labels = features[rows], labels[rows]
    fit = fit_head(means_of(features, labels), features, labels, none_kept(labels), 0)
    assert fit.held_out.isnan().any(1).tolist() == (labels == 1).tolist()
    assert all(value.isfinite().all() for value in fit.head.values())


def test_few_examples_temper_a_head_and_do_not_decide_the_temperature_by_themselves():
    """The maximum of likelihood times prior, found on a grid."""
    logits, labels = torch.tensor([[2.0, 0.0], [1.5, 0.0], [0.0, 2.5], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0, 1, 1, 1, 1])
    grid = torch.linspace(math.log(0.25), math.log(4.0), 20_001, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits.double() / log.exp(), labels, reduction="sum") for log in grid])
    expected = grid[(losses + ((grid - math.log(1.5)) / 0.5).square() / 2).argmin()].exp()
    assert head_fit.best_temperature(logits, labels) == pytest.approx(float(expected), rel=1e-3)
    # All correct: no reason to be surer than the head was.
    assert head_fit.best_temperature(3 * logits[:4], labels[:4]) > 0.9


@pytest.mark.parametrize(("per_class", "adaptations"), [(10, 5), (40, 5), (70, 3), (200, 1)])
def test_an_encoder_that_adapts_does_so_only_until_enough_examples_are_held_out(per_class, adaptations):
    features, labels = blobs(per_class)
    seen = []

    def encode(rows):
        seen.append(rows)
        return features

    fit = fit_head(means_of(features, labels), features, labels, none_kept(labels), 0, encode=encode)
    held_out = [np.setdiff1d(np.arange(len(labels)), rows) for rows in seen]
    assert len(seen) == adaptations
    assert np.flatnonzero(~fit.held_out.isnan().any(1).numpy()).tolist() == sorted(np.concatenate(held_out).tolist())
    assert len(fit_head(means_of(features, labels), features, labels, none_kept(labels), 0).folds) == 5  # without adaptation, folds cost little
