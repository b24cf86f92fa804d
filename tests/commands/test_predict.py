"""Files of predictions: every row keeps its place, the ending decides the format, and nothing that is read is replaced."""

import csv
import gzip
import io
import json
import os
import weakref
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
import torch

from metatrain.commands.predict import Predictor, _parts
from metatrain.commands.prediction_files import output_for, write_predictions
from metatrain.errors import UserError
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import save_finetuned
from metatrain.models.targets import ONE_LABEL
from metatrain.tasks.files import Columns
from metatrain.tasks.unlabelled import Unlabelled, file_rows

ROWS = [("1", "it broke", "x"), ("2", "", "y"), ("3", "works, well", "z")]


@pytest.fixture
def model(tmp_path) -> str:
    """A classifier that was not trained."""
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)
    head = {"head.weight": torch.randn(2, encoder.hidden_size) / 20, "head.bias": torch.zeros(2)}
    (tmp_path / "m").mkdir()
    save_finetuned(tmp_path / "m", encoder, head, ["bad", "good"], columns={"text": "text"})
    return "model=m"


@pytest.fixture
def table(tmp_path) -> str:
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *ROWS])
    return "data=in.csv"


def test_a_row_that_cannot_be_read_has_an_empty_prediction_and_a_reason(cli, model, table):
    found = cli("predict", model, table)
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert found.code == 0 and [row["text"] for row in rows] == ["it broke", "", "works, well"]
    no_label = {"predicted_label": None, "probability": None, "reason": "in.csv:3: field 'text' is empty"}
    assert rows[1] == {"id": "2", "text": "", "label": "y", **no_label}
    assert rows[0].keys() == rows[2].keys() == {"id", "text", "label", "predicted_label", "probability"}
    assert "warning: 1 of 3 rows cannot be read and have no prediction; the first: in.csv:3: field 'text' is empty" in found.err


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.parquet", "out.xlsx", "out.jsonl"])
def test_the_ending_of_output_decides_its_format_and_tables_have_the_columns_of_the_input(cli, model, table, tmp_path, name):
    answers = [json.loads(line) for line in cli("predict", model, table).out.splitlines()]
    found = cli("predict", model, table, f"output={name}")
    assert found.code == 0 and f"3 predictions: {name}" in found.out, found.err
    rows = read(tmp_path / name)
    assert list(rows[1]) == ["id", "text", "label", "predicted_label", "probability", "reason"]
    for row, given, answer in zip(rows, ROWS, answers, strict=True):
        assert (row["id"], row["text"] or "", row["label"]) == given
        assert (row["predicted_label"] or None) == answer["predicted_label"]
        assert (float(row["probability"]) if row["probability"] else None) == answer["probability"]
    assert "field 'text' is empty" in rows[1]["reason"]


def read(path) -> list[dict]:
    if path.suffix == ".jsonl":
        return list(map(json.loads, path.read_text().splitlines()))
    if path.suffix == ".xlsx":
        header, *rows = pytest.importorskip("openpyxl").load_workbook(path).active.iter_rows(values_only=True)
        return [dict(zip(header, row)) for row in rows]
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(io.StringIO(content.decode()), delimiter="\t" if path.suffix == ".tsv" else ","))


def test_columns_of_a_parquet_file_keep_their_types(cli, model, tmp_path):
    rows = pyarrow.table({"n": [1, 2, None], "text": ["one", None, "two"], "tags": [["a"], [], None]})
    pyarrow.parquet.write_table(rows, tmp_path / "in.parquet")
    assert cli("predict", model, "data=in.parquet", "output=out.parquet").code == 0
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.select(["n", "text", "tags"]).equals(rows)
    assert found.column_names == ["n", "text", "tags", "label", "probability", "reason"]
    assert found["label"].to_pylist()[1] is None and "in.parquet:2" in found["reason"].to_pylist()[1]


