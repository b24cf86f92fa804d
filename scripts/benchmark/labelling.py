"""Measure `metatrain check` and `metatrain suggest`: python scripts/benchmark/labelling.py check|suggest|language SET ... [--draws 3]

Each SET is a folder of METATRAIN_DATA with train.jsonl and test.jsonl, or one file (fields text, text_pair, label), of which 500 and 400 rows are
read. Texts are encoded by MiniLM (`checkpoint=minilm`), one thread.

check: 300 training rows, 10% of their labels changed to another class at random, 5% of the texts replaced by ones of another set (of no class).
language: tokens per word, from which `finetune` tells that texts are in another language.
suggest: 500 unlabelled training rows; from 10 labels at random, five rounds of 10, chosen by `metatrain suggest` or at random from the same start.

Prints the tables of docs/labelling.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from metatrain.commands.labelling import open_head
from metatrain.evaluation.held_out_head import held_out, predicted
from metatrain.evaluation.label_check import far_texts, wrong_labels
from metatrain.evaluation.suggestion import choose
from metatrain.meta.progress import Silent
from metatrain.run.config import HardwareConfig
from metatrain.tasks.files import Table
from metatrain.tasks.texts import PAIR
from metatrain.tasks.tokens_per_word import tokens_per_word

ROWS, FLIPPED, FOREIGN = 300, 0.1, 0.05  # of `check`
POOL, TEST, ROUNDS, PER_ROUND = 500, 400, 5, 10  # of `suggest`


@dataclass(frozen=True)
class Rows:
    """Labelled texts of a set."""

    texts: list[str]
    labels: list[str]

    def drawn(self, rng: np.random.Generator, number: int) -> Rows:
        return self.at(rng.permutation(len(self.texts))[:number])

    def at(self, rows: Sequence[int] | np.ndarray) -> Rows:
        return Rows([self.texts[row] for row in rows], [self.labels[row] for row in rows])


def read(name: str, pool: int = POOL, test: int = TEST) -> tuple[Rows, Rows]:
    """Return `pool` training rows and `test` test rows, or as many as there are, drawn at random; those of a set without a test file come from all rows."""
    folder = Path(os.environ.get("METATRAIN_DATA", "data")) / name
    rng, files = np.random.default_rng(0), sorted(folder.glob("*.jsonl*"))
    of_part = {part: path for path in files for part in ("train", "test") if path.name.startswith(part)}
    if len(of_part) == 2:
        return _rows(of_part["train"]).drawn(rng, pool), _rows(of_part["test"]).drawn(rng, test)
    rows = _rows(files[0]).drawn(rng, pool + test)
    pool = min(pool, len(rows.texts) // 2)
    return rows.at(range(pool)), rows.at(range(pool, min(len(rows.texts), pool + test)))


def _rows(path: Path) -> Rows:
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return Rows([PAIR.join(filter(None, (row["text"], row.get("text_pair")))) for row in rows], [row["label"] for row in rows])


def caching_learner() -> Any:
    """Return MiniLM with a head that is fitted, which encodes each text once."""
    table = Table("data", ["a", "b"], ["a", "b"], ["data"] * 2)
    return caching(open_head("minilm", table, HardwareConfig(threads=1), 0, lambda line: None))


def caching(learner: Any) -> Any:
    """Return a learner of a frozen encoder with a cache of its encodings."""
    return learner.with_functional(learner.functional.caching(learner.initial))


def check(learner: Any, sets: dict[str, tuple[Rows, Rows]], draws: int) -> None:
    """Print precision and recall of wrong labels and of texts of no class."""
    print("| data set | classes | predicted correctly | labels flagged | precision | recall | of the lowest 10% | no class: flagged | precision | recall |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, (train, _) in sets.items():
        others = [text for other, (rows, _) in sets.items() if other != name for text in rows.texts[:100]]
        found = np.array([_checked(learner, train, others, np.random.default_rng(draw)) for draw in range(draws)])
        accuracy, flagged, hits, lowest, far, far_hits = found.sum(0)
        wrong, foreign, number = draws * FLIPPED * ROWS, draws * FOREIGN * ROWS, draws * ROWS
        shares = (
            accuracy / draws,
            flagged / number,
            hits / max(flagged, 1),
            hits / wrong,
            lowest / wrong,
            far / number,
            far_hits / max(far, 1),
            far_hits / foreign,
        )
        print(f"| {name} | {len(set(train.labels))} | {' | '.join(f'{100 * share:.0f}%' for share in shares)} |", flush=True)


def _checked(learner: Any, train: Rows, others: list[str], rng: np.random.Generator) -> tuple[float, ...]:
    """Return the figures of one draw: accuracy before labels are changed, and counts."""
    rows = train.drawn(rng, ROWS)
    names, before = np.unique(rows.labels, return_inverse=True)
    flipped, foreign = np.split(rng.permutation(ROWS)[: int((FLIPPED + FOREIGN) * ROWS)], [int(FLIPPED * ROWS)])
    labels, texts = before.copy(), list(rows.texts)
    labels[flipped] = (labels[flipped] + rng.integers(1, len(names), len(flipped))) % len(names)
    for row, text in zip(foreign, rng.choice(np.array(others, dtype=object), len(foreign), replace=False)):
        texts[row] = text
    found = held_out(learner, texts, names[labels].tolist(), 0, Silent())
    suggested = np.array(found.names)[np.nan_to_num(found.probabilities).argmax(1)]
    own = np.setdiff1d(np.arange(ROWS), foreign)
    wrong, far, of_label = wrong_labels(found), far_texts(found.encodings), np.nan_to_num(found.probabilities[np.arange(ROWS), found.labels], nan=1.0)
    lowest = own[np.argsort(of_label[own], kind="stable")[: len(flipped)]]
    accuracy = float((suggested == names[before])[own].mean())
    return accuracy, wrong[own].sum(), wrong[flipped].sum(), np.isin(lowest, flipped).sum(), far.sum(), far[foreign].sum()


def suggest(learner: Any, sets: dict[str, tuple[Rows, Rows]], draws: int) -> None:
    """Print the accuracy after five rounds, beside random choice."""
    print(f"| data set | classes | 10 labels | {PER_ROUND * (ROUNDS + 1)}, at random | {PER_ROUND * (ROUNDS + 1)}, suggested | difference, 95% interval |")
    print("|---|---|---|---|---|---|")
    differences = []
    for name, (train, test) in sets.items():
        found = np.array([_rounds(learner, train, test, draw) for draw in range(draws)])  # [draws, 3]
        difference = found[:, 2] - found[:, 1]
        differences.append(difference)
        shown = " | ".join(f"{100 * value:.1f}%" for value in found.mean(0))
        print(f"| {name} | {len(set(train.labels))} | {shown} | {_interval(difference)} |", flush=True)
    print(f"| mean of {len(sets)} data sets | | | | | {_interval(np.mean(differences, axis=0))} |")


def half_width(values: np.ndarray) -> float:
    """Return half the width of the 95% t interval of a mean over draws."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def _interval(values: np.ndarray) -> str:
    """Return mean and 95% t interval over draws, as text, in percentage points."""
    half = half_width(values)
    return f"{100 * values.mean():+.1f} [{100 * (values.mean() - half):+.1f}, {100 * (values.mean() + half):+.1f}]"


