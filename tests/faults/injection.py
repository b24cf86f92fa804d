"""What the fault injections share. METATRAIN_FAULTS=full makes as many as docs/reliability.md states, else there are few of each."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

FULL = os.environ.get("METATRAIN_FAULTS") == "full"
EVERY = 3  # meta-updates between checkpoints
STEPS = 14 if FULL else 8
SAVES = -(-STEPS // EVERY)
TRAIN = [
    "train", "debug=fast", "hardware.threads=1", "inner.steps=2", f"outer.steps={STEPS}", "validation.every=4", f"checkpoint.every={EVERY}",
    "algorithm.head=prototype", "evaluation.episodes=1", "evaluation.arms=[meta_trained,prototypes]", "tracking=none",
]  # fmt: skip


def count(few: int, full: int) -> int:
    """How many injections to make."""
    return full if FULL else few


def report(name: str, **figures) -> None:
    """Keep figures for docs/reliability.md, where METATRAIN_FAULTS_REPORT names a file for them."""
    if path := os.environ.get("METATRAIN_FAULTS_REPORT"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"test": name, **figures}) + "\n")


@dataclass
class Running:
    """A `metatrain` that was started."""

    zygote: subprocess.Popen
    pid: int
    output: Path
    has_ended: bool = False

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """(exit code, what it printed)."""
        code = int(self.zygote.stdout.readline())
        self.has_ended = True
        return code, self.output.read_text(errors="replace")


class Zygote:
    """Starts `metatrain` quickly; one at a time."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "METATRAIN_FAILPOINTS": "",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
        }
        command = [sys.executable, str(Path(__file__).parent / "zygote.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.running: Running | None = None
        assert self.process.stdout.readline() == "ready\n"

    def start(self, arguments: list[str], folder: Path, failpoints: str = "", **more) -> Running:
        self.end_running()
        output = folder / "output.txt"
        order = {"arguments": arguments, "folder": str(folder), "output": str(output), "failpoints": failpoints, **more}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.running = Running(self.process, int(self.process.stdout.readline()), output)
        return self.running

    def end_running(self) -> None:
        """Kill what a test that failed has left behind, perhaps stopped by SIGSTOP: the next test would wait for it forever."""
        if self.running is not None and not self.running.has_ended:
            self.running.send(signal.SIGKILL)
            self.running.wait()

    def run(self, arguments: list[str], folder: Path, failpoints: str = "", **more) -> tuple[int, str]:
        return self.start(arguments, folder, failpoints, **more).wait()


@pytest.fixture(scope="session")
def zygote():
    started = Zygote()
    yield started
    started.end_running()
    started.process.stdin.close()
    started.process.wait()


@dataclass
class Whole:
    """An uninterrupted run, and how long it takes."""

    path: Path
    seconds: float


@pytest.fixture(scope="session")
def whole(zygote, tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    code, output = zygote.run([*TRAIN, "hydra.run.dir=run"], folder)
    assert code == 0, output
    return Whole(folder / "run", time.monotonic() - begin)


def contents(run: Path) -> dict[str, bytes]:
    """All that a run leaves that does not name times."""
    files = [*(run / "checkpoints").rglob("*"), run / "metrics.jsonl", *(run / "model").rglob("*")]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(files) if path.is_file() and path.name != "README.md"}


def outcome(run: Path) -> dict[str, bytes]:
    """Of `contents`, all but checkpoints before the last: a run that was stopped has saved one there too."""
    return {name: content for name, content in contents(run).items() if not name.startswith("checkpoints") or f"step-{STEPS:08d}" in name}


def updates_done(run: Path) -> list[int]:
    """The meta-updates of all processes of a run, in the order in which they were done."""
    path = run / "timings.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith(b"\n")]


def resuming(run: Path) -> list[str]:
    """The command that resumes a run, or starts it if it has no configuration yet."""
    return ["resume", "run"] if (run / "config.yaml").exists() else [*TRAIN, "hydra.run.dir=run"]


def most_lost(steps: list[int]) -> int:
    """The most meta-updates that were done a second time after an interruption."""
    return max((before - after + 1 for before, after in zip(steps, steps[1:]) if after <= before), default=0)


@pytest.fixture
def rng(request) -> random.Random:
    return random.Random(request.node.name)


@pytest.fixture
def fresh(tmp_path):
    """Empty the run's directory."""

    def clear() -> Path:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return tmp_path / "run"

    return clear
