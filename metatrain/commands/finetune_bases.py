"""Several bases of `metatrain finetune checkpoint=[A,B]`: each adapts to the examples, and cross-validation chooses one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from scipy.stats import binomtest

from metatrain.checkpoints.adaptation import check_fits_head
from metatrain.checkpoints.class_balance import ClassBalance
from metatrain.checkpoints.finetuning import Finetuned, finetuned, open_for
from metatrain.commands.effects import check_adaptation
from metatrain.commands.finetune_examples import Examples
from metatrain.config.schema import FinetuneConfig
from metatrain.errors import UserError
from metatrain.evaluation.held_out import interval
from metatrain.meta.learner import Learner
from metatrain.models.prediction_sets import FEWEST as ENOUGH  # held-out examples below which cross-validation chooses nothing
from metatrain.tracking.console import Display

_SIGNIFICANT = 0.05  # p value below which a difference is called significant


@dataclass(frozen=True)
class OpenedBase:
    """A base that has not adapted yet."""

    checkpoint: str
    learner: Learner
    lines: list[str]  # what opening it has to say


@dataclass(frozen=True)
class Candidate:
    """A base that has adapted to the examples."""

    checkpoint: str
    held_out: np.ndarray  # positions of the examples that were held out, sorted, [held out]
    correct: np.ndarray  # whether each of them is predicted correctly by a head that has not seen it, boolean, [held out]
    losses: np.ndarray  # log loss of each of them, [held out]
    tested: float | None  # accuracy on the test examples; None: there are none
    seconds: float  # adaptation time

    @property
    def log_loss(self) -> float:
        """Mean log loss of the held-out examples; NaN if there are none."""
        return float(self.losses.mean()) if len(self.losses) else float("nan")

    @property
    def accuracy(self) -> float | None:
        """Cross-validated accuracy; None: no example was held out."""
        return float(self.correct.mean()) if len(self.correct) else None

    def results(self) -> dict[str, Any]:
        """Return contents of results.json."""
        held_out: dict[str, Any] = {"examples": len(self.correct), "accuracy": self.accuracy, "log_loss": None}  # JSON has no NaN
        if len(self.correct):
            held_out["log_loss"] = self.log_loss
            held_out["ci95"] = interval(int(self.correct.sum()), len(self.correct))
        return {"checkpoint": self.checkpoint, "cross_validation": held_out, "test": self.tested, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Choice:
    """The chosen base, adapted."""

    config: FinetuneConfig  # with this base as its checkpoint
    learner: Learner
    adaptation: Finetuned
    results: dict[str, Any]  # contents of results.json


def bases_of(config: FinetuneConfig) -> list[str]:
    """Return the bases that `checkpoint=` names.

    Raises:
        UserError: the list is empty, a base occurs twice, or there are several for examples of another kind than one label.
    """
    checkpoint = config.checkpoint
    names = [str(each) for each in checkpoint] if isinstance(checkpoint, list | tuple) else [str(checkpoint)]
    if not names:
        raise UserError("checkpoint=[] names no base; give one, or a list of them: checkpoint=[everyday,minilm]")
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise UserError(f"checkpoint: {twice} is named twice; a base is compared with others")
    if len(names) > 1 and config.data.kind != "label":
        raise UserError(f"checkpoint: several bases are compared for examples with one label; data.kind={config.data.kind} takes one base")
    return names


def open_bases(config: FinetuneConfig, overrides: Sequence[str], examples: Examples, is_single: bool) -> list[OpenedBase]:
    """Open every base, before the run begins.

    Raises:
        UserError: one cannot be opened, cannot adapt to the examples, or fits no head, so that it has no cross-validation.
    """
    found = []
    for name in config.checkpoint:
        lines: list[str] = []
        learner = open_for(replace(config, checkpoint=name), examples.episode.task, examples.is_tested, lines.append)
        lines += check_adaptation(replace(config, checkpoint=name), overrides, learner, refuse=is_single)
        check_fits_head(f"checkpoint: {name} is compared with other bases by cross-validation, which", learner)
        found.append(OpenedBase(name, learner, lines))
    return found


def choose_base(config: FinetuneConfig, bases: list[OpenedBase], examples: Examples, balance: ClassBalance, display: Display) -> Choice:
    """Adapt each base to the examples, print one table, and return the one with the highest cross-validated accuracy; the first if the examples are too few.

    Bases are compared on the examples that all of them held out: one whose encoder adapts holds out fewer.
    """
    candidates: list[Candidate] = []
    adapted: dict[str, tuple[Learner, Finetuned]] = {}
    for base in bases:
        name, learner = base.checkpoint, base.learner
        for line in (f"base: {name}", *base.lines):
            display.say(line)
        adaptation = finetuned(learner, examples.episode, display, balance, examples.unlabelled)
        candidates.append(_candidate(name, learner, adaptation, examples, display))
        adapted[name] = learner, adaptation
    candidates = on_shared_examples(candidates)
    best = best_of(candidates)
    _show(candidates, best, display)
    why = reason(candidates, best)
    display.say(why)
    results = {"bases": [each.results() for each in candidates], "base": {"checkpoint": best.checkpoint, "why": why}}
    return Choice(replace(config, checkpoint=best.checkpoint), *adapted[best.checkpoint], results)


def on_shared_examples(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with only those held-out examples that all of them have."""
    shared = functools.reduce(np.intersect1d, [each.held_out for each in candidates])
    found = []
    for each in candidates:
        kept = np.isin(each.held_out, shared)
        found.append(replace(each, held_out=each.held_out[kept], correct=each.correct[kept], losses=each.losses[kept]))
    return found


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the highest cross-validated accuracy, of equal ones that with the lowest log loss; the first if too few are held out."""
    if min(len(each.correct) for each in candidates) < ENOUGH:
        return candidates[0]
    return max(candidates, key=lambda each: (each.accuracy, -each.log_loss))


def reason(candidates: Sequence[Candidate], best: Candidate) -> str:
    """Return why this candidate is used, as a line for the console."""
    held_out = min(len(each.correct) for each in candidates)
    if held_out < ENOUGH:
        return (
            f"{held_out} held-out examples are too few to choose a base by cross-validation, which needs {ENOUGH}: {best.checkpoint} is used, the first; "
            "name another one with checkpoint="
        )
    others = [each for each in candidates if each is not best]
    near = max(others, key=lambda each: (each.accuracy, -each.log_loss))
    found = f"{best.checkpoint} is used: it has the highest cross-validated accuracy"
    wins, losses = int((best.correct & ~near.correct).sum()), int((near.correct & ~best.correct).sum())
    chance = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    verdict = "significant" if chance < _SIGNIFICANT else "not significant"
    return (
        f"{found}; its difference to {near.checkpoint} on the same {len(best.correct)} examples is {verdict} (McNemar's exact test, p = {chance:.2f}), "
        "and the accuracy of the best of several bases is optimistic"
    )


def _candidate(name: str, learner: Learner, adaptation: Finetuned, examples: Examples, display: Display) -> Candidate:
    assert adaptation.fit is not None  # `open_bases` has refused others
    labels = torch.from_numpy(np.asarray(adaptation.texts.support_labels, dtype=np.int64))
    logits = adaptation.fit.held_out
    held_out, correct, losses = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool), np.zeros(0)
    if logits is not None:
        logits = logits[: len(labels)].double()
        is_judged = ~logits.isnan().any(1)
        held_out = is_judged.nonzero()[:, 0].numpy()
        correct = (logits[is_judged].argmax(1) == labels[is_judged]).numpy()
        losses = F.cross_entropy(logits[is_judged], labels[is_judged], reduction="none").numpy()
    tested = None
    if examples.is_tested:
        display.start("testing", len(adaptation.texts.query), brief=True)
        found = learner.query_logits(adaptation.parameters, adaptation.texts, lambda number: display.advance(by=number))
        display.stop()
        assert found is not None  # a fitted head has labels
        tested = float((found.argmax(1).cpu().numpy() == adaptation.texts.query_labels).mean())
    return Candidate(name, held_out, correct, losses, tested, adaptation.seconds)


def _show(candidates: Sequence[Candidate], best: Candidate, display: Display) -> None:
    table = Table(title="Bases", title_justify="left")
    is_tested = any(each.tested is not None for each in candidates)
    for column in ("base", "cross-validated accuracy", "95% interval", "log loss", *(["test accuracy"] if is_tested else []), "seconds"):
        table.add_column(column, justify="left" if column == "base" else "right")
    for each in candidates:
        cells = ["-", "-", "-"]
        if each.accuracy is not None:
            low, high = interval(int(each.correct.sum()), len(each.correct))
            cells = [f"{each.accuracy:.3f}", f"[{low:.3f}, {high:.3f}]", f"{each.log_loss:.3f}"]
        tested = [] if not is_tested else ["-" if each.tested is None else f"{each.tested:.3f}"]
        table.add_row(f"{each.checkpoint}{' (used)' if each is best else ''}", *cells, *tested, f"{each.seconds:.1f}")
    display.table(table)
