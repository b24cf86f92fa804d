"""Scores of predicted numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from metatrain.evaluation.held_out import QUANTILE, interval


def number_scores(predicted: np.ndarray, numbers: np.ndarray, is_whole: bool) -> dict[str, Any]:
    """Return the mean absolute error with its 95% interval, and Spearman's rank correlation (null if one side is constant); both: [texts].

    is_whole: whether the numbers are whole, so that accuracy, that of the predictions rounded to whole numbers, means something.
    """
    errors = np.abs(predicted - numbers)
    half = QUANTILE * float(errors.std(ddof=1)) / len(errors) ** 0.5 if len(errors) > 1 else float("nan")
    mean = float(errors.mean())
    varies = len(numbers) > 1 and np.ptp(predicted) > 0 and np.ptp(numbers) > 0
    found: dict[str, Any] = {
        "examples": len(numbers),
        "mean_absolute_error": mean,
        "mean_absolute_error_ci95": [max(0.0, mean - half), mean + half] if len(errors) > 1 else None,
        "spearman": float(spearmanr(predicted, numbers).statistic) if varies else None,
    }
    if is_whole:
        is_correct = np.floor(predicted + 0.5) == numbers
        found |= {"accuracy": float(is_correct.mean()), "ci95": interval(int(is_correct.sum()), len(numbers))}
    return found
