"""Trains, resumes, evaluates and finetunes in turn, in one process, for hours: does memory stay flat, is anything left behind?

python scripts/soak.py MINUTES [FILE]: a line for each turn goes to FILE (outputs/soak/turns.jsonl); the summary, with the slope of
memory after the first tenth of the time, to standard output and beside it as summary.json.
"""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["METATRAIN_CACHE"] = ""

from metatrain.cli import run  # noqa: E402  the environment comes first

ROOT = Path(__file__).parents[1]
EXAMPLES = 'text,label\n"It broke, useless.",bad\n"Rattles, and the blade is loose.",bad\nBest tool I own.,good\nQuiet and strong.,good\n'


def turn(folder: Path) -> None:
    """A run, two meta-updates more, an evaluation of it, and a finetuned model."""
    train = ["train", "debug=fast", "tracking=offline", "hardware.threads=1", f"hydra.run.dir={folder / 'run'}"]
    finetune = ["finetune", f"checkpoint={folder / 'run'}", f"data.train={folder / 'examples.csv'}", f"hydra.run.dir={folder / 'model'}"]
    evaluate = ["evaluate", f"checkpoint={folder / 'run'}", "evaluation.episodes=2", "evaluation.queries=5", f"hydra.run.dir={folder / 'evaluation'}"]
    (folder / "examples.csv").write_text(EXAMPLES)
    for arguments in (train, ["resume", str(folder / "run"), "outer.steps=5"], evaluate, finetune):
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = run(arguments)
        if code:
            raise SystemExit(f"{' '.join(arguments)} ended with {code}:\n{said.getvalue()}")


def standing() -> dict[str, float]:
    """What this process holds now."""
    gc.collect()
    own = Path("/proc/self")
    resident = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    children = [child for task in (own / "task").iterdir() for child in (task / "children").read_text().split()]
    return {
        "resident_mb": round(resident / 1e6, 2),
        "files": len(list((own / "fd").iterdir())),
        "threads": len(list((own / "task").iterdir())),
        "python_threads": threading.active_count(),
        "processes": len(children),
    }


def summary(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Slopes after the first tenth, by least squares."""
    late = [each for each in turns if each["minutes"] >= turns[-1]["minutes"] / 10]
    hours, numbers = np.array([each["minutes"] / 60 for each in late]), np.array([each["turn"] for each in late])
    memory = np.array([each["resident_mb"] for each in late])
    found = {"minutes": turns[-1]["minutes"], "turns": len(turns)}
    found["memory_mb_first"], found["memory_mb_last"] = float(memory[:5].mean()), float(memory[-5:].mean())
    found["memory_mb_per_hour"], found["memory_kb_per_turn"] = float(np.polyfit(hours, memory, 1)[0]), 1e3 * float(np.polyfit(numbers, memory, 1)[0])
    for name in ("files", "threads", "python_threads", "processes"):
        found[f"{name}_first"], found[f"{name}_last"] = late[0][name], late[-1][name]
    return {key: round(value, 1) if isinstance(value, float) else value for key, value in found.items()}


def main(minutes: float, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    begin = time.monotonic()
    turns: list[dict[str, Any]] = []
    while time.monotonic() - begin < 60 * minutes:
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        os.chdir(folder)
        turn(folder)
        os.chdir(ROOT)
        shutil.rmtree(folder)
        turns.append({"turn": len(turns) + 1, "minutes": round((time.monotonic() - begin) / 60, 2), **standing()})
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(turns[-1]) + "\n")
    found = summary(turns)
    path.with_name("summary.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "outputs" / "soak" / "turns.jsonl").resolve())
