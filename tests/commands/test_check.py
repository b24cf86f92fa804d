"""`metatrain check`: wrong labels, near-duplicates with other labels and texts of no class, as a table."""

import csv

import pytest

pytest.importorskip("cleanlab")
FEW = ["checkpoint=tiny", "hardware.threads=1"]


def write(path, rows, columns=("id", "text", "label")) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows() -> list[tuple[str, str, str]]:
    """Forty texts of two classes; a3 has the wrong label, and the last row has the words of another one under another label."""
    found = [
        (f"{name}{number}", f"{words} number {number}", label)
        for number in range(20)
        for name, words, label in (("a", "awful broken thing", "bad"), ("b", "lovely perfect present", "good"))
    ]
    found[6] = ("a3", found[6][1], "good")
    return [*found, ("x", "Lovely, perfect present number 3!", "bad")]


def test_what_is_wrong_comes_first_with_a_suggestion(cli, tmp_path):
    write(tmp_path / "examples.csv", rows())
    found = cli("check", "data=examples.csv", *FEW)
    assert found.code == 0, found.err
    checked = read(tmp_path / "checked.csv")
    assert list(checked[0]) == ["id", "text", "label", "suggested_label", "probability", "probability_of_label", "line", "reason"]
    assert sorted(row["id"] for row in checked) == sorted(name for name, *_ in rows())
    by_id = {row["id"]: row for row in checked}
    assert by_id["a3"]["suggested_label"] == "bad" and by_id["a3"]["reason"].startswith("wrong label?") and by_id["a3"]["line"] == "8"
    assert float(by_id["a3"]["probability"]) + float(by_id["a3"]["probability_of_label"]) == pytest.approx(1, abs=1e-3)
    assert "same words as line 9, which has the label good" in by_id["x"]["reason"]
    assert "same words as line 42, which has the label bad" in by_id["b3"]["reason"]
    reasons = [bool(row["reason"]) for row in checked]
    assert reasons == sorted(reasons, reverse=True)
    without = [float(row["probability_of_label"]) for row in checked if not row["reason"]]
    assert without == sorted(without) and not any(row["suggested_label"] for row in checked if not row["reason"])
    assert "2 rows have the words of a row with another label" in found.out and "good, where bad is suggested (1)" in found.out
    again = cli("check", "data=examples.csv", *FEW)
    assert again.code == 2 and "checked.csv exists, and may hold your corrections; name the new file with output=FILE" in again.err
    # A corrected table is checked again; the columns of the first check are replaced.
    assert cli("check", "data=checked.csv", "output=second.tsv", *FEW).code == 0
    with (tmp_path / "second.tsv").open(newline="") as file:
        assert next(csv.reader(file, delimiter="\t")) == list(checked[0])


def test_columns_are_found_and_a_class_of_one_is_not_judged(cli, tmp_path):
    write(tmp_path / "mine.csv", [*((f"{text} indeed", intent) for _, text, intent in rows()[:40]), ("something else", "other")], ("utterance", "intent"))
    found = cli("check", "data=mine.csv", "output=out.jsonl", *FEW)
    assert found.code == 0, found.err
    assert "text: column 'utterance' (guessed; column=COLUMN names another)" in found.out and "label: column 'intent'" in found.out
    assert "1 rows are the only example of their class, and their labels cannot be checked" in found.out
    assert '"probability_of_label": null' in (tmp_path / "out.jsonl").read_text()


def test_a_folder_of_texts(cli, tmp_path):
    for number, (_, text, label) in enumerate(rows()):
        (tmp_path / "texts" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / label / f"{number}.txt").write_text(text)
    assert cli("check", "data=texts", *FEW).code == 0
    checked = read(tmp_path / "checked.csv")
    assert list(checked[0])[:3] == ["file", "text", "label"] and checked[0]["line"].startswith("texts/")
    assert all(row["file"].startswith(row["label"]) for row in checked)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ([], "data is not set"),
        (["data=nowhere.csv"], "nowhere.csv: no such file"),
        (["data=empty.csv"], "empty.csv: the file has no rows"),
        (["data=examples.csv", "column=body"], "no column 'body'"),
        (["data=examples.csv", "label=mood"], "no column 'mood'"),
        (["data=one.csv"], "one.csv: only one class ('bad'); a classifier needs examples of at least two"),
        (["data=numbers.csv"], "numbers.csv:2: field 'text' is empty"),
        (["data=examples.csv", "output=examples.csv"], "output=examples.csv is an input file"),
        (["data=examples.csv", "output=."], "output=. is a directory"),
        (["data=examples.csv", "model=./nowhere"], "checkpoint=./nowhere: no such run or model directory"),
        (["data=texts", "label=mood"], "label has no effect"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(cli, tmp_path, settings, why):
    write(tmp_path / "examples.csv", rows())
    (tmp_path / "texts").mkdir()
    write(tmp_path / "empty.csv", [])
    write(tmp_path / "one.csv", [("1", "awful", "bad"), ("2", "broken", "bad")])
    write(tmp_path / "numbers.csv", [("1", " ", "bad"), ("2", "broken", "good")])
    found = cli("check", *settings, "hardware.threads=1")
    assert found.code == 2 and why in found.err and len(found.err.strip().splitlines()) == 1, found.err
    assert not (tmp_path / "checked.csv").exists()
