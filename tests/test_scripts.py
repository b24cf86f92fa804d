"""Scripts that others rely on: sections of pages, and the data that experiments are made on."""

import json
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, write_jsonl

PAGE = """\
# Title

Before.

## One

Of one.

### A

old

### B

stays

## Two

end
"""


@pytest.fixture
def put_section(tmp_path):
    put = runpy.run_path(str(ROOT / "scripts" / "results_page.py"))["put_section"]
    path = tmp_path / "page.md"
    path.write_text(PAGE)

    def call(*arguments, **more) -> str:
        put(path, *arguments, **more)
        return path.read_text()

    return call


def test_a_section_takes_the_place_of_the_one_with_its_heading(put_section):
    assert put_section("### A", "### A\n\nnew") == PAGE.replace("old", "new")
    assert put_section("### A", "### A\n\nold\n") == PAGE  # nothing adds up


def test_a_new_section_goes_to_the_end_of_the_one_above_it(put_section):
    assert put_section("### C", "### C\n\nnew", below="## One") == PAGE.replace("stays\n", "stays\n\n### C\n\nnew\n")
    assert put_section("## Three", "## Three\n\nlast").endswith("end\n\n## Three\n\nlast\n")


def test_the_sections_within_one_go_or_stay(put_section):
    assert put_section("## One", "## One\n\nOther words.", inner=False) == PAGE.replace("Of one.", "Other words.")
    assert put_section("## One", "## One\n\nAlone.") == PAGE[: PAGE.index("Of one.")] + "Alone.\n\n" + PAGE[PAGE.index("## Two") :]


def test_pairs_are_of_one_intent_or_of_two_and_the_same_every_time(tmp_path):
    intents = {f"{domain} {number}": domain for domain in ("a", "b") for number in range(4)}
    rows = [{"text": f"{intent} text {n}", "label": intent, "domain": domain} for intent, domain in intents.items() for n in range(10)]
    for name in ("train", "valid", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", rows if name == "train" else [])
    script = [sys.executable, ROOT / "scripts" / "pairs.py", "--intents", tmp_path, "--rows", "20"]
    for folder in ("one", "again"):
        subprocess.run([*script, tmp_path / folder], check=True)
    for domain in ("a", "b"):
        lines = (tmp_path / "one" / f"{domain}.jsonl").read_text()
        assert lines == (tmp_path / "again" / f"{domain}.jsonl").read_text()
        pairs = [json.loads(line) for line in lines.splitlines()]
        of_label = {label: [pair for pair in pairs if pair["label"] == label] for label in ("the same", "different")}
        assert list(map(len, of_label.values())) == [10, 10]
        for label, found in of_label.items():
            texts = [text for pair in found for text in (pair["text"], pair["pair"])]
            assert len(set(texts)) == len(texts)
            alike = {pair["text"].split(" text ")[0] == pair["pair"].split(" text ")[0] for pair in found}
            assert alike == {label == "the same"} and {text[0] for text in texts} == {domain}
