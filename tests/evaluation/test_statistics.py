import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from metatrain.evaluation.statistics import (
    TASKS_LIKE_THESE,
    THESE_TASKS,
    accuracy,
    balanced_accuracy,
    calibration_error,
    difference_of_seeds,
    estimate,
    half_width,
    holm,
    log_loss,
    mean_over_tasks,
    p_values,
    variance_components,
    verdict,
)


def test_always_answering_one_class_scores_half_balanced():
    labels = np.array([1] * 9 + [0])
    assert accuracy(np.ones(10), labels) == 0.9
    assert balanced_accuracy(np.ones(10), labels) == 0.5


def test_balanced_accuracy_agrees_with_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(4, size=200), rng.integers(4, size=200)
    assert balanced_accuracy(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_tasks_count_equally_however_many_episodes_they_have():
    assert mean_over_tasks([np.array([1.0]), np.zeros(99)]) == 0.5


def test_from_three_tasks_on_the_interval_is_students_over_tasks():
    """Of the means .1, .2 and .6: mean .3, standard error .1528, t with 2 degrees of freedom 4.3027."""
    found = estimate([np.array([0.0, 0.2]), np.array([0.2, 0.2]), np.array([0.5, 0.7])])
    assert (found.mean, found.about) == (pytest.approx(0.3), TASKS_LIKE_THESE)
    assert found.half_width == pytest.approx(4.302653 * np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3), rel=1e-6)
    assert found.interval == pytest.approx((0.3 - found.half_width, 0.3 + found.half_width))
    assert found.p == pytest.approx(ttest_1samp([0.1, 0.2, 0.6], 0).pvalue)


def test_the_interval_of_one_task_is_over_its_episodes_and_says_nothing_about_others():
    scores = np.array([0.1, -0.05, 0.2, 0.1])
    found = estimate([scores])
    assert found.about == THESE_TASKS
    assert found.p == pytest.approx(ttest_1samp(scores, 0).pvalue)
    assert found.half_width == pytest.approx(half_width(scores)) == pytest.approx(3.182446 * scores.std(ddof=1) / 2, rel=1e-6)


def test_of_two_tasks_the_squares_of_their_half_widths_add_up():
    one, other = np.array([0.1, 0.3, 0.2]), np.array([0.0, 0.4, 0.1, 0.1])
    found = estimate([one, other])
    assert found.about == THESE_TASKS and found.mean == pytest.approx((one.mean() + other.mean()) / 2)
    assert found.half_width == pytest.approx(np.hypot(half_width(one) / 2, half_width(other) / 2))


def test_training_seeds_are_a_source_of_their_own():
    """Of each task, [seeds, episodes]: tasks have the means .1, .2, .3, seeds .15 and .25."""
    tasks = [np.array([[mean - 0.05] * 4, [mean + 0.05] * 4]) for mean in (0.1, 0.2, 0.3)]
    found = estimate(tasks)
    of_tasks, of_seeds = 4.302653 * 0.1 / np.sqrt(3), 12.7062 * np.std([0.15, 0.25], ddof=1) / np.sqrt(2)
    assert found.mean == pytest.approx(0.2) and found.half_width == pytest.approx(np.hypot(of_tasks, of_seeds), rel=1e-5)
    assert float(p_values(np.array(found.half_width), *found._arrays)) == pytest.approx(0.05)  # the interval and p are of one rule


def test_methods_with_other_seeds_have_a_source_each():
    ours, theirs = ([np.array([[mean + seed] for seed in seeds]) for mean in (0.5, 0.6, 0.7)] for seeds in ((0.0, 0.1), (0.2, 0.0, 0.1)))
    found = difference_of_seeds(ours, theirs)
    assert found.mean == pytest.approx(-0.05) and [source.df for source in found.sources] == [2, 1, 2]
    assert [source.variance for source in found.sources] == pytest.approx([0, np.var([0, 0.1], ddof=1) / 2, np.var([0, 0.1, 0.2], ddof=1) / 3])
    assert len(difference_of_seeds(ours, [values[:1] for values in theirs]).sources) == 2  # one seed tells nothing of its spread


def test_nothing_is_claimed_of_a_single_episode():
    found = estimate([np.array([0.9])])
    assert found.interval == (-1.0, 1.0) and found.p == 1.0 and verdict(found.mean, found.p) == "not distinguishable"
    assert half_width(np.array([0.8])) == 0.0


