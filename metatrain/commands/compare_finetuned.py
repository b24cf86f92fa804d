"""`metatrain compare` of runs of finetune: the settings that differ, and their accuracy on the test file and in cross-validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metatrain.commands.seed_tables import Rows
from metatrain.config.settings import leaves
from metatrain.errors import UserError
from metatrain.report.record import Record

_NO_DIFFERENCE = ("name", "hardware", "report")  # settings that change no prediction


def compare(runs: Sequence[tuple[str, str, Record]], pages: Sequence[Path]) -> None:
    """Compare runs (letter, name, record).

    Raises:
        UserError: a run has not come to its end.
    """
    from rich.console import Console

    from metatrain.report.page import write_comparison

    for _, name, record in runs:
        if not record.results:
            raise UserError(f"{name} has no results.json: give a run of finetune that has ended")
    settings = {letter: dict(leaves(record.settings)) for letter, _, record in runs}
    keys = [key for key in dict.fromkeys(key for each in settings.values() for key in each) if key.split(".")[0] not in _NO_DIFFERENCE]
    different = [key for key in keys if len({str(each.get(key)) for each in settings.values()}) > 1]
    shown = [[key, *("null" if each.get(key) is None else str(each[key]) for each in settings.values())] for key in different]
    tables = [Rows("", ["setting", *settings], shown), Rows("", ["run", "examples", "score", "value", "95% interval"], list(_scores(runs)))]
    tests = {str(settings[letter].get("data.test")) for letter, _, record in runs if "test" in record.results}
    notes = [
        "of accuracies the interval is Wilson's, over the examples; two that overlap may still differ, since predictions of single examples are not compared",
        *(["the runs have different test files, so their held-out scores do not compare"] if len(tests) > 1 else []),
    ]
    console = Console(highlight=False, markup=False)
    for letter, name, _ in runs:
        console.print(f"{letter} = {name}", soft_wrap=True)
    if not shown:
        console.print("settings: the same")
    for table in tables if shown else tables[1:]:
        console.print(table.drawn())
    for note in notes:
        console.print(note, soft_wrap=True)
    for path in pages:
        names = [(letter, name) for letter, name, _ in runs]
        write_comparison({"title": f"{len(runs)} runs compared", "runs": names, "settings": tables[0], "scores": tables[1:], "notes": notes}, [], path)
        console.print(f"page: {path}", soft_wrap=True)


def _scores(runs: Sequence[tuple[str, str, Record]]) -> Iterator[list[str]]:
    """A row for each score of each run."""
    for letter, _, record in runs:
        results = record.results
        number = str(results["examples"])
        parts = {"held-out": results.get("test"), "cross-validated": results.get("cross_validation")}
        found = [(f"{kind} {name.replace('_', ' ')}", value, part["examples"]) for kind, part in parts.items() if part for name, value in _numbers(part)]
        for name, value, examples in found:
            yield [
                letter,
                number,
                name,
                f"{value:.3f} of {examples}",
                _wilson(value, examples) if name.endswith(" accuracy") and "balanced" not in name else "",
            ]
        if not found:
            yield [letter, number, "none: it had no test file, and nothing to cross-validate", "", ""]


def _numbers(part: dict[str, Any]) -> Iterator[tuple[str, float]]:
    yield from ((name, value) for name, value in part.items() if isinstance(value, float))


def _wilson(share: float, number: int, z: float = 1.96) -> str:
    """Wilson's 95% interval of a share of `number` examples."""
    middle, half = share + z * z / (2 * number), z * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    low, high = ((middle + sign * half) / (1 + z * z / number) for sign in (-1, 1))
    return f"[{low:.3f}, {high:.3f}]"
