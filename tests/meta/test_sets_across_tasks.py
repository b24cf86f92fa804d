"""Prediction sets calibrated on other tasks: the quantile over tasks, its coverage, and the limits that finetuning reads."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from metatrain.errors import UserError
from metatrain.meta.head_fit import best_temperature
from metatrain.meta.sets_across_tasks import LEVELS, RIDGE, ScoredCase, calibrated, described_sets, facts_of, quantile_over_tasks, scored, with_sets
from metatrain.meta.temperature import LearnedTemperature, LimitOfScores, LogTemperature, SetsAcrossTasks, TemperatureCase
from metatrain.models.decisions import softmax
from metatrain.models.prediction_sets import calibration, limits

SIZES = [(2, 1), (4, 1), (8, 2), (3, 4), (2, 8)]


@pytest.mark.parametrize("level", [0.1, 0.25, 0.5, 0.6, 0.74, 0.75, 0.76])
def test_the_quantile_is_the_smallest_value_of_enough_weight(level):
    """By exact fractions: three tasks have 1/4 each, and the task to come, at infinity, the last."""
    tasks = [[3, 1], [2], [5, 4, 2, 6]]
    exact = Fraction(level).limit_denominator(100)
    weight = {value: sum(Fraction(sum(each <= value for each in task), 4 * len(task)) for task in tasks) for value in range(1, 7)}
    expected = min((value for value, found in weight.items() if found >= exact), default=math.inf)
    assert quantile_over_tasks([np.array(task, float) for task in tasks], level) == expected


def test_with_one_value_each_it_is_that_of_conformal_prediction():
    values = np.random.default_rng(0).normal(size=19)
    assert quantile_over_tasks([np.array([value]) for value in values], 0.9) == np.sort(values)[math.ceil(20 * 0.9) - 1]


def test_coverage_of_a_further_task_is_the_level():
    """Tasks differ, in number of values and in place: the new task is covered with probability 0.8 to 0.8 + 1 / 10 on average over 2000 draws of tasks."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(2000):
        tasks = [rng.normal(rng.normal(), 0.5, size=rng.integers(1, 30)) for _ in range(10)]
        found.append(np.mean(tasks[-1] <= quantile_over_tasks(tasks[:-1], 0.8)))
    assert 0.8 < np.mean(found) < 0.9  # standard error 0.009
    pooled = [np.mean(rng.normal(rng.normal(), 0.5, 20) <= np.quantile(rng.normal(rng.normal(size=9)[:, None], 0.5, (9, 20)), 0.8)) for _ in range(2000)]
    assert np.mean(pooled) < 0.79  # the quantile of all values, without the weight of the task to come, is too low


