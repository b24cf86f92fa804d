"""Several labels per text, and numbers: from examples to a model, its predictions and its scores."""

import csv
import json

import pyarrow.parquet
import pytest

import metatrain
from metatrain.errors import UserError

WORDS = {"food": ["soup", "fish", "bread"], "service": ["waiter", "staff", "bill"], "place": ["park", "street", "view"]}
STARS = ["awful", "poor", "okay", "good", "great"]


def label_rows(number: int) -> list[tuple[str, str]]:
    names = list(WORDS)
    rows = []
    for place in range(number):
        labels = [name for bit, name in enumerate(names) if place >> bit & 1]
        text = " and ".join(WORDS[name][place % 3] for name in labels) or "nothing"
        rows.append((f"{text} {place}", ";".join(labels)))
    return rows


def write(path, columns, rows) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def several(cli, tmp_path):
    write(tmp_path / "tags.csv", ("text", "tags"), label_rows(40))
    write(tmp_path / "held_out.csv", ("text", "tags"), [(f"the {text}", labels) for text, labels in label_rows(8)])
    settings = ["data.kind=labels", "data.label=tags", "data.label_separator=';'", "hardware.threads=1"]
    found = cli("finetune", "checkpoint=tiny", "data.train=tags.csv", "data.test=held_out.csv", *settings, "hydra.run.dir=run")
    assert found.code == 0, found.err
    return found


@pytest.mark.slow
def test_several_labels_from_examples_to_scores(cli, several, tmp_path):
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["labels"] == ["food", "place", "service"] and set(results["thresholds"]) == set(WORDS) and results["test"]["held_out"]
    assert results["cross_validation"]["examples"] == 40 and results["test"]["examples"] == 8
    assert f"held-out: micro F1 {results['test']['micro_f1']:.3f}, macro F1" in several.out and "labels have their own" in several.out
    page, card = (tmp_path / "run" / "report.html").read_text(), (tmp_path / "run" / "model" / "README.md").read_text()
    assert "held-out micro F1" in page and "Scores by class" in page and "held-out subset accuracy" in card
    facts = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert facts["id2label"] == {"0": "food", "1": "place", "2": "service"}

    model = metatrain.load(tmp_path / "run")
    texts = [f"the {text}" for text, _ in label_rows(8)]
    predicted, probabilities = model.predict(texts), model.probabilities(texts)
    thresholds = [results["thresholds"][name] for name in model.labels]
    above = [{name for name, value, cut in zip(model.labels, row, thresholds) if value >= cut} for row in probabilities]
    assert [set(labels) for labels in predicted] == above
    assert model.predict(texts, threshold=1e-9) == [sorted(model.labels, key=lambda name: -row[model.labels.index(name)]) for row in probabilities]

    for name in ("out.csv", "out.jsonl", "out.parquet"):
        found = cli("predict", "model=run", "data=held_out.csv", f"output={name}")
        assert found.code == 0, found.err
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    for place, labels in enumerate(predicted):
        assert rows[place]["labels"] == ";".join(labels) and lines[place]["labels"] == labels and table[place]["labels"] == labels
        assert table[place]["probability_food"] == lines[place]["probability_food"] == pytest.approx(probabilities[place, 0], abs=1e-6)
    shown = cli("predict", "model=run", "text=the waiter and the soup", "top=1", "threshold=0.0001")
    assert [line.split("\t")[2] for line in shown.out.splitlines()] == ["yes", "no", "no"]

    scored = cli("score", "model=run", "data=held_out.csv", "hydra.run.dir=scores")
    assert scored.code == 0, scored.err
    scores = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert {key: results["test"][key] for key in scores["test"]} == scores["test"] and "all labels: micro F1" in scored.out
    write(tmp_path / "odd.csv", ("text", "tags"), [("a", "food;odd")])
    refused = cli("score", "model=run", "data=odd.csv", "hydra.run.dir=other")
    assert refused.code == 2 and "odd.csv:2: label 'odd' is not a label of the model; its labels are food, place, service" in refused.err
    refused = cli("suggest", "model=run", "data=held_out.csv")
    assert refused.code == 2 and "metatrain suggest needs a model with one label per text, and this one has data.kind=labels" in refused.err
    assert "micro F1" in cli("ls", "runs").out


