"""What differs between runs."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import run_once


@pytest.fixture(scope="module")
def higher_rate(tmp_path_factory) -> Path:
    """A run with another rate than `tiny_run`; not to be changed by tests."""
    return run_once(tmp_path_factory.mktemp("other"), "train", "debug=fast", "validation.every=2", "hardware.threads=1", "outer.lr=1e-2")


@pytest.fixture
def two(tiny_run, higher_rate, tmp_path, monkeypatch):
    """A run, and one with another rate, which may be changed."""
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(higher_rate, tmp_path / "other")
    return str(tiny_run), str(tmp_path / "other")


def test_settings_curves_and_paired_scores(cli, two):
    found = cli("compare", *two)
    assert found.code == 0, found.err
    rows = [line.split() for line in found.out.splitlines()]
    assert ["outer.lr", "4e-05", "0.01"] in rows
    assert not any(row and row[0].startswith(("evaluation.", "hardware.", "checkpoint.")) for row in rows)
    assert found.out.count("validation of ") == 2
    results = [json.loads(Path(run, "results.json").read_text())["arms"]["meta_trained"] for run in two]
    difference = 100 * (results[1]["mean"] - results[0]["mean"])
    (line,) = [line for line in found.out.splitlines() if line.startswith("B ") and "meta_trained" in line]
    assert f"{difference:+.1f} [" in line and line.rstrip().endswith(("better", "worse", "not distinguishable"))


def test_arms_of_one_run_are_compared_as_in_its_own_results(cli, tiny_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    found = cli("compare", f"{tiny_run}:prototypes", str(tiny_run))
    assert "settings: no difference" in found.out
    (own,) = [item for item in json.loads((tiny_run / "results.json").read_text())["comparisons"] if item["against"] == "prototypes"]
    assert f"{100 * own['difference']:+.1f} [" in found.out and own["verdict"] in found.out


def test_other_episodes_are_not_paired(cli, two, tmp_path):
    results = tmp_path / "other" / "results.json"
    content = json.loads(results.read_text())
    content["protocol"]["seed"] = 7
    results.write_text(json.dumps(content))
    assert "not paired: different seed" in cli("compare", *two).out


def test_results_of_an_earlier_version(cli, two, tmp_path):
    results = tmp_path / "other" / "results.json"
    content = json.loads(results.read_text())
    for part in (content, *content["by_shots"].values()):
        for arm in part["arms"].values():
            for task in arm["per_task"].values():
                task.pop("scores", None)
    results.write_text(json.dumps(content))
    assert "not paired: a run of an earlier version" in cli("compare", *two).out


def test_runs_of_finetune(cli, tiny_run, tmp_path, examples, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for name, steps in (("a", 1), ("b", 2)):
        settings = [f"data.test={examples}", f"inner.steps={steps}", "report=false", f"hydra.run.dir={name}"]
        assert cli("finetune", "checkpoint=tiny", f"data.train={examples}", *settings).code == 0
    found = cli("compare", "a", "b", "html=page.html")
    assert found.code == 0, found.err
    rows = [line.split() for line in found.out.splitlines()]
    assert ["inner.steps", "1", "2"] in rows
    results = [json.loads(Path(run, "results.json").read_text())["test"]["accuracy"] for run in ("a", "b")]
    for letter, accuracy in zip("AB", results):
        assert [letter, "4", "held-out", "accuracy", f"{accuracy:.3f}", "of", "4"] in [row[:7] for row in rows]
    assert "2 runs compared" in Path("page.html").read_text()
    found = cli("compare", "a", str(tiny_run))
    assert found.code == 2 and "a is a run of metatrain finetune" in found.err


@pytest.mark.parametrize(("change", "words"), [("results.json", "has no results.json"), ("config.yaml", "has no config.yaml")])
def test_what_is_no_run(cli, tiny_run, tmp_path, change, words):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / change).unlink()
    found = cli("compare", str(tiny_run), str(run))
    assert found.code == 2 and words in found.err and len(found.err.splitlines()) == 1


def test_what_cannot_be_compared(cli, tiny_run):
    assert cli("compare", str(tiny_run)).code == 2
    found = cli("compare", str(tiny_run), f"{tiny_run}:setfit")
    assert found.code == 2 and "has no arm 'setfit'; there are " in found.err
