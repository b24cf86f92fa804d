"""Sigmoid heads and ridge regression on encodings: the minima that they claim, beside scikit-learn, and what cross-validation chooses."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from metatrain.meta import label_fit, number_fit
from metatrain.meta.label_fit import fit_labels, num_fits
from metatrain.meta.number_fit import fit_numbers


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8))
    targets = features[:, :3] + 0.5 * rng.normal(size=(60, 3)) > [0.0, 0.5, 1.5]
    return features, targets


def fitted(features, targets, names=None, is_name=None):
    steps = []
    is_name = np.zeros(targets.shape[1], dtype=bool) if is_name is None else is_name
    found = fit_labels(torch.from_numpy(features), targets, names, is_name, 1, 0, lambda: steps.append(1))
    return found, len(steps)


def test_heads_are_those_of_logistic_regression(data):
    features, targets = data
    found, steps = fitted(features, targets)
    assert steps == num_fits(False) and found.names is None and found.held_out.shape == targets.shape
    unit = 1 / np.square(features).sum(1).mean()
    for label in range(3):
        expected = LogisticRegression(C=found.strength * unit, tol=1e-8, max_iter=1000).fit(features, targets[:, label])
        np.testing.assert_allclose(found.weight[label], expected.coef_[0], atol=5e-3)
        assert float(found.bias[label]) == pytest.approx(expected.intercept_[0], abs=5e-3)


def test_every_example_is_held_out_once_from_heads_that_have_not_seen_it(data):
    features, targets = data
    found, _ = fitted(features, targets)
    folds = [np.flatnonzero(found.fold_of == fold) for fold in range(label_fit.FOLDS)]
    assert sum(map(len, folds)) == 60
    shares = np.array([targets[fold].sum(0) for fold in folds])
    assert (shares.max(0) - shares.min(0) <= 2).all()  # labels are spread over the folds
    fold, unit = folds[0], 1 / np.square(features).sum(1).mean()
    rest = np.setdiff1d(np.arange(60), fold)
    expected = LogisticRegression(C=found.strength * unit, tol=1e-8, max_iter=1000).fit(features[rest], targets[rest, 0]).decision_function(features[fold])
    np.testing.assert_allclose(found.held_out[fold, 0], expected, atol=2e-2)


def test_names_are_examples_only_where_they_help(data):
    features, targets = data
    few, names = slice(0, 8), torch.from_numpy(3 * np.eye(3, 8))
    helpful, steps = fitted(features[few], targets[few], names, np.array([True, True, True]))
    assert helpful.names is True and steps == num_fits(True)
    harmful, _ = fitted(features, targets, -5 * names, np.array([True, True, True]))
    assert harmful.names is False
    assert fitted(features, targets, names, np.zeros(3, dtype=bool))[0].names is None  # none means anything


def test_one_example_is_not_held_out(data):
    features, targets = data
    found, _ = fitted(features[:1], targets[:1])
    assert found.held_out is None and found.strength == label_fit.WITHOUT_FOLDS and bool(found.weight.isfinite().all())


def test_numbers_are_those_of_ridge_regression(data):
    features, _ = data
    numbers = features @ np.arange(8) + np.random.default_rng(1).normal(size=60)
    found = fit_numbers(features, numbers, 0)
    level = found.strength * np.square(features - features.mean(0)).sum(1).mean()
    expected = Ridge(alpha=level).fit(features, numbers)
    np.testing.assert_allclose(found.weight, expected.coef_, rtol=1e-6)
    assert found.bias == pytest.approx(expected.intercept_)
    fold = number_fit.folds_of(numbers, 0)[1]
    rest = np.setdiff1d(np.arange(60), fold)
    level = found.strength * np.square(features - features.mean(0)).sum(1).mean()
    np.testing.assert_allclose(found.held_out[fold], Ridge(alpha=level).fit(features[rest], numbers[rest]).predict(features[fold]))
    assert sorted(np.concatenate(number_fit.folds_of(numbers, 0)).tolist()) == list(range(60))


def test_two_numbers_are_fitted_without_folds(data):
    found = fit_numbers(data[0][:2], np.array([1.0, 5.0]), 0)
    assert found.held_out is None and found.strength == number_fit.WITHOUT_FOLDS
