"""Shared fixtures: the command line in this process or in one of its own, and small data."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before any library reads them: no test may wait for a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("WANDB_API_KEY", None)
os.environ["METATRAIN_CACHE"] = ""  # no test depends on what another, or the user, has left there
os.environ["METATRAIN_MODELS"] = str(Path(__file__).parent / "no_models")  # nor on models that scripts/data/ has made
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core beats two threads that wait for each other

ROOT = Path(__file__).parents[1]
pytest_plugins = ["faults.injection"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="run the tests marked nightly too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--nightly"):
        items[:] = [item for item in items if item.get_closest_marker("nightly") is None]


def pytest_collection_finish() -> None:
    gc.freeze()  # what has been imported lives as long as the tests, so no garbage collection needs to look at it


@pytest.fixture(scope="session", autouse=True)
def one_composition():
    """Hydra composes each configuration twice, the first time only for its setting `hydra.mode`; here it does so only where that is given."""
    from hydra._internal.hydra import Hydra

    before = Hydra.get_mode
    with pytest.MonkeyPatch.context() as patch:

        def get_mode(self, config_name, overrides):
            return before(self, config_name, overrides) if any(each.startswith("hydra.mode=") for each in overrides) else None

        patch.setattr(Hydra, "get_mode", get_mode)
        yield


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd) -> Callable[..., Outcome]:
    """Run `metatrain ARGUMENTS` in this process, in an empty directory."""
    from metatrain.cli import run

    monkeypatch.chdir(tmp_path)
    capfd.readouterr()

    def call(*arguments: str) -> Outcome:
        try:
            code = run(list(arguments))
        except SystemExit as stop:  # Hydra's own flags
            code = stop.code or 0
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def spawn(*arguments: str, cwd: Path, **options) -> subprocess.Popen:
    """Start `metatrain ARGUMENTS` as a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "metatrain", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run_once(folder: Path, *arguments: str) -> Path:
    """Run `metatrain ARGUMENTS` in this process, in a folder; return its run directory."""
    from metatrain.cli import run

    with contextlib.chdir(folder):
        assert run([*arguments, f"hydra.run.dir={folder / 'run'}"]) == 0
    return folder / "run"


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def one_thread():
    """Torch on one thread: tensors of small problems gain nothing from more."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


EXAMPLES = 'text,label\n"It broke, useless.",bad\n"Rattles, and the blade is loose.",bad\nBest tool I own.,good\nQuiet and strong.,good\n'


@pytest.fixture
def examples(tmp_path) -> Path:
    """A csv with four labelled texts."""
    path = tmp_path / "examples.csv"
    path.write_text(EXAMPLES)
    return path


@pytest.fixture
def three_files(tmp_path) -> tuple[Path, list[str]]:
    """A folder with three files of labelled texts, and the settings that train on two of them and test on the third."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b", "c"):
        rows = [f"{'nice' if number % 2 else 'bad'} {name} {number},{'good' if number % 2 else 'bad'}" for number in range(20)]
        (data / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return data, ["tasks=files", "tasks.path=data", "tasks.meta_test.tasks=[c]", "tasks.meta_train.tasks=[a,b]"]


@pytest.fixture(scope="module")
def encoder():
    """A small BERT in float64, with encodings of unit length, whose attention can be differentiated twice."""
    import torch

    from metatrain.models.config import ModelConfig
    from metatrain.models.encoder import load_encoder

    torch.manual_seed(0)
    return load_encoder(ModelConfig(name="tiny", normalize=True, max_length=16), second_order=True, dtype=torch.float64)[0]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A finished run of `metatrain train debug=fast validation.every=2`; not to be changed by tests."""
    return run_once(tmp_path_factory.mktemp("tiny"), "train", "debug=fast", "validation.every=2", "hardware.threads=1")
