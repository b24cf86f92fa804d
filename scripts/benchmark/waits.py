"""Time what people wait for, beside the least that it could take: python scripts/benchmark/waits.py --write

Each measurement is a process of its own; rows alternate, and the first round, which fills the file cache, is left out. Medians of the
wall-clock and processor seconds and of the peak memory. Several rows need all-MiniLM-L6-v2 (extra `offline`), the floors of encoding
sentence-transformers (extra `compare`). Rows that take minutes are measured only if they are named or with --all.

    python scripts/benchmark/waits.py --rows help tasks predict --rounds 1    # a few, once
    python scripts/benchmark/waits.py --all --write                           # every row, into docs/performance.md
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import astuple, dataclass
from pathlib import Path

from metatrain.report.sections import put_section
from metatrain.tasks.embedded import embedded_path

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
HEADING = "## Waiting times"
MANY = 20_000
WHERE = "from metatrain.models import minilm; print(minilm.resolve()[0])"
MODEL = "import torch; from transformers import AutoTokenizer, BertModel"
ENCODE = """
import csv, sys
from sentence_transformers import SentenceTransformer
rows = list(csv.DictReader(open(sys.argv[2], newline="", encoding="utf-8")))
vectors = SentenceTransformer(sys.argv[1], device="cpu").encode([row["text"] for row in rows])
"""
FIT = "from sklearn.linear_model import LogisticRegression\nLogisticRegression(C=10.0, max_iter=1000).fit(vectors, [row['label'] for row in rows])\n"


@dataclass(frozen=True)
class Row:
    """Something that people wait for."""

    what: str
    arguments: list[str]  # of metatrain
    floor: str  # Python code of the least that it could take
    of_floor: str  # what this code does
    data: str = ""  # file that the code reads
    until: str | None = None  # file that has grown when the wait is over; None: the end of the process
    copied: str | None = None  # directory that each measurement gets a fresh copy of, as `copy`
    takes_minutes: bool = False


PORT = 8421
IMPORTS = "import torch and the class of the model"
ROWS = {
    "help": Row("`metatrain --help`", ["--help"], "pass", "start Python"),
    "tasks": Row("`metatrain tasks`", ["tasks"], "import numpy, pyarrow, sklearn.feature_extraction.text", "import numpy, pyarrow and scikit-learn"),
    "predict": Row("`predict` of one text", ["predict", "model=tuned", "text=It arrived late and broken."], MODEL, IMPORTS),
    "predict_many": Row(
        f"`predict` of {MANY:,} texts", ["predict", "model=tuned", "data=many.csv", "output=labels.csv"], ENCODE, "encode them by sentence-transformers",
        data="many.csv", takes_minutes=True,
    ),
    "finetune": Row(
        "`finetune` of 2 classes x 8", ["finetune", "checkpoint=minilm", "data.train=2x8.csv", "report=false", "hydra.run.dir=copy"], ENCODE + FIT,
        "encode by sentence-transformers, fit by scikit-learn", data="2x8.csv",
    ),
    "finetune_77": Row(
        "`finetune` of 77 classes x 8", ["finetune", "checkpoint=minilm", "data.train=77x8.csv", "report=false", "hydra.run.dir=copy"], ENCODE + FIT,
        "encode by sentence-transformers, fit by scikit-learn", data="77x8.csv", takes_minutes=True,
    ),
    "evaluate": Row(
        "`evaluate` of a run, 10 episodes a task", ["evaluate", "checkpoint=trained", "evaluation.episodes=10", "report=false", "hydra.run.dir=copy"],
        MODEL, IMPORTS, takes_minutes=True,
    ),
    "first_update": Row("`train` until its first update", ["train", "tracking=none", "validation.every=0", "hydra.run.dir=copy"], MODEL, IMPORTS,
                        until="copy/timings.jsonl"),
    "resume": Row("`resume` until its next update", ["resume", "copy", "outer.steps=100000"], MODEL, IMPORTS, until="copy/timings.jsonl", copied="trained"),
    "serve": Row("`serve` until its first answer", ["serve", f"port={PORT}", "folder=served"], MODEL, IMPORTS, until=f"http://127.0.0.1:{PORT}/openapi.json"),
    "flagship": Row("`train +experiment=sentiment_fewshot`", ["train", "+experiment=sentiment_fewshot", "tracking=none", "hydra.run.dir=copy"], MODEL,
                    IMPORTS, takes_minutes=True),
}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One measurement."""

    seconds: float
    cpu: float  # processor seconds of the process and its children
    megabytes: float  # peak


