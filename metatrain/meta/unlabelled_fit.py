"""Let a fitted head learn from texts without labels too, by transductive information maximisation (TIM, Boudiaf et al. 2020, section 3).

The loss of the head is

    mean cross-entropy of the labelled texts  -  0.6 H(mean_j p_j)  +  0.3 mean_j H(p_j),    H(p) = - sum_c p_c log p_c,

where p_j are the probabilities of unlabelled text j: each text should be of one class with certainty, and together they should not be of one class.
The entropy of the mean is bounded and has a small weight, so the classes need not be equally frequent. The minimum is approached from the fitted
head in a fixed number of steps of Adam, so that the head stays near it. It remains linear and predicts single texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatrain.meta.head_fit import Fit, Fold, Start, UnlabelledUse, best_temperature, joined, of_all, parted, with_bias_column
from metatrain.models.head_rule import Head

CONDITIONAL, MARGINAL = 0.3, 0.6  # weights of the entropies, chosen on the validation tasks of tasks=universal
STEPS, LR = 40, 0.01  # of Adam
MOST_SHOTS = 8  # examples per class above which such texts are not used: on these tasks the mean gain was positive at 1 and 5, not at 16
ENOUGH = 10  # held-out examples from which cross-validation decides

Encode = Callable[[np.ndarray], tuple[Tensor, Tensor]]  # from the rows of the examples that an encoder adapts to: the encodings of all examples and of the pool


def information_loss(logits: Tensor) -> Tensor:
    """Return the weighted mean entropy of the predictions for texts, less the weighted entropy of their mean; logits: [texts, way]."""
    log = logits.log_softmax(1)
    mean = log.logsumexp(0) - math.log(len(log))  # logarithm of the mean probabilities, [way]
    return MARGINAL * (mean.exp() * mean).sum() - CONDITIONAL * (log.exp() * log).sum(1).mean()


def refine(head: Head, features: Tensor, labels: Tensor, pool: Tensor, weights: Tensor | None = None) -> Head:
    """Return a head after steps on labelled texts and on texts without labels.

    features: [examples, H]; labels: [examples]; pool: encodings of the texts without labels, [texts, H]; weights: of the classes, [way]; None: all 1.
    """
    labelled, unlabelled = with_bias_column(features), with_bias_column(pool)
    weight = joined(head).clone().requires_grad_()
    optimizer = torch.optim.Adam([weight], lr=LR)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(labelled @ weight.T, labels, weight=weights) + information_loss(unlabelled @ weight.T)
            loss.backward()
            optimizer.step()
    return parted(weight.detach())


def fit_unlabelled(start: Start, fit: Fit, encode: Encode, texts: int, labels: Tensor, kept: np.ndarray, weights: Tensor | None = None) -> Fit:
    """Return the fit with a head that has also learned from texts without labels, or with the head as it is if they do not help.

    texts: number of these texts; start, labels, kept, weights: as of `fit_head`, which has made `fit`.
    """
    shots = float(np.median(np.bincount(labels.numpy()[~kept])))
    if shots > MOST_SHOTS:
        why = f"there are {shots:g} examples per class; on validation tasks, such texts did not help at 16"
        return replace(fit, unlabelled=UnlabelledUse(texts, False, why, None))
    features, pool = encode(np.arange(len(labels)))
    weights = None if weights is None else weights.to(features.dtype)
    held_out, folds, temperature = *_held_out(start, fit, encode, labels, weights), 1.0
    if held_out is not None:
        judged = ~held_out.isnan().any(1)
        temperature = best_temperature(held_out[judged], labels[judged], weights=weights)
        held_out = held_out / temperature
    read, why = is_helped(fit.held_out, held_out, labels, weights)
    if not read:
        return replace(fit, unlabelled=UnlabelledUse(texts, False, why, None))
    head = _cooled(refine(fit.head, features, labels, pool, weights), temperature)
    logits, of_pool = (each @ head["weight"].T + head["bias"] for each in (features, pool))
    return replace(
        fit,
        head=head,
        loss=float(F.cross_entropy(logits, labels, weight=weights)),
        temperature=fit.temperature * temperature,
        held_out=held_out,
        folds=tuple(Fold(fold.held_out, _cooled(fold.head, temperature)) for fold in folds),
        unlabelled=UnlabelledUse(texts, True, why, of_pool.double().softmax(1).mean(0).numpy()),
    )


def is_helped(without: Tensor | None, with_pool: Tensor | None, labels: Tensor, weights: Tensor | None = None) -> tuple[bool, str]:
    """Return whether texts without labels lower the log loss of held-out examples, and the reason as a line; True if too few examples are held out.

    without, with_pool: logits of held-out examples under heads that have not learned and that have learned from these texts, [examples, way], NaN for
    examples that were not held out.
    """
    judged = labels.new_zeros(0) if without is None else torch.nonzero(~without.isnan().any(1)).flatten()
    if without is None or with_pool is None or len(judged) < ENOUGH:
        why = "are too few to decide; on validation tasks the mean gain was positive at 1 and 5 examples per class, but not significant"
        return True, f"{len(judged)} held-out examples {why}"
    before, after = (float(F.cross_entropy(each[judged], labels[judged], weight=weights)) for each in (without, with_pool))
    return after <= before, f"log loss on held-out examples {after:.3f} with them, {before:.3f} without"


def _cooled(head: Head, temperature: float) -> Head:
    return {name: value / temperature for name, value in head.items()}


def _held_out(start: Start, fit: Fit, encode: Encode, labels: Tensor, weights: Tensor | None) -> tuple[Tensor | None, list[Fold]]:
    """Return the logits [examples, way] of held-out examples under heads that have learned from the others and the texts without labels, and these heads.

    Where no fold was held out, each example that `fit` has judged by a label name is held out by itself.
    """
    if fit.held_out is None:
        return None, []
    rows = np.arange(len(labels))
    folds = list(fit.folds)
    if not folds:
        judged = np.flatnonzero(~fit.held_out.isnan().any(1).numpy())
        folds = [Fold(np.array([row]), start(np.delete(rows, row))) for row in judged]
    found, logits = [], []
    for fold in folds:
        rest = np.setdiff1d(rows, fold.held_out)
        features, pool = encode(rest)
        places = torch.from_numpy(rest)
        head = refine(fold.head, features[places], labels[places], pool, weights)
        logits.append(features[torch.from_numpy(fold.held_out)] @ head["weight"].T + head["bias"])
        found.append(Fold(fold.held_out, head))
    return of_all(len(labels), np.concatenate([fold.held_out for fold in folds]), torch.cat(logits)), found if fit.folds else []
