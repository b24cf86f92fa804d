"""A temperature learned across tasks: the minimum that it claims, and what it changes in a head."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from meta.test_head_fit import blobs, means_of, none_kept

from metatrain.meta.head_fit import fit_head
from metatrain.meta.temperature import (
    COOLEST,
    HOTTEST,
    MOST_SHOTS,
    RIDGE,
    LearnedTemperature,
    LogTemperature,
    TemperatureCase,
    described,
    fit_log_temperature,
    learned_temperature,
)

SIZES = [(2, 1), (4, 1), (8, 2), (3, 4), (2, 8), (6, 1)]


def cases(sizes=SIZES, queries=30, is_fitted=False, seed=0):
    """Queries whose logits are those of their classes' probabilities, times a factor that depends on the size."""
    rng = np.random.default_rng(seed)
    found = []
    for way, shots in sizes:
        logits = 2 * rng.standard_normal((queries, way))
        labels = np.array([rng.choice(way, p=row) for row in torch.from_numpy(logits).softmax(1).numpy()])
        found.append(TemperatureCase(way, shots, is_fitted, logits * way**-0.3 * shots**0.2, labels))
    return found


def test_it_is_the_minimum():
    """The slope of the stated objective in its three weights is zero, by automatic differentiation."""
    found = cases()
    learned = fit_log_temperature(found)
    inputs = torch.tensor([[math.log(case.shots), math.log(case.way)] for case in found], dtype=torch.float64)
    level = learned.intercept + float(inputs.mean(0) @ torch.tensor([learned.shots, learned.way], dtype=torch.float64))
    weights = torch.tensor([level, learned.shots, learned.way], dtype=torch.float64, requires_grad=True)
    logs = weights[0] + (inputs - inputs.mean(0)) @ weights[1:]
    losses = [F.cross_entropy(torch.from_numpy(case.logits) / log.exp(), torch.from_numpy(case.labels)) for case, log in zip(found, logs)]
    objective = torch.stack(losses).sum() + RIDGE / 2 * weights.square().sum()
    assert objective < sum(case.loss(1.0) for case in found)
    torch.testing.assert_close(torch.autograd.grad(objective, weights)[0], torch.zeros(3, dtype=torch.float64), atol=1e-4, rtol=0)


def test_it_finds_what_the_logits_were_multiplied_by():
    learned = fit_log_temperature(cases(SIZES * 5, queries=400))
    assert (learned.way, learned.shots) == (pytest.approx(-0.3, abs=0.06), pytest.approx(0.2, abs=0.06))
    for way, shots in SIZES:
        assert learned.at(way, shots) == pytest.approx(way**-0.3 * shots**0.2, rel=0.08)


def test_one_number_of_classes_tells_nothing_about_others():
    learned = fit_log_temperature(cases([(3, 1)] * 4))
    assert (learned.shots, learned.way) == (0.0, 0.0)
    assert learned.at(3, 1) == learned.at(100, 5) != 1
    assert fit_log_temperature([]) is None


def test_it_is_bounded_and_does_not_grow_with_many_examples():
    steep = LogTemperature(0.1, 0.5, -1.0)
    assert steep.at(150, 1) == pytest.approx(COOLEST) and LogTemperature(9.0, 0.0, 0.0).at(2, 1) == pytest.approx(HOTTEST)
    assert steep.at(2, MOST_SHOTS) == steep.at(2, 500) == pytest.approx(math.exp(0.1 + 0.5 * math.log(MOST_SHOTS) - math.log(2)))


def test_heads_that_are_fitted_have_their_own():
    made, fitted = cases(), cases(seed=1, is_fitted=True)
    learned = learned_temperature([*made, *fitted], step=7)
    assert learned == LearnedTemperature(fit_log_temperature(made), fit_log_temperature(fitted), 7)
    assert learned_temperature(made).fitted is None
    lines = described(learned, [*made, *fitted])
    assert len(lines) == 2 and "6 validation episodes" in lines[0] and f"log loss {np.mean([case.loss(1.0) for case in made]):.3f} without" in lines[0]


LEARNED = LearnedTemperature(LogTemperature(0.3, 0.1, -0.5), LogTemperature(0.2, 0.3, 0.4))


def test_a_head_of_one_example_a_class_is_divided_by_it_and_predicts_the_same():
    features, labels = blobs(2)
    kept = np.arange(len(labels)) >= 3  # the names
    before, after = (fit_head(means_of(features, labels), features, labels, kept, 0, learned=each) for each in (None, LEARNED))
    temperature = math.exp(0.3 - 0.5 * math.log(3))
    assert after.temperature == pytest.approx(temperature) and after.is_learned and not before.is_learned and before.temperature == 1
    torch.testing.assert_close(after.head["weight"], before.head["weight"] / temperature)
    torch.testing.assert_close(after.held_out, before.held_out / temperature, equal_nan=True)
    assert after.loss == pytest.approx(float(F.cross_entropy(features @ after.head["weight"].T + after.head["bias"], labels)))
    assert after.threshold(0.5) == pytest.approx(before.threshold(0.5) / temperature)


def test_few_held_out_examples_choose_a_temperature_near_it_and_many_without_it():
    """The maximum of likelihood times a log-normal prior with its median, found on a grid."""
    features, labels = blobs(3)
    fits = [fit_head(means_of(features, labels), features, labels, none_kept(labels), 0, learned=each) for each in (None, LEARNED)]
    raw = fits[1].held_out * fits[1].temperature
    torch.testing.assert_close(raw, fits[0].held_out * fits[0].temperature)
    torch.testing.assert_close(fits[1].head["weight"] * fits[1].temperature, fits[0].head["weight"] * fits[0].temperature)
    usual = 0.2 + 0.3 * math.log(3) + 0.4 * math.log(3)
    grid = torch.linspace(math.log(COOLEST), math.log(HOTTEST), 20_001, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(raw / log.exp(), labels, reduction="sum") for log in grid])
    assert fits[1].temperature == pytest.approx(float(grid[(losses + ((grid - usual) / 0.5).square() / 2).argmin()].exp()), rel=1e-3)
    assert fits[1].is_learned and not fits[0].is_learned
    features, labels = blobs(7)
    fits = [fit_head(means_of(features, labels), features, labels, none_kept(labels), 0, learned=each) for each in (None, LEARNED)]
    assert fits[0].temperature == fits[1].temperature and not fits[1].is_learned