@pytest.mark.slow
def test_ordered_labels_from_examples_to_scores(cli, tmp_path):
    rows = [(f"{STARS[place % 5]} thing {place}", STARS[place % 5]) for place in range(40)]
    write(tmp_path / "levels.csv", ("text", "level"), rows[:30])
    write(tmp_path / "held_out.csv", ("text", "level"), rows[30:])
    settings = ["data.kind=number", f"data.order=[{','.join(STARS)}]", "data.label=level", "hardware.threads=1"]
    found = cli("finetune", "checkpoint=tiny", "data.train=levels.csv", "data.test=held_out.csv", *settings, "hydra.run.dir=run")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    test = results["test"]
    assert test["mean_absolute_error"] < test["median_error"] == 1.2 and test["spearman"] > 0.5 and "accuracy" in test and results["labels"] is None
    assert f"held-out mean absolute error: {test['mean_absolute_error']:.3f}" in found.out and "median of the examples (3)" in found.out
    assert "held-out mean absolute error" in (tmp_path / "run" / "report.html").read_text()

    model = metatrain.load(tmp_path / "run")
    numbers = model.predict([text for text, _ in rows[30:]])
    assert all(1 <= number <= 5 for number in numbers) and model.labels is None
    for use in (lambda: model.predict(["a"], threshold=0.5), lambda: model.probabilities(["a"])):
        with pytest.raises(UserError, match="this model predicts numbers, which have no probability"):
            use()
    assert cli("predict", "model=run", "data=held_out.csv", "output=out.csv").code == 0
    with (tmp_path / "out.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert [float(row["number"]) for row in predicted] == pytest.approx(numbers, abs=1e-4)
    assert [row["label"] for row in predicted] == [STARS[int(number + 0.5) - 1] for number in numbers]
    refused = cli("predict", "model=run", "text=a", "top=2")
    assert refused.code == 2 and "this model predicts numbers, which have no probability; leave out top and threshold" in refused.err
    scored = cli("score", "model=run", "data=held_out.csv", "hydra.run.dir=scores")
    assert scored.code == 0, scored.err
    scores = json.loads((tmp_path / "scores" / "results.json").read_text())["test"]
    assert scores == {key: pytest.approx(test[key]) for key in scores} and "mean absolute error: " in scored.out


def test_decimal_commas_are_read_and_said(cli, tmp_path):
    """A comma that may separate thousands is refused."""
    values = [place % 5 + 0.5 for place in range(30)]
    lines = [f"{STARS[place % 5]} thing {place};{str(value).replace('.', ',')}" for place, value in enumerate(values)]
    (tmp_path / "comma.csv").write_text("\n".join(["text;value", *lines]) + "\n")
    settings = ["checkpoint=tiny", "data.kind=number", "hardware.threads=1", "report=false"]
    found = cli("finetune", "data.train=comma.csv", "data.label=value", *settings, "hydra.run.dir=run")
    assert found.code == 0 and "comma.csv: numbers such as '0,5' are read with a decimal comma" in found.out, found.err
    assert "30 examples with numbers from 0.5 to 4.5" in found.out and json.loads((tmp_path / "run" / "results.json").read_text())["median"] == 2.5
    ambiguous, mixed = "the comma of '1,234' may separate decimals or thousands; write 1.234 or 1234", "label '1,5' is not a number"
    for values, why in ((("1,234", "2,500"), ambiguous), (("1,5", "2.5"), mixed)):
        write(tmp_path / "odd.csv", ("text", "value"), list(zip(("a", "b"), values)))
        found = cli("finetune", "data.train=odd.csv", "data.label=value", *settings, "hydra.run.dir=odd")
        assert found.code == 2 and f"odd.csv:2: {why}" in found.err, found.err


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["data.kind=stars"], "data.kind=stars is unknown; choose one of label, labels, number"),
        (["data.label_separator=';'"], "data.label_separator has no effect: data.kind=label; set data.kind=labels"),
        (["data.kind=labels", "data.label=tags", "data.label_separator='|'"], "tags.csv: the separator '|' occurs in no row of column 'tags'"),
        (["data.kind=labels", "data.label=tags"], "tags.csv:2: field 'tags' is 'food;service', not a list"),
        (["data.kind=labels", "data.label_columns=[a,b]"], "tags.csv: no example has the label 'b'"),
        (["data.kind=labels", "data.label_columns=[a]", "data.label=tags"], "data.label has no effect: each of data.label_columns is the column of a label"),
        (["data.kind=number", "data.label=tags"], "tags.csv:2: label 'food;service' is not a number; for labels in an order, set data.order"),
        (["data.kind=number", "data.label=b"], "tags.csv: all examples have the number 0"),
        (["data.kind=number", "data.label=a", "data.order=[1,2]"], "tags.csv:3: label '0' is not one of 1, 2 (data.order)"),
        (["data.kind=number", "data.label=a", "data.order=[1]"], "data.order=[1] must name two or more different labels"),
        (["data.kind=number", "data.target=tags"], "data.kind has no effect: data.target=tags"),
        (["data.kind=number", "data.label=a", "oos_false_rejection_rate=0.05"], "oos_false_rejection_rate has no effect: data.kind=number fits a head"),
        (["data.kind=number", "data.label=a", "inner.steps=3"], "inner.steps has no effect: data.kind=number fits a head to the frozen encoder"),
        (["data.kind=number", "data.label=a", "algorithm.adapt=all"], "algorithm.adapt has no effect: data.kind=number fits a head to the frozen encoder"),
    ],
)
def test_bad_input_is_refused_in_one_line(cli, tmp_path, settings, why):
    write(tmp_path / "tags.csv", ("text", "tags", "a", "b"), [("cold soup", "food;service", 1, 0), ("easy parking", "place", 0, 0)])
    found = cli("finetune", "checkpoint=tiny", "data.train=tags.csv", *settings, "hydra.run.dir=run")
    assert found.code == 2 and why in found.err and len(found.err.strip().splitlines()) == 1, found.err
    assert not (tmp_path / "run" / "results.json").exists()