def test_holm_on_a_worked_example():
    """Holm (1979): the least p times 4, the next times 3, ...; never below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    ("difference", "p", "words"), [(0.1, 0.049, "better"), (-0.1, 0.001, "worse"), (0.1, 0.05, "not distinguishable"), (0.0, 1.0, "not distinguishable")]
)
def test_verdicts(difference, p, words):
    assert verdict(difference, p) == words


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (1, 2), (2, 3), (3, 2), (4, 3), (8, 2), (8, 5)])
def test_a_difference_of_zero_gets_a_verdict_in_five_percent_of_cases_at_most(tasks, seeds):
    """Whole samples, in points: standard deviations of 2 over tasks, 1 over seeds, 5 over episodes. `scripts/benchmark/verdicts.py` has many more."""
    rng, number, episodes = np.random.default_rng(tasks), 600, 5
    effects = rng.normal(0, 2, (number, tasks, 1, 1))
    effects -= effects.mean(1, keepdims=True) if tasks < 3 else 0  # on these tasks the difference is zero
    of_seeds = rng.normal(0, 1, (number, 1, seeds, 1)) if seeds > 1 else 0
    scores = (effects + of_seeds + rng.normal(0, 5, (number, tasks, 1, episodes)) + rng.normal(0, 1, (number, tasks, seeds, episodes))) / 100
    wrong = sum(estimate(list(sample)).p < 0.05 for sample in scores)
    assert wrong <= 600 * 0.05 + 3 * np.sqrt(600 * 0.05 * 0.95)


def test_the_benchmark_finds_no_cell_with_more_than_six_percent():
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "benchmark" / "verdicts.py"))
    rng = np.random.default_rng(0)
    for tasks, episodes, seeds in ((1, 50, 1), (2, 5, 2), (3, 500, 1), (4, 50, 3), (20, 5, 5)):
        assert script["false_verdicts"](rng, tasks, episodes, seeds) <= 0.06


def test_calibration_error_by_hand():
    confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    assert calibration_error(confidence, correct) == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0


def test_log_loss_by_hand_and_of_what_no_probability_is():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert log_loss(probabilities, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
    assert log_loss(np.array([[1.0, 0.0]]), np.array([0])) == 0
    never = -np.log(np.finfo(np.float64).eps)
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == log_loss(np.array([[np.nan, np.nan]]), np.array([1])) == pytest.approx(never)


@pytest.mark.parametrize("seeds", [1, 3])
def test_variance_components_are_unbiased(seeds):
    """In simulations of the model, the mean estimate is the true variance; with these numbers, hardly any estimate is negative."""
    rng, true = np.random.default_rng(0), {"seeds": 4.0, "tasks": 9.0, "both": 0.25, "episodes": 16.0, "residual": 1.0}
    found = []
    for _ in range(2000):
        draws = {
            name: rng.normal(0, variance**0.5, size)
            for (name, variance), size in zip(true.items(), ((seeds, 1, 1), (1, 12, 1), (seeds, 12, 1), (1, 12, 10), (seeds, 12, 10)))
        }
        scores = sum(draws.values())
        each = variance_components([scores[:, task] for task in range(12)])
        found.append([np.nan if value is None else value for value in (each.seeds, each.tasks, each.episodes)])
    # A single seed is confounded with the mean, its interaction from the task, its residual from the episode.
    expected = (4.0, 9.0, 16.0) if seeds > 1 else (np.nan, 9.25, 17.0)
    assert np.mean(found, axis=0) == pytest.approx(expected, rel=0.05, nan_ok=True)


def test_variance_components_of_a_design_without_noise():
    seed, task, episode = np.array([-1.0, 0, 1]), np.array([-2.0, 2]), np.array([-3.0, 3])
    scores = [seed[:, None] + each + episode for each in task]
    found = variance_components(scores)
    # An estimate is the variance of the effects, less what the mean of the episodes of a task varies by.
    assert (found.seeds, found.tasks, found.episodes) == (pytest.approx(1.0), 0.0, pytest.approx(18.0))
    assert variance_components(scores[:1]).tasks is None
    with pytest.raises(ValueError, match="two or more episodes"):
        variance_components([each[:, :1] for each in scores])