def cases(tasks=30, seed=0, queries=25):
    """Scores that grow with the number of classes and fall with that of examples, each task with a place of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(tasks):
        own = rng.normal()
        for way, shots in SIZES:
            logits = own + rng.normal(size=queries) + 0.8 * math.log(way) - 0.4 * math.log(shots)
            found.append(ScoredCase(f"task {number}", way, shots, 1 / (1 + np.exp(-logits))))
    return found


def test_limits_are_the_ridge_regression_of_quantiles_with_the_quantile_of_residuals():
    some = cases()
    sets = calibrated(some)
    assert (sets.tasks, sets.most_classes) == (30, 8) and [each.level for each in sets.limits] == list(LEVELS)
    limit = sets.limits[LEVELS.index(0.9)]
    inputs = np.array([[math.log(case.shots), math.log(case.way)] for case in some])
    own = np.array([np.sort(case.logits)[math.ceil(0.9 * 25) - 1] for case in some])
    centred = np.vstack([inputs - inputs.mean(0), math.sqrt(RIDGE) * np.eye(2)])
    slopes = np.linalg.lstsq(centred, np.append(own - own.mean(), [0, 0]), rcond=None)[0]
    assert (limit.shots, limit.way) == pytest.approx(tuple(slopes))
    by_task = np.array([case.logits - row @ slopes for case, row in zip(some, inputs)]).reshape(30, -1)
    assert limit.intercept == pytest.approx(np.sort(by_task.ravel())[math.ceil(0.9 * 31 * by_task.shape[1]) - 1])
    assert limit.at(4, 2) == pytest.approx(1 / (1 + math.exp(-limit.intercept - limit.shots * math.log(2) - limit.way * math.log(4))))
    assert limit.at(4, 8) == limit.at(4, 500)


def test_coverage_is_the_level_for_tasks_of_the_same_kind_at_every_size():
    found = {size: [] for size in SIZES}
    for seed in range(20):
        limit = calibrated(cases(20, seed)).limits[LEVELS.index(0.9)]
        for case in cases(20, 1000 + seed):
            found[case.way, case.shots].append(np.mean(case.scores <= limit.at(case.way, case.shots)))
    for share in found.values():
        assert 0.89 < np.mean(share) < 0.96  # between 0.9 and 0.9 + 1 / 21, up to the draws


def test_few_tasks_allow_low_levels_only():
    sets = calibrated(cases(4))
    assert [each.level for each in sets.limits] == [level for level in LEVELS if level <= 0.8]
    assert calibrated([]) is None and calibrated(cases(tasks=1)).limits[-1].level == 0.5
    lines = described_sets(LearnedTemperature(None, None, 1, None, sets))
    assert lines == ["prediction sets of fitted heads, fewer than 20 examples: calibrated on 4 tasks, for coverage up to 0.8"]


def test_scores_are_those_under_the_temperature_that_finetuning_chooses():
    rng = np.random.default_rng(2)
    logits, held_out, labels = 3 * rng.normal(size=(30, 3)), 3 * rng.normal(size=(9, 3)), rng.integers(3, size=30)
    learned = LearnedTemperature(LogTemperature(0.4, 0.1, -0.5), LogTemperature(0.2, 0.3, 0.4))
    made = TemperatureCase(3, 1, False, logits, labels, "a")
    fitted = TemperatureCase(3, 3, True, logits, labels, "b", held_out, np.arange(9) % 3)
    usual = learned.fitted.at(3, 3)
    chosen = best_temperature(torch.from_numpy(held_out), torch.from_numpy(np.arange(9) % 3), usual=usual)
    assert chosen != pytest.approx(usual)
    for case, temperature in ((made, learned.made.at(3, 1)), (fitted, chosen)):
        np.testing.assert_allclose(scored(case, learned).scores, 1 - softmax(logits / temperature)[np.arange(30), labels])
    both = with_sets(learned, [made, fitted])
    assert both.made_sets == calibrated([scored(made, learned)]) and both.fitted_sets == calibrated([scored(fitted, learned)])


SETS = SetsAcrossTasks(12, 6, [LimitOfScores(0.8, 0.3, -0.1, 0.2), LimitOfScores(0.9, 1.3, -0.1, 0.2)])


def test_a_task_reads_the_limit_of_its_size_for_the_next_level():
    facts = calibration(np.zeros((3, 3)), np.arange(3), None, facts_of(SETS, 3, 1))
    assert facts["held_out"] == 3 and facts["across_tasks"]["tasks"] == 12
    for coverage, row in ((0.5, 0), (0.8, 0), (0.81, 1), (0.9, 1)):
        assert limits("m", facts, ["a", "b", "c"], coverage) == pytest.approx(np.full(3, SETS.limits[row].at(3, 1)), abs=1e-6)
    with pytest.raises(UserError, match="coverage=0.95: m was calibrated on 12 tasks, for coverage up to 0.9; add examples until cross-validation holds 20 or"):
        limits("m", facts, ["a", "b", "c"], 0.95)
    with pytest.raises(UserError, match="coverage=0.99: .* holds 99 or more out"):
        limits("m", facts, ["a", "b", "c"], 0.99)
    none = {"held_out": 0, "across_tasks": facts_of(SetsAcrossTasks(0, 6, []), 3, 1)}
    with pytest.raises(UserError, match="too few for any coverage"):
        limits("m", none, ["a", "b", "c"], 0.5)


def test_more_classes_or_many_examples_do_not_read_it():
    assert facts_of(SETS, 7, 1) is None
    assert "across_tasks" not in calibration(np.zeros((20, 2)), np.zeros(20, int), None, facts_of(SETS, 2, 10))
