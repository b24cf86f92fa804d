"""`metatrain suggest`: unlabelled texts, ranked by what to label next."""

import csv

import pytest

FEW = ["checkpoint=tiny", "hardware.threads=1"]
COLUMNS = ["id", "text", "rank", "suggested_label", "probability", "reason"]


def write(path, columns, rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def files(tmp_path):
    """examples.csv with six labelled texts, and texts.csv: thirty texts, one labelled, one twice and one empty."""
    labelled = [(f"{words} {number}", label) for number in range(3) for words, label in (("awful broken", "bad"), ("lovely perfect", "good"))]
    write(tmp_path / "examples.csv", ("text", "label"), labelled)
    texts = [f"{words} {number}" for number in range(10) for words in ("awful broken thing", "lovely perfect present", "perfect but broken")]
    rows = [*((str(number), text) for number, text in enumerate(texts)), ("known", "Awful, broken 0!"), ("twice", "awful broken thing: 1"), ("empty", " ")]
    write(tmp_path / "texts.csv", ("id", "text"), rows)


@pytest.mark.usefixtures("files")
def test_the_round_comes_first_and_known_texts_last(cli, tmp_path):
    found = cli("suggest", "data=texts.csv", "labelled=examples.csv", "n=4", *FEW)
    assert found.code == 0, found.err
    rows = read(tmp_path / "suggested.csv")
    assert list(rows[0]) == COLUMNS and len(rows) == 33
    assert [row["rank"] for row in rows[:30]] == [str(rank) for rank in range(1, 31)]
    assert all(row["reason"] in ("between bad and good", "between good and bad") for row in rows[:4]) and not any(row["reason"] for row in rows[4:30])
    last = {row["id"]: row["reason"] for row in rows[30:]}
    assert last["known"] == "its words are labelled already" and last["twice"] == "has the words of another row"
    assert last["empty"] == "texts.csv:34: field 'text' is empty" and not any(row["rank"] for row in rows[30:])
    unsure = [float(row["probability"]) for row in rows[4:30]]
    assert unsure == sorted(unsure)
    assert "33 rows, the 4 to label next first; 3 at the end need no label or cannot be read" in found.out
    again = cli("suggest", "data=texts.csv", "labelled=examples.csv", *FEW)
    assert again.code == 2 and "suggested.csv exists" in again.err
    assert cli("suggest", "data=texts.csv", "labelled=examples.csv", "n=4", "output=again.csv", *FEW).code == 0
    assert read(tmp_path / "again.csv") == rows  # the choice repeats


@pytest.mark.usefixtures("files")
def test_a_finetuned_model_says_which_column_it_reads(cli, tmp_path):
    write(tmp_path / "bodies.csv", ("body", "label"), [(row["text"], row["label"]) for row in read(tmp_path / "examples.csv")])
    made = cli("finetune", "data.train=bodies.csv", "data.text=body", "algorithm=recommended", "hydra.run.dir=run", "report=false", *FEW)
    assert made.code == 0, made.err
    write(tmp_path / "more.csv", ("id", "body"), [(row["id"], row["text"]) for row in read(tmp_path / "texts.csv")])
    found = cli("suggest", "data=more.csv", "model=run", "n=3", "hardware.threads=1", "output=next.csv")
    assert found.code == 0, found.err
    rows = read(tmp_path / "next.csv")
    assert [row["rank"] for row in rows[:3]] == ["1", "2", "3"] and {row["suggested_label"] for row in rows[:30]} <= {"bad", "good"}


@pytest.mark.usefixtures("files")
def test_all_of_few_texts(cli, tmp_path):
    (tmp_path / "folder").mkdir()
    for number, text in enumerate(("perfect", "broken")):
        (tmp_path / "folder" / f"{number}.txt").write_text(text)
    assert cli("suggest", "data=folder", "labelled=examples.csv", *FEW).code == 0
    rows = read(tmp_path / "suggested.csv")
    assert list(rows[0]) == ["file", *COLUMNS[1:]] and {row["file"] for row in rows} == {"0.txt", "1.txt"} and all(row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["labelled=examples.csv"], "data is not set"),
        (["data=texts.csv"], "give either labelled=FILE"),
        (["data=texts.csv", "labelled=examples.csv", "model=run"], "give either labelled=FILE"),
        (["data=texts.csv", "labelled=examples.csv", "n=0"], "n=0 must be 1 or more"),
        (["data=texts.csv", "labelled=examples.csv", "column=body"], "no column 'body'"),
        (["data=texts.csv", "labelled=one.csv"], "one.csv: only one class ('bad')"),
        (["data=none.csv", "labelled=examples.csv"], "none.csv: the file has no rows"),
        (["data=examples.csv", "labelled=examples.csv"], "no text is left to label"),
        (["data=empty", "labelled=examples.csv"], "data=empty: no text files (.txt)"),
        (["data=texts.csv", "model=."], "model=.: not a model directory"),
        (["data=texts.csv", "model=.", "checkpoint=tiny"], "checkpoint has no effect: labelled=null"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_cannot_be_ranked_is_refused_in_one_line(cli, tmp_path, settings, why):
    write(tmp_path / "none.csv", ("id", "text"), [])
    write(tmp_path / "one.csv", ("text", "label"), [("awful", "bad"), ("broken", "bad")])
    (tmp_path / "empty").mkdir()
    found = cli("suggest", *settings, "hardware.threads=1", *(["checkpoint=tiny"] if "data=examples.csv" in settings else []))
    assert found.code == 2 and why in found.err and len(found.err.strip().splitlines()) == 1, found.err
    assert not (tmp_path / "suggested.csv").exists()
