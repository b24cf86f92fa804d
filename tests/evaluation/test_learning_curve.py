"""The learning curve of examples whose classes are known to be easy or impossible to learn."""

import numpy as np
import pytest

from metatrain.evaluation.learning_curve import learning_curve, num_fits, why_not


def examples(number: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(number) % 2
    return rng.normal(size=(number, 8)) + distance * labels[:, None], labels


def test_every_size_is_judged_on_all_examples():
    features, labels = examples(60, 0.5)
    steps = []
    found = learning_curve(features, labels, 0, lambda: steps.append(1))
    assert found.sizes == (12, 24, 48) and found.correct.shape == (3, 60) and len(steps) == num_fits(labels)
    gain, (low, high) = found.last_gain
    assert gain == pytest.approx(found.accuracy[2] - found.accuracy[1]) and low < gain < high
    points = found.results()["points"]
    assert [point["examples"] for point in points] == [12, 24, 48] and all(point["ci95"][0] <= point["accuracy"] <= point["ci95"][1] for point in points)


def test_classes_far_apart_gain_nothing_from_more_examples():
    found = learning_curve(*examples(60, 10.0), 0)
    assert found.accuracy == [1.0, 1.0, 1.0] and found.last_gain == (0.0, [0.0, 0.0])


def test_too_few_and_too_many_examples_have_no_curve():
    assert why_not(np.arange(40) % 2) is None
    assert why_not(np.arange(39) % 2) == "39 examples of 2 classes are too few for a learning curve, which needs 40"
    assert why_not(np.arange(60) % 20) == "60 examples of 20 classes are too few for a learning curve, which needs 100"
    assert why_not(np.arange(3000) % 2) == "3,000 examples are more than 2,000"
