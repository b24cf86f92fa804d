"""Runs of a grid (`-m`): their directories, and tables over runs that differ only in their seed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

RUNS = "METATRAIN_GRID_RUNS"  # environment variable with the file to which each run of a grid adds its directory, from any process of a launcher


@contextmanager
def grid_runs(arguments: Sequence[str]) -> Iterator[list[Path]]:
    """Collect the directories of the runs that are started in the block; the list is filled at its end.

    arguments: command line. With a launcher, which may use other machines, the file is in the current directory, which they share.
    """
    found: list[Path] = []
    shared = any(argument.startswith("hydra/launcher=") for argument in arguments)
    with tempfile.TemporaryDirectory(prefix=".metatrain-grid-", dir=Path.cwd() if shared else None) as folder:
        os.environ[RUNS] = str(Path(folder) / "runs.jsonl")
        try:
            yield found
        finally:
            runs = Path(os.environ.pop(RUNS))
            if runs.exists():
                lines = runs.read_text(encoding="utf-8").splitlines()
                found += dict.fromkeys(Path(json.loads(line)) for line in lines)


def add_run(path: Path) -> None:
    """Add a run of this grid."""
    if RUNS in os.environ:
        with open(os.environ[RUNS], "a", encoding="utf-8") as runs:
            runs.write(json.dumps(str(path.resolve())) + "\n")


def show_seeds(paths: Sequence[Path]) -> None:
    """Show a table over seeds for each group of runs with results that differ only in their training seed."""
    from metatrain.commands.seed_tables import reading, same_but_for_seeds, seed_tables
    from metatrain.config.settings import leaves
    from metatrain.evaluation.over_seeds import Trainings
    from metatrain.report.record import read
    from metatrain.tracking.console import Display

    records = [record for path in paths if (record := read(path)).results]
    with Display() as display:
        for group in same_but_for_seeds([(record, dict(leaves(record.settings)), None) for record in records]):
            if len(group) < 2:
                continue
            trainings = Trainings(tuple(int(record.settings["seed"]) for record in group), tuple(record.results for record in group))
            if problem := trainings.problem():
                display.say(f"training seeds {', '.join(map(str, trainings.seeds))} cannot be combined: {problem}; set evaluation.seed=0")
                continue
            display.say(f"{group[0].settings.get('name', 'train')}, trained with {len(group)} seeds:")
            for table in seed_tables(trainings):
                display.table(table.drawn())
            for line in reading(trainings):
                display.say(line)
