"""Fit sigmoid heads to texts with several labels each: one logistic regression a label, with an L2 strength chosen by cross-validation.

The fit of a label minimises the sum over examples of the binary cross-entropy, + l2 / 2 |w|^2; the bias is not regularised. The strength, the
same for all labels, and whether label names are examples, are those with the lowest log loss on held-out examples. A label name is an example
of its own label only: it says nothing about the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.head_fit import with_bias_column

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # candidates of 1 / l2, in units of 1 / mean squared length of the encodings
WITHOUT_FOLDS = 100.0  # the value with one example, which cannot be held out
FOLDS = 5
_QUICK, _EXACT = 40, 300  # iterations for each strength on the folds, which begin at the minimum of the one before; for the chosen strength


@dataclass(frozen=True)
class LabelFit:
    """Sigmoid heads, and the choices made for them."""

    weight: Tensor  # [labels, H]
    bias: Tensor  # [labels]
    strength: float  # of `STRENGTHS`: inverse, so a larger one regularises less
    names: bool | None  # whether label names are examples; None: there were none to read
    held_out: np.ndarray | None  # logits of every example under heads that have not seen it, [examples, labels]; None: there is one example
    fold_of: np.ndarray  # the fold in which an example was held out, [examples]


def num_fits(reads_names: bool) -> int:
    """Return the number of progress steps of `fit_labels`."""
    return len(STRENGTHS) * (1 + reads_names) + 1


def fit_labels(
    features: Tensor, targets: np.ndarray, names: Tensor | None, is_name: np.ndarray, weight: int, seed: int, on_progress: Callable[[], None]
) -> LabelFit:
    """Choose the L2 strength, and fit.

    features: [examples, H]; targets: which labels each example has, boolean, [examples, labels]; names: encodings of the label names, [labels, H],
    None: not to be read; is_name: which of them mean something, boolean, [labels]; weight: number of examples that a name counts as.
    """
    features = features.double()
    labels = torch.from_numpy(targets).double()
    unit = 1 / max(float(features.square().sum(1).mean()), torch.finfo(torch.float64).tiny)
    folds = folds_of(targets, seed)
    seen = torch.ones(len(folds), *labels.shape, dtype=torch.double)
    for number, fold in enumerate(folds):
        seen[number, torch.from_numpy(fold)] = 0
    quick = features.float(), labels.float(), seen.float()
    readable = names is not None and bool(is_name.any())
    tried: list[tuple[float, float, bool, np.ndarray]] = []
    for reads in (False, True) if readable else (False,):
        rows, answers, counted = _with_names(*quick, names if reads else None, is_name, weight)
        heads: Tensor | None = None
        for strength in STRENGTHS if folds else ():
            heads = _fitted(heads, rows, answers, counted, 1 / (strength * unit), _QUICK)
            logits = np.zeros(targets.shape)
            for number, fold in enumerate(folds):
                logits[fold] = (with_bias_column(quick[0][torch.from_numpy(fold)]) @ heads[number].T).numpy()
            loss = float(F.binary_cross_entropy_with_logits(torch.from_numpy(logits), labels))
            tried.append((loss, strength, reads, logits))
            on_progress()
    _, strength, reads, held_out = min(tried, key=lambda each: each[0]) if tried else (0.0, WITHOUT_FOLDS, readable, None)
    rows, answers, counted = _with_names(features, labels, torch.ones_like(labels)[None], names if reads else None, is_name, weight)
    head = _fitted(None, rows, answers, counted, 1 / (strength * unit), _EXACT)[0].float()
    on_progress()
    fold_of = np.zeros(len(targets), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_of[fold] = number
    return LabelFit(head[:, :-1].contiguous(), head[:, -1].contiguous(), strength, reads if readable else None, held_out, fold_of)


def folds_of(targets: np.ndarray, seed: int) -> list[np.ndarray]:
    """Split examples into folds in which each label is about as frequent (iterative stratification, Sechidis et al. 2011), the rarest label first."""
    if len(targets) < 2:
        return []
    rng = np.random.default_rng(seed)
    left = rng.permutation(len(targets))
    counts = np.zeros((min(FOLDS, len(targets)), targets.shape[1]), dtype=np.int64)  # of labels in folds
    folds: list[list[int]] = [[] for _ in counts]
    while len(left):
        totals = targets[left].sum(0)
        label = int(np.where(totals > 0, totals, len(targets) + 1).argmin()) if totals.any() else None
        chosen = left if label is None else left[targets[left, label]]
        for row in chosen.tolist():
            fold = min(range(len(folds)), key=lambda place: (0 if label is None else counts[place, label], len(folds[place])))
            folds[fold].append(row)
            counts[fold] += targets[row]
        left = np.setdiff1d(left, chosen, assume_unique=True)
    return [np.array(sorted(fold), dtype=np.int64) for fold in folds if fold]


def _with_names(features: Tensor, labels: Tensor, seen: Tensor, names: Tensor | None, is_name: np.ndarray, weight: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (features with a column of ones, labels, weight of each label of each example), label names appended if they are read.

    seen: which labels of which examples count in a fold, [folds, examples, labels].
    """
    if names is None:
        return with_bias_column(features), labels, seen
    chosen = torch.from_numpy(is_name)
    own = torch.eye(len(names), dtype=labels.dtype)[chosen]  # [names, labels]
    counted = torch.cat([seen, (weight * own).expand(len(seen), -1, -1)], dim=1)
    return with_bias_column(torch.cat([features, names.to(features.dtype)[chosen]])), torch.cat([labels, own]), counted


def _fitted(begin: Tensor | None, features: Tensor, labels: Tensor, counted: Tensor, l2: float, iterations: int) -> Tensor:
    """Return the minimum for each fold, [folds, labels, H + 1]; begin: where the search begins, None: heads that predict the frequencies."""
    if begin is None:
        share = ((counted * labels).sum(1) + 0.5) / (counted.sum(1) + 1)  # [folds, labels]
        begin = torch.cat([features.new_zeros(*share.shape, features.shape[1] - 1), share.logit()[..., None]], dim=-1)
    heads = begin.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([heads], max_iter=iterations, tolerance_change=1e-7, line_search_fn="strong_wolfe")
    targets = labels.expand(len(counted), -1, -1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = F.binary_cross_entropy_with_logits(features @ heads.transpose(1, 2), targets, reduction="none")  # [folds, examples, labels]
        loss = (losses * counted).sum() + l2 / 2 * heads[..., :-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return heads.detach()
