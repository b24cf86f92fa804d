"""`metatrain score`: the predictions of `predict` compared with labels, as JSON and as a page."""

import csv
import json

import pytest
import torch
from conftest import write_jsonl

from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import save_finetuned

ROWS = [(f"{word} number {number}", label) for number in range(6) for word, label in (("awful", "bad"), ("lovely", "good"), ("so so", "fair"))]


def save(folder, threshold=None) -> str:
    """Write a classifier that was not trained; returns model=FOLDER."""
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)
    head = {"head.weight": torch.randn(3, encoder.hidden_size) / 10, "head.bias": torch.zeros(3)}
    folder.mkdir()
    save_finetuned(folder, encoder, head, ["bad", "fair", "good"], threshold, columns={"text": "body"})
    return f"model={folder.name}"


@pytest.fixture
def model(tmp_path) -> str:
    return save(tmp_path / "m")


@pytest.fixture
def labelled(tmp_path) -> str:
    with (tmp_path / "labelled.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("body", "label"), *ROWS])
    return "data=labelled.csv"


def test_the_scores_are_those_of_the_predictions(cli, model, labelled, tmp_path):
    found = cli("score", model, labelled, "hydra.run.dir=scores")
    assert found.code == 0, found.err
    predictions = [json.loads(line) for line in cli("predict", model, labelled).out.splitlines()]
    is_correct = [row["label"] == row["predicted_label"] for row in predictions]
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["test"]["accuracy"] == sum(is_correct) / len(ROWS) and results["test"]["examples"] == len(ROWS)
    assert f"accuracy: {results['test']['accuracy']:.3f}, 95% interval" in found.out and "calibration error" in found.out
    wrong = [row["probability"] for row, each in zip(predictions, is_correct) if not each]
    assert [each["probability"] for each in results["errors"]] == pytest.approx(sorted(wrong, reverse=True), abs=1e-6)
    lines = (tmp_path / "labelled.csv").read_text().splitlines()
    for each in results["errors"]:
        file, line = each["place"].split(":")
        assert file == "labelled.csv" and lines[int(line) - 1] == f"{each['text']},{each['label']}"
    assert sum(count for *_, count in results["confusion"]) == len(ROWS)
    assert {each["label"] for each in results["classes"]} <= {"bad", "fair", "good"}
    page = (tmp_path / "scores" / "report.html").read_text()
    for part in ("Scores by class", "Confusion matrix", "Calibration", "macro F1", "labelled.csv:", "metatrain score model.path=m data=labelled.csv"):
        assert part in page, part
    assert cli("report", "scores", "out=again.html").code == 0 and "Scores by class" in (tmp_path / "again.html").read_text()
    assert f"on {len(ROWS)} examples" in cli("ls", "runs").out


def test_unknown_labels_are_out_of_scope_where_the_model_detects_that(cli, model, tmp_path):
    write_jsonl(tmp_path / "odd.jsonl", [{"body": "awful", "label": "bad"}, {"body": "1 2 3", "label": "odd"}])
    refused = cli("score", model, "data=odd.jsonl", "hydra.run.dir=scores")
    assert refused.code == 2 and "odd.jsonl:2: label 'odd' is not a label of the model; its labels are bad, fair, good" in refused.err
    assert not (tmp_path / "scores" / "results.json").exists()
    found = cli("score", save(tmp_path / "detects", threshold=1e9), "data=odd.jsonl", "hydra.run.dir=scores", "report=false")
    assert found.code == 0 and "1 rows have labels that the model does not know ('odd'); they count as out of scope" in found.out, found.err
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["test"]["accuracy"] == 0.5 and results["confusion"] == [["bad", "none_of_these", 1], ["none_of_these", "none_of_these", 1]]
    assert "calibration_error" not in results["test"]  # no prediction is a label
    assert not (tmp_path / "scores" / "report.html").exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ([], "data is not set"),
        (["data=nowhere.csv"], "nowhere.csv: no such file"),
        (["data=labelled.csv", "label=mood"], "no column 'mood'"),
        (["data=empty.csv"], "empty.csv: the file has no rows"),
        (["data=labelled.csv", "model.path=."], "model=.: not a model directory"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(cli, model, labelled, tmp_path, settings, why):
    (tmp_path / "empty.csv").write_text("body,label\n")
    found = cli("score", *([] if "model.path=." in settings else [model]), *settings, "hydra.run.dir=scores")
    assert found.code == 2 and why in found.err and len(found.err.strip().splitlines()) == 1, found.err
    assert not [path for path in tmp_path.glob("scores/*")]
