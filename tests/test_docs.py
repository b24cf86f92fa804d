"""Pages that are made from the code are as the code would make them now; commands in the README exist."""

import re
import runpy

import pytest
from conftest import ROOT

from metatrain.cli import COMMANDS


def test_the_page_of_methods_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "methods_page.py"))["page"]
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page(), "run: python scripts/methods_page.py"


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "algorithm").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_check_that_a_method_names_exists(path):
    (check,) = re.findall(r"^# Check: (\S+)$", path.read_text(), re.MULTILINE)
    file, test = check.split("::")
    assert f"def {test}(" in (ROOT / file).read_text()


def test_the_tests_that_pages_name_exist():
    named = {found for page in (ROOT / "docs").glob("*.md") for found in re.findall(r"(tests/[\w/]+\.py)::(\w+)", page.read_text(encoding="utf-8"))}
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_mutations_still_fit_the_code():
    for mutation in runpy.run_path(str(ROOT / "scripts" / "mutations.py"))["MUTATIONS"]:
        assert mutation.piece in (ROOT / "metatrain" / mutation.file).read_text(encoding="utf-8"), mutation.what


OF_DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "mistakes.md")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *OF_DOCS]


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_files_that_are_mentioned_exist(name):
    text = (ROOT / name).read_text()
    for command in re.findall(r"`?metatrain ([a-z]+)\b[^`\n]*=", text):
        assert command in COMMANDS, command
    for path in re.findall(r"`((?:tests|scripts|conf|docs|metatrain)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./]+)\)", text):
        assert ((ROOT / name).parent / path).exists(), path
    for experiment in re.findall(r"experiment=(\w+)", text):
        assert experiment == "NAME" or (ROOT / "conf" / "experiment" / f"{experiment}.yaml").exists(), experiment


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_the_page_of_mistakes_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "mistakes_page.py"))["page"]
    found = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
    assert found == page(), "run: python scripts/mistakes_page.py"
    assert found.count("| `metatrain ") >= 20