def _rounds(learner: Any, train: Rows, test: Rows, draw: int) -> tuple[float, float, float]:
    """Return the accuracy on test rows with the first labels, after rounds at random, and after suggested rounds."""
    pool, asked = train, test
    order = np.random.default_rng([draw, 1]).permutation(len(pool.texts))
    first = next(number for number in range(PER_ROUND, len(order)) if len({pool.labels[row] for row in order[:number]}) > 1)
    begin, chosen = _accuracy(learner, pool.at(order[:first]), asked), order[:first].tolist()
    for number in range(ROUNDS):
        rest = np.setdiff1d(np.arange(len(pool.texts)), chosen)
        so_far = pool.at(chosen)
        probabilities, encodings = predicted(learner, so_far.texts, so_far.labels, pool.at(rest).texts, draw, Silent())
        chosen += rest[choose(encodings, probabilities, PER_ROUND, number)[:PER_ROUND]].tolist()
    at_random = pool.at(order[: first + ROUNDS * PER_ROUND])
    return begin, _accuracy(learner, at_random, asked), _accuracy(learner, pool.at(chosen), asked)


def _accuracy(learner: Any, examples: Rows, asked: Rows) -> float:
    probabilities, _ = predicted(learner, examples.texts, examples.labels, asked.texts, 0, Silent())
    return float(np.mean(np.array(sorted(set(examples.labels)))[probabilities.argmax(1)] == np.array(asked.labels)))


def language(learner: Any, sets: dict[str, tuple[Rows, Rows]], draws: int) -> None:
    """Print tokens per word and the share of unknown tokens."""
    for name, (train, _) in sets.items():
        per_word, unknown = tokens_per_word(learner.model.tokens().tokenizer, train.texts)
        print(f"{name}: {per_word:.2f} tokens per word, {unknown:.1%} unknown")


MEASURES = {"check": check, "suggest": suggest, "language": language}


Measure = Callable[[Any, dict[str, tuple[Rows, Rows]], int], None]  # of a learner, sets by name, and a number of draws


def run(measures: Mapping[str, Measure], read_set: Callable[[str], tuple[Rows, Rows]], draws: int) -> None:
    """Run one of the measures on the sets that the command line names; draws: the default of --draws."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=measures)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--draws", type=int, default=draws)
    arguments = parser.parse_args()
    measures[arguments.measure](caching_learner(), {name: read_set(name) for name in arguments.sets}, arguments.draws)


if __name__ == "__main__":
    run(MEASURES, read, draws=3)
