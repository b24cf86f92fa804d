"""What the wheel holds: the package with its corpus, and conf/ inside it."""

import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_the_wheel_holds_every_config_and_the_corpus(tmp_path):
    pytest.importorskip("hatchling")
    done = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("metatrain_nlp-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"metatrain/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert configs and configs <= names
    assert {"metatrain/tasks/corpus/reviews.jsonl", "metatrain/py.typed", "metatrain/report/templates/run.html.jinja"} <= names
    assert not [name for name in names if name.startswith(("tests", "outputs", "scripts", "examples"))]


@pytest.mark.slow
def test_the_command_works_from_the_wheel_only(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    arguments = ["train", "+experiment=sentiment_fewshot", "--cfg", "job"]
    script = f"import metatrain, sys; from metatrain.cli import run; print(metatrain.__file__); sys.exit(run({arguments!r}))"
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "name: sentiment_fewshot" in done.stdout
