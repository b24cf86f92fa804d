"""Runs of `train` on multi-label tasks: a stopped and resumed run has the bits of an uninterrupted one, and its score is called micro F1."""

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from metatrain.report.charts import of_accuracies, of_validation
from metatrain.report.record import read
from metatrain.run import failpoints

LABELS = ("food", "service", "place")
TRAIN = [
    "train", "debug=fast", "tasks=files", "tasks.path=data", "tasks.label_columns=[food,service,place]", "tasks.meta_train.tasks=[a,b]",
    "tasks.meta_validation.tasks=[c]", "tasks.meta_test.tasks=[d]", "episode.shots=2", "episode.queries=2", "outer.steps=4", "outer.meta_batch=2",
    "validation.every=2", "validation.episodes=1", "evaluation.episodes=1", "evaluation.queries=2", "checkpoint.every=1", "hardware.threads=1",
    "algorithm.head=prototype",
]  # fmt: skip


@pytest.fixture
def tables(cli, tmp_path) -> Path:
    """Four tables with a column of 1 and 0 for each label."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate("abcd"):
        has = np.random.default_rng(number).random((40, len(LABELS))) < 0.4
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", *LABELS])
            rows.writerows([f"{name}{row} {' '.join(label for label, it in zip(LABELS, each) if it)}", *map(int, each)] for row, each in enumerate(has))
    return folder


def test_a_stopped_run_resumes_to_the_same_bits_and_names_its_score(cli, tables, monkeypatch):
    whole = cli(*TRAIN, "report=true", "hydra.run.dir=whole")
    assert whole.code == 0, whole.err
    with monkeypatch.context() as patched:
        patched.setattr("metatrain.training.trainer.failpoint", _stop_at("update", 3))
        assert cli(*TRAIN, "evaluation.arms=[]", "report=false", "hydra.run.dir=parts").code == 128 + signal.SIGTERM
    steps = [record["step"] for record in map(json.loads, Path("parts/metrics.jsonl").read_text().splitlines()) if record["split"] == "meta_train"]
    assert steps == [1, 2, 3]
    assert cli("resume", "parts").code == 0
    for file in ("model/model.safetensors", "model/adaptation.safetensors", "metrics.jsonl", "checkpoints/step-00000004/model.safetensors"):
        assert Path("parts", file).read_bytes() == Path("whole", file).read_bytes(), file

    log = Path("whole/run.log").read_text()
    assert "progress shows query loss and micro F1 before → after adaptation" in log and "step 4: validation micro F1 0." in log
    assert "; support loss" in log and ", micro F1 " in log and "query micro F1" in log and "points of micro F1" in log
    assert "accuracy" not in log.replace("subset accuracy", "") and "data.kind=labels" in log.splitlines()[-1]
    assert "Meta-training micro F1" in Path("whole/report.html").read_text()
    record = read(Path("whole"))
    assert record.facts["scores"] == {"meta_train": "micro_f1", "meta_validation": "micro_f1"}
    assert of_accuracies(record).title == "Meta-training micro F1" and of_validation(record).columns[1] == "micro F1"
    assert {"accuracy", "accuracy_with_shuffled_labels"} <= record.of_split("meta_validation")[0].keys()


def _stop_at(place: str, passing: int):
    """Return a failpoint that sends SIGTERM at one of the passes of a place."""
    passed = 0

    def failpoint(name: str) -> None:
        nonlocal passed
        passed += name == place
        if name == place and passed == passing:
            signal.raise_signal(signal.SIGTERM)

    assert place in failpoints.NAMES
    return failpoint