def test_json_rows_of_different_keys_make_one_table(cli, model, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\nnot json\n{"text": "b", "n": 2, "more": {"k": "\\ud800"}}\n')
    assert cli("predict", model, "data=in.jsonl", "output=out.csv").code == 0
    first, second, third = read(tmp_path / "out.csv")
    assert (first["text"], first["n"], third["n"], json.loads(third["more"])) == ("a", "", "2", {"k": "?"})
    assert second["text"] == second["label"] == "" and second["reason"].startswith("in.jsonl:2: not valid JSON")


def test_a_file_of_which_no_row_can_be_read_is_refused(cli, model, tmp_path):
    (tmp_path / "in.csv").write_text("text,n\n,1\n,2\n")
    found = cli("predict", model, "data=in.csv", "output=out.csv")
    assert found.code == 2 and "in.csv:2: field 'text' is empty; no row of the file can be read" in found.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("place", ["in.csv", "./in.csv", "link.csv", "same.csv", "m/config.json"])
def test_what_is_read_is_never_replaced(cli, model, table, tmp_path, place):
    (tmp_path / "link.csv").symlink_to("in.csv")
    os.link(tmp_path / "in.csv", tmp_path / "same.csv")
    before = (tmp_path / place).read_bytes()
    found = cli("predict", model, table, f"output={place}")
    assert found.code == 2 and f"output={place} is an input file, which the predictions would overwrite; choose another file" in found.err
    assert (tmp_path / place).read_bytes() == before


def test_the_file_behind_a_pipe_is_not_replaced(cli, model, table, tmp_path, monkeypatch):
    with (tmp_path / "in.csv").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        found = cli("predict", model, "data=-", "output=in.csv")
    assert found.code == 2 and "output=in.csv is an input file" in found.err


def test_an_image_that_cannot_be_read_leaves_the_others_their_predictions(cli, model, table, monkeypatch):
    from metatrain.models.export import Classifier

    scores = Classifier.scores

    def refusing(self, texts):
        if any("works" in text for text in texts):
            raise UserError("cannot be read as an image")
        return scores(self, texts)

    monkeypatch.setattr(Classifier, "scores", refusing)
    rows = [json.loads(line) for line in cli("predict", model, table).out.splitlines()]
    assert [row.get("reason") for row in rows] == [None, "in.csv:3: field 'text' is empty", "cannot be read as an image"]


@pytest.mark.parametrize(("settings", "why"), [(["data=in.csv", "output=x.ods"], "written as .csv"), (["text=it broke", "output=x.csv"], "is for data=FILE")])
def test_an_output_that_would_not_be_what_it_says(cli, model, table, tmp_path, settings, why):
    found = cli("predict", model, *settings)
    assert found.code == 2 and why in found.err
    assert not list(tmp_path.glob("x.*"))


def test_values_of_several_parts_keep_their_numbers(cli, model, tmp_path):
    kept = '{"at": [1, 2.50, "3"], "ok": true, "of": {"é": null}}'
    (tmp_path / "in.jsonl").write_text(f'{{"text": "it broke", "more": {kept}}}\n')
    assert cli("predict", model, "data=in.jsonl", "output=out.csv").code == 0
    assert next(csv.DictReader((tmp_path / "out.csv").open()))["more"] == kept


def test_the_most_probable_labels(cli, model, table, tmp_path):
    full = cli("predict", model, "text=it broke").out.split()
    assert cli("predict", model, "text=it broke", "top=1").out.split() == full[:2]
    assert cli("predict", model, table, "output=out.csv", "top=2").code == 0
    first, second, _ = read(tmp_path / "out.csv")
    assert list(first)[3:] == ["predicted_label", "probability", "label_2", "probability_2", "reason"]
    assert [first["predicted_label"], first["label_2"]] == full[::2]
    assert float(first["probability"]) + float(first["probability_2"]) == pytest.approx(1, abs=1e-5)
    assert second["label_2"] == second["probability_2"] == ""


def test_a_probability_below_the_threshold_is_no_label(cli, model, table):
    sure = float(cli("predict", model, "text=it broke").out.split()[1])
    found = cli("predict", model, table, f"threshold={sure + 1e-4}")
    first = json.loads(found.out.splitlines()[0])
    assert first["predicted_label"] is None and first["probability"] == pytest.approx(sure, abs=1e-4)
    assert first["reason"].startswith("below threshold=") and f"with probability {sure:.4f}" in first["reason"]
    assert "rows have no label: the highest probability is below threshold=" in found.err
    assert cli("predict", model, "text=it broke", f"threshold={sure + 1e-4}").out.startswith("no label: below threshold=")
    assert cli("predict", model, "text=it broke", f"threshold={sure - 1e-4}").out.split()[1] == f"{sure:.4f}"


@pytest.mark.parametrize(
    ("setting", "why"), [("top=0", "top=0 must be 1 or more"), ("top=3", "top=3: the model has 2 labels: bad, good"), ("threshold=1.5", "at most 1")]
)
def test_choices_that_cannot_be(cli, model, table, setting, why):
    found = cli("predict", model, table, setting, "output=out.csv")
    assert found.code == 2 and why in found.err and len(found.err.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet", "out.xlsx"])
@pytest.mark.parametrize("given", ["csv", "parquet"])
def test_files_are_read_and_written_in_constant_memory(tmp_path, monkeypatch, name, given):
    """Rows that exist at a time are counted: never more than some parts of the file, whose length does not matter."""
    pytest.importorskip("openpyxl")
    monkeypatch.setattr("metatrain.commands.prediction_files._ROW_GROUP", 500)
    path, total = tmp_path / f"in.{given}", 6000
    columns = {"id": [str(number) for number in range(total)], "text": ["a text"] * total}
    if given == "csv":
        path.write_text("id,text\n" + "".join(f"{number},a text\n" for number in columns["id"]))
    else:
        pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=1000)
    model = SimpleNamespace(labels=["a", "b"], threshold=None, target=ONE_LABEL, scores=lambda texts: torch.zeros(len(texts), 2))
    alive, most = weakref.WeakSet(), 0

    def watched(rows):
        nonlocal most
        for row in rows:
            alive.add(row)
            most = max(most, len(alive))
            yield row

    rows = watched(file_rows(path, Columns("text"), []))
    monkeypatch.setattr(Unlabelled, "__hash__", object.__hash__)
    assert write_predictions(tmp_path / name, ["id", "text"], path, Predictor(model).all_predicted(_parts(rows), lambda number: None)) == total
    assert most <= 2000
    assert [row["id"] for row in read(tmp_path / name)] == columns["id"]


def test_a_text_that_looks_like_a_formula_is_a_text_in_a_workbook(cli, model, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    (tmp_path / "in.csv").write_text('id,text\n=1+1,=HYPERLINK(""x"")\n'.replace('""', "'"))
    assert cli("predict", model, "data=in.csv", "output=out.xlsx").code == 0
    cells = list(openpyxl.load_workbook(tmp_path / "out.xlsx").active.iter_rows())[1]
    assert [cell.data_type for cell in cells[:4]] == ["s", "s", "s", "n"]


def test_a_workbook_has_limits(cli, model, tmp_path):
    pytest.importorskip("openpyxl")
    (tmp_path / "in.csv").write_text("text\n" + "long " * 8000 + "\n")
    found = cli("predict", model, "data=in.csv", "output=out.xlsx")
    assert found.code == 2 and "out.xlsx: an Excel cell has at most 32,767 characters" in found.err
    assert not (tmp_path / "out.xlsx").exists() and not (tmp_path / ".out.xlsx.tmp").exists()
    with pytest.raises(UserError, match="an Excel sheet has at most 1,048,575 rows, and there are 2,000,000 predictions"):
        output_for(str(tmp_path / "out.xlsx"), [], rows=2_000_000)
