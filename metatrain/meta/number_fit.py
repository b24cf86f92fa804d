"""Fit numbers to encodings: ridge regression, with an L2 strength chosen by cross-validation.

The fit minimises the sum over examples of (y - w x - b)^2, + l2 |w|^2 (Hoerl & Kennard 1970); the bias is not regularised. The strength has the
lowest squared error on held-out examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRENGTHS = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # candidates of l2, in units of the mean squared distance of encodings from their mean
WITHOUT_FOLDS = 1.0  # with fewer than three examples, of which none is held out
FOLDS = 5


@dataclass(frozen=True)
class NumberFit:
    """A linear function of encodings, and the choices made for it."""

    weight: np.ndarray  # [H]
    bias: float
    strength: float  # of `STRENGTHS`
    held_out: np.ndarray | None  # predictions of every example by functions that have not seen it, [examples]; None: too few examples


def fit_numbers(features: np.ndarray, numbers: np.ndarray, seed: int) -> NumberFit:
    """Choose the L2 strength, and fit. features: [examples, H]; numbers: [examples]."""
    unit = max(float(np.square(features - features.mean(0)).sum(1).mean()), np.finfo(np.float64).tiny)
    levels = [strength * unit for strength in STRENGTHS]
    held_out = np.full((len(STRENGTHS), len(numbers)), np.nan)
    for fold in folds_of(numbers, seed):
        rest = np.setdiff1d(np.arange(len(numbers)), fold)
        for place, (weight, bias) in enumerate(_ridge(features[rest], numbers[rest], levels)):
            held_out[place, fold] = features[fold] @ weight + bias
    judged = not np.isnan(held_out).any()
    best = int(np.square(held_out - numbers).sum(1).argmin()) if judged else STRENGTHS.index(WITHOUT_FOLDS)  # ties go to the larger strength
    ((weight, bias),) = _ridge(features, numbers, [levels[best]])
    return NumberFit(weight, bias, STRENGTHS[best], held_out[best] if judged else None)


def folds_of(numbers: np.ndarray, seed: int) -> list[np.ndarray]:
    """Split examples into folds with about the same numbers: neighbours in their order go to different folds."""
    if len(numbers) < 3:
        return []
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(numbers))
    ordered = shuffled[np.argsort(numbers[shuffled], kind="stable")]
    number = min(FOLDS, len(numbers))
    fold_of = np.concatenate([rng.permutation(number) for _ in range(-(-len(numbers) // number))])[: len(numbers)]
    return [np.sort(ordered[fold_of == fold]) for fold in range(number) if (fold_of == fold).any()]


def _ridge(features: np.ndarray, numbers: np.ndarray, levels: Sequence[float]) -> list[tuple[np.ndarray, float]]:
    """Return (weight [H], bias) for each strength, from one singular value decomposition of the centred encodings."""
    middle, mean = features.mean(0), float(numbers.mean())
    left, values, right = np.linalg.svd(features - middle, full_matrices=False)
    along = left.T @ (numbers - mean)
    found = []
    for level in levels:
        weight = right.T @ (values / (np.square(values) + level) * along)
        found.append((weight, mean - float(middle @ weight)))
    return found
