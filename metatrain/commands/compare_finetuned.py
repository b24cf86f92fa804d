"""`metatrain compare` of runs of finetune: the settings that differ, and their accuracy on the test file and in cross-validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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
            raise UserError(f"{name} has no results.json; give a finished run of finetune")
    settings = {letter: dict(leaves(record.settings)) for letter, _, record in runs}
    keys = [key for key in dict.fromkeys(key for each in settings.values() for key in each) if key.split(".")[0] not in _NO_DIFFERENCE]
    different = [key for key in keys if len({str(each.get(key)) for each in settings.values()}) > 1]
    shown = [[key, *("null" if each.get(key) is None else str(each[key]) for each in settings.values())] for key in different]
    tables = [Rows("", ["setting", *settings], shown), Rows("", ["run", "examples", "score", "value", "95% interval"], list(_scores(runs)))]
    tests = {str(settings[letter].get("data.test")) for letter, _, record in runs if "test" in record.results}
    notes = [
        "intervals are over test examples; scores with overlapping intervals can still differ, because the comparison is not paired",
        *(["the runs have different test files, so their held-out scores are not comparable"] if len(tests) > 1 else []),
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
    """A row for each score of each run; an accuracy has the interval that the run recorded."""
    for letter, _, record in runs:
        number, parts = str(record.results["examples"]), {"held-out": record.results.get("test"), "cross-validated": record.results.get("cross_validation")}
        scores = [(kind, part, name, value) for kind, part in parts.items() if part for name, value in part.items() if isinstance(value, float)]
        for kind, part, name, value in scores:
            bounds = part.get("ci95", []) if name == "accuracy" else []
            shown = f"[{', '.join(f'{bound:.3f}' for bound in bounds)}]" if bounds else ""
            yield [letter, number, f"{kind} {name.replace('_', ' ')}", f"{value:.3f} of {part['examples']}", shown]
        if not scores:
            yield [letter, number, "none: no test file and no cross-validation", "", ""]
