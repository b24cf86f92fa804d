"""Every packaged task distribution can be evaluated by a checkpoint that was trained on another."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, write_jsonl
from PIL import Image

from metatrain.cli import run

PACKAGED = sorted(path.stem for path in (ROOT / "conf" / "tasks").glob("*.yaml") if path.stem != "files" and not path.stem.startswith("universal"))
TEXT_TO_TEXT = ("multi30k", "text_to_text")
SMALL = [
    "debug=fast", "outer.steps=1", "evaluation.arms=[]", "hardware.threads=1", "model.max_length=32",
]  # fmt: skip
# Reading their tasks takes 5 to 20 seconds, or others have their form (clinc150_all_5, multi30k).
NIGHTLY = ("arsc", "clinc150", "clinc150_all_10", "clinc150_splits", "fdu_mtl", "news_to_reviews", "six_sets", "text_to_text")
SCRATCH = ["model.scratch.layers=1", "model.scratch.hidden=16", "model.scratch.heads=2", "model.scratch.vocabulary=300"]


def of_texts(folder: Path) -> list[str]:
    rows = [{"text": f"{area} number {n}", "label": f"l{n % 2}", "target": f"{n} {area}", "area": area} for area in "abcde" for n in range(12)]
    return [f"tasks.path={write_jsonl(folder / 'few.jsonl', rows)}", "tasks.task=area", "model=tiny"]


def of_targets(folder: Path) -> list[str]:
    model = ["model=scratch_t5", "model.max_target_length=8", "algorithm=fomaml", "algorithm.head=lm", "inner.steps=1"]
    return [*of_texts(folder)[:2], "tasks.target=target", "tasks.score=exact_match", *model, *SCRATCH]


def of_images(folder: Path) -> list[str]:
    draw_pictures(folder / "pictures", ["a", "b", "c", "d", "e"])
    return [f"tasks.path={folder}/pictures", "tasks.images=true", "model=scratch_vit", "algorithm=protonet", *SCRATCH]


def draw_pictures(folder: Path, tasks: list[str]) -> None:
    rng = np.random.default_rng(0)
    for place in (folder / task / label / f"{n}.png" for task in tasks for label in "xy" for n in range(6)):
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place)


def make_pairs(folder: Path, tasks: list[str]) -> None:
    folder.mkdir()
    for task in tasks:
        rows = [{"text": f"{task} {n}", "pair": f"{n} {task}", "label": ("the same", "different")[n % 2]} for n in range(12)]
        write_jsonl(folder / f"{task}.jsonl", rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a kind, trained on few rows made here."""
    made: dict[str, Path] = {}

    def checkpoint(kind) -> Path:
        if kind.__name__ not in made:
            folder = tmp_path_factory.mktemp(kind.__name__)
            assert run(["train", "tasks=files", *kind(folder), *SMALL, f"hydra.run.dir={folder}/run"]) == 0
            made[kind.__name__] = folder / "run"
        return made[kind.__name__]

    return checkpoint


def data_of(name: str, folder: Path) -> Path:
    """The folder that METATRAIN_DATA is to name: third-party data where it is on this machine, a few rows for what scripts/ make."""
    if name in MADE:
        MADE[name](folder / name, re.findall(r"\w+", " ".join(re.findall(r"tasks: \[(.*)\]", config(name)))))
        return folder
    root = Path(os.environ.get("METATRAIN_DATA", ROOT.parent / "shared" / "data"))
    for needed in set(re.findall(r"METATRAIN_DATA,data\}/(\w+)", config(name))):
        if not (root / needed).is_dir():
            pytest.skip(f"the data set {needed} is not on this machine (METATRAIN_DATA)")
    return root


MADE = {"alphabets": draw_pictures, "same_request": make_pairs}


def config(name: str) -> str:
    """The text of a distribution's file, with that of the one that it is made from."""
    text = (ROOT / "conf" / "tasks" / f"{name}.yaml").read_text()
    return text + "".join(config(base) for base in re.findall(r"^  - ([\w/]+)$", text, re.M) if base != "_self_")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in PACKAGED])
def test_a_checkpoint_of_other_tasks_is_evaluated(trained, cli, tmp_path, monkeypatch, name):
    monkeypatch.setenv("METATRAIN_DATA", str(data_of(name, tmp_path)))
    checkpoint = trained(of_images if name == "alphabets" else of_targets if name in TEXT_TO_TEXT else of_texts)
    settings = ["evaluation.episodes=1", "evaluation.shots=[1]", "evaluation.queries=1", "evaluation.arms=[meta_trained]", "report=false"]
    found = cli("evaluate", f"checkpoint={checkpoint}", f"tasks={name}", *settings, "hydra.run.dir=out")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    expected = re.findall(r"[\w-]+", (re.findall(r"tasks: \[(.*)\]", config(name).partition("meta_test:")[2]) or [""])[0])
    assert set(expected) <= set(results["protocol"]["tasks"])
