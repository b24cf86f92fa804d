"""`data.unlabelled`: which texts are read, what is refused, and what the console, results.json and the model say."""

import json

import pytest

from metatrain.commands.finetune_examples import read_examples
from metatrain.config.schema import DataConfig
from metatrain.errors import UserError

FEW = "text,label\nbroken strap,bad\ncame late and torn,bad\nsharp and quiet,good\nworks very well,good\n"
TUNED = ("finetune", "checkpoint=tiny", "data.train=few.csv", "inner.fit_head=true", "algorithm.adapt=head", "report=false")


def read(tmp_path, monkeypatch, **settings):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.csv").write_text(FEW)
    said: list[str] = []
    return read_examples(DataConfig(train="few.csv", **settings), False, said.append), said


def test_texts_are_those_that_are_in_no_other_file_each_once(tmp_path, monkeypatch):
    (tmp_path / "test.csv").write_text("text,label\nsmells odd,bad\n")
    (tmp_path / "many.jsonl").write_text("".join(json.dumps({"text": text, "id": 1}) + "\n" for text in ["new", "broken strap", "Smells odd", "other", "new"]))
    found, said = read(tmp_path, monkeypatch, test="test.csv", unlabelled="many.jsonl")
    assert sorted(found.unlabelled) == ["new", "other"]
    assert "2 of 4 texts without labels are also training or test examples, and are left out" in said
    assert found.episode.task.texts == ("broken strap", "came late and torn", "sharp and quiet", "works very well", "smells odd")


def test_rows_that_cannot_be_read_are_counted_and_the_others_used(tmp_path, monkeypatch):
    (tmp_path / "many.csv").write_text("text,id\nnew,1\n,2\nother,3\n")
    found, said = read(tmp_path, monkeypatch, unlabelled="many.csv")
    assert sorted(found.unlabelled) == ["new", "other"]
    assert any(line.startswith("warning: 1 of 3 rows cannot be read; the first: many.csv:3") for line in said)


def test_a_large_file_is_sampled(tmp_path, monkeypatch):
    (tmp_path / "many.txt.csv").write_text("text\n" + "".join(f"text {number}\n" for number in range(1500)))
    found, said = read(tmp_path, monkeypatch, unlabelled="many.txt.csv")
    assert len(set(found.unlabelled)) == 500 and "500 of 1500 texts without labels are used, drawn at random" in said


def test_a_folder_in_which_no_text_can_be_read_is_named_with_its_first_file(tmp_path, monkeypatch):
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "a.txt").write_text("  ")
    with pytest.raises(UserError, match=r"data.unlabelled=many: no text can be read; the first: .*a.txt: the file is empty"):
        read(tmp_path, monkeypatch, unlabelled="many")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "many.csv"), ("text\nbroken strap\n", "every text is also a training or test example"), ("text\n", "many.csv: the file has no rows")],
)
def test_files_without_a_text_to_learn_from_are_refused(tmp_path, monkeypatch, content, expected):
    if content is not None:
        (tmp_path / "many.csv").write_text(content)
    with pytest.raises(UserError) as error:
        read(tmp_path, monkeypatch, unlabelled="many.csv")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_finetune_uses_them_and_says_so(cli, tmp_path):
    (tmp_path / "few.csv").write_text(FEW)
    (tmp_path / "many.csv").write_text("text\n" + "".join(f"{word} text {number}\n" for number in range(10) for word in ("good", "late")))
    found = cli(*TUNED, "data.unlabelled=many.csv", "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    use = json.loads((tmp_path / "tuned" / "results.json").read_text())["unlabelled"]
    assert (use["texts"], use["read"]) == (20, True) and set(use["shares"]) == {"bad", "good"} and sum(use["shares"].values()) == pytest.approx(1)
    log = (tmp_path / "tuned" / "run.log").read_text()
    assert "20 texts without labels are used: 4 held-out examples are too few to decide" in log and "estimated class shares among them: bad" in log
    assert json.loads(cli("predict", "model=tuned", "data=many.csv").out.splitlines()[0])["label"] in ("bad", "good")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("inner.fit_head=false",), "data.unlabelled needs a head fitted to the examples"),
        (("inner.fit_encoder=true",), "data.unlabelled changes the fitted head, which inner.fit_encoder=true trains further"),
    ],
)
def test_methods_that_cannot_use_them_are_refused(cli, tmp_path, settings, expected):
    (tmp_path / "few.csv").write_text(FEW)
    (tmp_path / "many.csv").write_text("text\nnew\n")
    found = cli(*TUNED, "data.unlabelled=many.csv", "hydra.run.dir=tuned", *settings)
    assert found.code == 2 and expected in found.err and not (tmp_path / "tuned" / "run.json").exists()
