"""Fit a head to a support set, with an L2 strength chosen by cross-validation.

If nothing of the encoder adapts, a head W, b on the encodings is logistic regression, with the meta-learned head W_0, b_0 as its
prior. The fit minimises

    sum over examples of cross-entropy  +  l2 / 2 |(W, b) - (W_0, b_0)|^2.

Infinite strength keeps the meta-learned head; strength 0 is plain logistic regression. The strength, and then a temperature of the
probabilities, are those with the lowest log loss on held-out examples (cross-validation on the support set). With one example per
class the head stays as it is, up to a temperature learned across tasks (`temperature.py`); its logits for a held-out example are defined only if the
label name is an example too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.errors import UserError
from metatrain.meta.name_choice import NameChoice
from metatrain.meta.temperature import COOLEST, HOTTEST, LearnedTemperature
from metatrain.models.head_rule import Head

STRENGTHS = (math.inf, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
FITS = len(STRENGTHS) + 1  # for each strength on the folds, and for the chosen one on all examples
FOLDS = 5
ENOUGH_HELD_OUT = 100  # cross-validation stops after the fold that reaches this number of held-out examples, where each fold trains a model
ENOUGH = 20  # held-out examples from which the temperature is chosen without a prior
_USUAL, _SPREAD = 1.5, 0.5  # that prior: its median, and its standard deviation in log temperature
_ITERATIONS = 30

Start = Callable[[np.ndarray], Head]  # computes the initial head from only these examples


@dataclass(frozen=True)
class Fold:
    """Held-out examples, and the head that is fitted to all others."""

    held_out: np.ndarray
    head: Head


@dataclass(frozen=True)
class UnlabelledUse:
    """Decision whether a fitted head has also learned from texts without labels, with the reason."""

    texts: int
    read: bool
    why: str
    shares: np.ndarray | None  # of the classes among these texts, estimated: mean probabilities, [way]; None: they are not read


@dataclass(frozen=True)
class Fit:
    """A fitted head, and the choices made for it."""

    head: Head
    loss: float  # of the examples, under the head
    l2: float  # strength of the regularisation towards the meta-learned head
    temperature: float
    held_out: Tensor | None  # logits [examples, way] under heads that have not seen the example, NaN for those that were not held out
    folds: tuple[Fold, ...] = ()
    steps: int = 0  # inner steps of the encoder before the fit (`inner.loss=leave_one_out`)
    updates: int = 0  # of the whole encoder, starting from such a head (`encoder_fit`)
    names: NameChoice | None = None  # whether label names are examples; None: there are none to read
    unlabelled: UnlabelledUse | None = None  # whether texts without labels are used; None: there are none
    is_learned: bool = False  # whether the temperature is one learned across tasks, or cross-validation chose it near that one
    encodings: Tensor | None = None  # of the examples without label names, [examples, H], on the CPU, under the initial encoder

    def threshold(self, share: float) -> float:
        """Return the threshold below which the highest logit of this fraction of the held-out examples falls.

        Raises:
            UserError: no example was held out.
        """
        if self.held_out is None:
            raise UserError("oos_false_rejection_rate needs cross-validation: two examples in a class, or one and a label name; add examples")
        highest = self.held_out.amax(1)
        return float(highest[highest.isfinite()].double().quantile(share))


def fit_head(
    start: Start,
    features: Tensor,
    labels: Tensor,
    kept: np.ndarray,
    seed: int,
    on_progress: Callable[[], None] = lambda: None,
    encode: Callable[[np.ndarray], Tensor] | None = None,
    weights: Tensor | None = None,
    learned: LearnedTemperature | None = None,
    most_folds: int = FOLDS,
) -> Fit:
    """Choose an L2 strength and fit; `on_progress` is called up to FITS times.

    features: [examples, H]; labels: [examples]; kept: examples that are never held out (label names), boolean,
    [examples]. encode: returns the encodings of all examples, [examples, H], under an encoder that has adapted to only some of them; folds then stop
    at `ENOUGH_HELD_OUT` held-out examples. None: the encoder does not adapt. weights: of the classes in every loss, [way]; None: all 1. These
    tensors and the heads of `start` are on the CPU. learned: temperatures learned across tasks: that of a fit without folds, and the median of the prior of
    one with few held-out examples; None: 1, and `_USUAL`. most_folds: number of folds at most, 1 or more.
    """
    everything = np.arange(len(labels))
    extended = with_bias_column(features)
    folds = folds_of(labels.numpy(), seed, kept, None if encode is None else ENOUGH_HELD_OUT)[:most_folds]
    whole = start(everything)
    size = len(whole["weight"]), float((~kept).sum() / len(whole["weight"]))  # number of classes, and of examples per class
    if not folds:
        made = None if learned is None else learned.made
        temperature = 1.0 if made is None else made.at(*size)
        head, by_names = joined(whole) / temperature, _by_names(start, extended, labels, kept)
        judged = None if by_names is None else by_names / temperature
        return Fit(parted(head), _loss(head, extended, labels, weights), math.inf, temperature, judged, is_learned=made is not None)
    rest = [np.setdiff1d(everything, fold) for fold in folds]
    of_folds = None if encode is None else torch.stack([with_bias_column(encode(others)) for others in rest])  # [folds, examples, H + 1]
    starts = [start(others) for others in rest]
    first = torch.stack([joined(head) for head in starts])  # [folds, way, H + 1]
    seen = torch.ones(len(folds), len(labels), dtype=features.dtype)
    for number, fold in enumerate(folds):
        seen[number, torch.from_numpy(fold)] = 0
    rows = torch.from_numpy(np.concatenate(folds))
    fold_of = torch.from_numpy(np.repeat(np.arange(len(folds)), [len(fold) for fold in folds]))
    held_out_features = extended[rows] if of_folds is None else of_folds[fold_of, rows]
    if weights is not None:
        weights = weights.to(features.dtype)
        seen *= weights[labels]
    heads_of_folds, tried = first, []
    for l2 in STRENGTHS:
        heads_of_folds = heads_of_folds if math.isinf(l2) else _fitted(heads_of_folds, first, extended if of_folds is None else of_folds, labels, seen, l2)
        logits = torch.einsum("nh,nwh->nw", held_out_features, heads_of_folds[fold_of])
        loss = float(F.cross_entropy(logits, labels[rows], weight=weights))
        tried.append((loss if math.isfinite(loss) else math.inf, l2, logits, heads_of_folds))
        on_progress()
    _, l2, held_out, chosen = min(tried, key=lambda each: each[0])  # ties go to the larger strength
    fitted = None if learned is None else learned.fitted
    usual = _USUAL if fitted is None else fitted.at(*size)
    temperature = best_temperature(held_out, labels[rows], weights=weights, usual=usual)
    head = joined(whole)[None]
    if not math.isinf(l2):
        head = _fitted(head, head, extended, labels, torch.ones_like(seen[:1]) if weights is None else weights[labels][None], l2)
    on_progress()
    head = head[0] / temperature
    judged = of_all(len(labels), rows.numpy(), held_out / temperature)
    heads = tuple(Fold(fold, parted(weight / temperature)) for fold, weight in zip(folds, chosen))
    is_learned = fitted is not None and len(rows) < ENOUGH
    return Fit(parted(head), _loss(head, extended, labels, weights), l2, temperature, judged, heads, is_learned=is_learned)


def _by_names(start: Start, features: Tensor, labels: Tensor, kept: np.ndarray) -> Tensor | None:
    """Return logits of the only example of each class under a head that has its label name as an example; None if no class has one."""
    named = np.isin(labels.numpy(), labels.numpy()[kept])
    rows = np.flatnonzero(named & ~kept)
    if not len(rows):
        return None
    logits = [joined(start(np.delete(np.arange(len(labels)), row))) @ features[row] for row in rows]
    return of_all(len(labels), rows, torch.stack(logits))


def of_all(examples: int, rows: np.ndarray, logits: Tensor) -> Tensor:
    """Return the logits [rows, way] of some examples among those of all examples, with NaN for the others."""
    found = torch.full((examples, logits.shape[1]), math.nan, dtype=logits.dtype)
    found[torch.from_numpy(rows)] = logits
    return found


def with_bias_column(features: Tensor) -> Tensor:
    """Append a column of ones, for the bias."""
    return torch.cat([features, features.new_ones(len(features), 1)], dim=1)


def _loss(head: Tensor, features: Tensor, labels: Tensor, weights: Tensor | None) -> float:
    return float(F.cross_entropy(features @ head.T, labels, weight=None if weights is None else weights.to(features.dtype)))


def joined(head: Head) -> Tensor:
    """Return weight and bias as one matrix [way, H + 1]."""
    return torch.cat([head["weight"], head["bias"][:, None]], dim=1)


def parted(head: Tensor) -> Head:
    return {"weight": head[:, :-1].contiguous(), "bias": head[:, -1].contiguous()}


def folds_of(labels: np.ndarray, seed: int, kept: np.ndarray | None = None, enough: int | None = None) -> list[np.ndarray]:
    """Split examples into folds, stratified by class; the only example of a class is in no fold.

    kept: examples that are never held out, boolean, [examples]; None: none. enough: stop after the fold that reaches this number of held-out examples;
    None: all folds.
    """
    rng = np.random.default_rng(seed)
    folds: list[list[int]] = [[] for _ in range(FOLDS)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label if kept is None else (labels == label) & ~kept))
        if len(rows) > 1:
            for place, row in enumerate(rows):
                folds[place % FOLDS].append(int(row))
    found = [np.array(sorted(fold), dtype=np.int64) for fold in folds if fold]
    return found if enough is None else found[: num_folds([len(fold) for fold in found], enough)]


def num_folds(sizes: Sequence[int], enough: int) -> int:
    """Return the number of folds needed to hold out `enough` examples; all of them if they hold fewer. sizes: of the folds."""
    return sum(total - size < enough for size, total in zip(sizes, accumulate(sizes)))


def _fitted(begin: Tensor, first: Tensor, features: Tensor, labels: Tensor, seen: Tensor, l2: float) -> Tensor:
    """Return the minimum for each fold, [folds, way, H + 1].

    features: [examples, H + 1], or those of each fold, [folds, examples, H + 1]; seen: weights of the examples in a fold, 0 for those held
    out, [folds, examples].
    """
    weights = begin.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, tolerance_change=1e-5, line_search_fn="strong_wolfe")
    targets = labels.expand(len(seen), -1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = F.cross_entropy((features @ weights.transpose(1, 2)).transpose(1, 2), targets, reduction="none")  # [folds, examples]
        loss = (losses * seen).sum() + l2 / 2 * (weights - first).square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


def best_temperature(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None, usual: float = _USUAL) -> float:
    """Return the temperature with the lowest log loss (Guo et al. 2017, section 4.2).

    With fewer than `ENOUGH` examples, it is the maximum a posteriori under a log-normal prior, because heads fitted to few examples are overconfident.

    smoothing: label smoothing; weights: of the classes, [way]; None: all 1; usual: median of the prior.
    """
    from scipy.optimize import minimize_scalar

    logits, number = logits.double(), len(labels)
    weights = None if weights is None else weights.double()

    def loss(log: float) -> float:
        found = float(F.cross_entropy(logits / math.exp(log), labels, label_smoothing=smoothing, weight=weights))
        return found if number >= ENOUGH else number * found + ((log - math.log(usual)) / _SPREAD) ** 2 / 2

    return math.exp(minimize_scalar(loss, bounds=(math.log(COOLEST), math.log(HOTTEST)), method="bounded").x)
