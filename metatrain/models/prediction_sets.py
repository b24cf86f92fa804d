"""Prediction sets: for each text a set of labels that contains its label with a stated probability (coverage). Needs numpy only.

Conformal prediction with the score 1 - p(label | text) (Sadinle et al. 2019), calibrated on held-out predictions of cross-validation (cross-conformal:
Vovk 2015): heads that were fitted without an example predict it, and the final head predicts new texts. A label is in the set of a text if its score
is at most the ceil((n + 1) coverage)-th smallest of the n held-out scores. Where `data.priors` say that other class shares are to be expected than
those of the examples, the held-out scores are weighted (Podkopaev and Ramdas 2021, under label shift).

With fewer than `FEWEST` held-out scores the limit of the scores comes from episodes of other tasks, if the checkpoint was calibrated on them
(`meta/sets_across_tasks.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.models.decisions import softmax

FEWEST = 20  # held-out examples that prediction sets need
_EXACT = 1e-9


def calibration(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, across_tasks: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what prediction sets need, to be written as JSON: the number of held-out examples, and their scores if there are `FEWEST` or more.

    logits: of the examples, each under a head that has not seen it, NaN if there is none, [examples, labels]; labels: [examples]; weights: by which
    each class is more frequent among the texts to predict than among the examples, [labels]; None: their shares are equal. across_tasks: calibration on
    other tasks, for fewer examples (`sets_across_tasks.facts_of`); None: there is none.
    """
    is_judged = ~np.isnan(logits).any(1)
    logits, labels = logits[is_judged], labels[is_judged]
    found: dict[str, Any] = {"held_out": len(labels)}
    if len(labels) < FEWEST:
        return found if across_tasks is None else {**found, "across_tasks": dict(across_tasks)}
    scores = 1 - softmax(logits.astype(np.float64))[np.arange(len(labels)), labels]
    order = np.argsort(scores, kind="stable")
    found["scores"] = [round(score, 6) for score in scores[order].tolist()]
    if weights is not None:
        found |= {"weights": weights[labels[order]].tolist(), "label_weights": weights.tolist()}
    return found


def limits(model: str, calibration: Mapping[str, Any] | None, labels: Sequence[str], coverage: float) -> np.ndarray:
    """Return the highest score of a label that is in the prediction set, [labels]; infinite: the label is in every set.

    model: its name, for messages; calibration: as of `calibration`; None: the model was written without it.

    Raises:
        UserError: the coverage is no share, or the model has too few held-out examples.
    """
    if not 0 < coverage < 1:
        raise UserError(f"coverage={coverage} must be between 0 and 1; it is the share of texts whose prediction set contains their label, 0.9 for example")
    if calibration is None:
        raise UserError(
            f"coverage={coverage}: {model} has no held-out predictions of its examples; finetune it again, with a fitted head (inner.fit_head=true) "
            f"and {FEWEST} or more examples"
        )
    needed = max(FEWEST, math.ceil(coverage / (1 - coverage) - _EXACT))
    if "across_tasks" in calibration:
        return np.full(len(labels), _limit_across_tasks(model, calibration["across_tasks"], coverage, needed))
    if calibration["held_out"] < needed:
        raise UserError(
            f"coverage={coverage} needs {needed} or more examples that cross-validation has held out, and {model} has {calibration['held_out']}; "
            "add examples (two or more of each class) and finetune it again; algorithm.adapt=head holds out all of them"
        )
    scores = np.array(calibration["scores"])
    weights = np.array(calibration.get("weights", np.ones(len(scores))))
    own = np.array(calibration.get("label_weights", np.ones(len(labels))))
    total = np.cumsum(weights)
    # The weight of the text itself counts as if its score were infinite.
    place = np.searchsorted(total, coverage * (total[-1] + own) * (1 - _EXACT))
    return np.append(scores, np.inf)[place] + 1e-6  # scores are rounded


def _limit_across_tasks(model: str, found: Mapping[str, Any], coverage: float, examples: int) -> float:
    """Return the limit of the lowest level that is this coverage or more; examples: number of examples that need none.

    Raises:
        UserError: the model was calibrated on too few tasks for this coverage, or no level is so high.
    """
    limit = next((limit for level, limit in zip(found["levels"], found["limits"]) if level >= coverage - _EXACT), None)
    if limit is not None:
        return float(limit)
    reason = f"{model} was calibrated on {found['tasks']} tasks" + (
        f", for coverage up to {found['levels'][-1]:g}" if found["levels"] else ", too few for any coverage"
    )
    raise UserError(f"coverage={coverage}: {reason}; add examples until cross-validation holds {examples} or more out, and finetune it again")