def prepare(folder: Path, names: list[str]) -> None:
    """Write the data, and make the models, that these rows need."""
    texts = [json.loads(line)["text"] for line in embedded_path("metatrain:reviews").read_text(encoding="utf-8").splitlines()]
    for file, classes, number in (("2x8.csv", 2, 16), ("77x8.csv", 77, 616), ("many.csv", 2, MANY)):
        with (folder / file).open("w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(["text", "label"])
            rows.writerows([f"{texts[each % len(texts)]} {each // len(texts) or ''}".strip(), f"class {each % classes}"] for each in range(number))
    run = [sys.executable, "-m", "metatrain"]
    if any(name.startswith("predict") for name in names):
        subprocess.run([*run, "finetune", "data.train=2x8.csv", "report=false", "hydra.run.dir=tuned"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    if {"evaluate", "resume"} & set(names):
        settings = ["outer.steps=4", "outer.warmup=1", "validation.every=0", "evaluation.arms=[]", "report=false", "tracking=none", "hydra.run.dir=trained"]
        subprocess.run([*run, "train", *settings], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measure(command: list[str], folder: Path, until: str | None = None) -> Measured:
    """Run a command until what it is for is there, or to its end.

    until: name of a file that grows, or an address that answers; the command is then killed.

    Raises:
        RuntimeError: it has ended with an error, or before what it is for was there.
    """
    before, begin = _size(folder, until), time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    if until is not None:
        while process.returncode is None and _size(folder, until) <= before:
            time.sleep(0.01)
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                raise RuntimeError(f"{' '.join(command)} ended: {(folder / 'output.txt').read_text()[-500:]}")
        seconds = time.perf_counter() - begin
        process.kill()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if until is None:
        seconds = time.perf_counter() - begin
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {(folder / 'output.txt').read_text()[-500:]}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _size(folder: Path, until: str | None) -> int:
    """Return the size of a file, 0 if there is none; of an address 1 if it answers."""
    if until is not None and until.startswith("http"):
        try:
            with urllib.request.urlopen(until, timeout=1):
                return 1
        except OSError:
            return 0
    return (folder / until).stat().st_size if until is not None and (folder / until).exists() else 0


def measured(row: Row, folder: Path) -> tuple[Measured, Measured]:
    """Measure a row, and its floor."""
    shutil.rmtree(folder / "copy", ignore_errors=True)
    if row.copied is not None:
        shutil.copytree(folder / row.copied, folder / "copy")
    command = [sys.executable, "-m", "metatrain", *row.arguments]
    floor = [sys.executable, "-c", row.floor]
    if row.data:
        # A process of its own, as all that is large: a child begins with the peak memory of this one.
        floor += [subprocess.run([sys.executable, "-c", WHERE], capture_output=True, text=True, check=True).stdout.strip(), row.data]
    return measure(command, folder, row.until), measure(floor, folder)


def table(found: dict[str, list[tuple[Measured, Measured]]]) -> str:
    """Return the section of the page."""
    from metatrain.run import hardware  # imports torch, which is too large for what starts the measurements

    facts = hardware.describe()
    rounds = max(map(len, found.values()))
    lines = [
        HEADING,
        "",
        f"`python scripts/benchmark/waits.py --all --write`: {facts['processor']}, {len(os.sched_getaffinity(0))} cores, medians of {rounds}, with a warm",
        "file cache; CPU: of all processes; floor: the least that it could take with these libraries, as the last column says.",
        "",
        "| wait for | time (s) | CPU (s) | memory (MB) | floor: time (s) | CPU (s) | memory (MB) | time / floor | the floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, pairs in found.items():
        ours, theirs = (list(map(statistics.median, zip(*(astuple(pair[side]) for pair in pairs)))) for side in (0, 1))
        cells = [f"{seconds:.2f} | {processor:.2f} | {megabytes:,.0f}" for seconds, processor, megabytes in (ours, theirs)]
        lines.append(f"| {ROWS[name].what} | {' | '.join(cells)} | {ours[0] / theirs[0]:.2f} | {ROWS[name].of_floor} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="rows to measure, instead of those that take seconds")
    parser.add_argument("--all", action="store_true", help="measure those that take minutes too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write the table into docs/{PAGE.name}")
    given = parser.parse_args()
    names = given.rows or [name for name, row in ROWS.items() if given.all or not row.takes_minutes]
    found: dict[str, list[tuple[Measured, Measured]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, names)
        for number in range(given.rounds + 1):
            for name in names:
                pair = measured(ROWS[name], folder)
                if number:
                    found[name].append(pair)
                    print(f"{number} {name}: {pair[0].seconds:.2f} s, floor {pair[1].seconds:.2f} s", file=sys.stderr, flush=True)
    print(table(found))
    if given.write:
        put_section(PAGE, HEADING, table(found), below="## Start-up and data loading")


if __name__ == "__main__":
    main()
