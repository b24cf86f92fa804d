"""What there is to choose from, and runs with their state."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from metatrain.run.latest import link_elsewhere, make_latest


def test_everything_on_one_page(cli):
    found = cli("ls")
    assert found.code == 0
    for group, kind in (("experiment", "experiments"), ("algorithm", "algorithms"), ("model", "models"), ("tasks", "tasks")):
        names = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{kind}: {', '.join(names)}\n" in found.out
    assert "none yet below outputs/" in found.out


def test_experiments_in_short_and_each_in_full(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    found = cli("ls", "experiments")
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
        (line,) = [line for line in found.out.splitlines() if line.startswith(f"{path.stem} ")]
        assert path.read_text().split("In short: ")[1].split("\n")[0] in line
    parts = cli("ls", "experiments", "arsc").out.split("\n")
    assert [part.split(":")[0] for part in parts[:-1] if ":" in part[:10]] == ["In short", "Shows", "Result", "Cost"]
    assert "  logistic regression (C=1)      53.7 / 55.2   53.7 / 55.2   53.7 / 55.2   +30.7 [20.1, 41.3]" in parts


def test_a_folder_of_ones_own(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    for group, name in (("algorithm", "mine"), ("experiment", "arsc")):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / f"{name}.yaml").write_text("# @package _global_\n# In short: a choice of my own.\nalgorithm:\n  name: mine\n")
    found = cli("ls", "algorithms", "--config-dir", "own")
    assert found.code == 0 and "a choice of my own" in found.out and "protonet" in found.out
    assert cli("ls", "--config-dir=own", "experiments", "arsc").out.strip() == "In short: a choice of my own."
    assert "mine" in cli("ls", "--config-dir", "own").out and "mine" not in cli("ls").out
    assert "no such folder" in cli("ls", "algorithms", "--config-dir", "nowhere").err
    assert cli("ls", "algorithms", "-m").code == 2
    found = cli("explain", "algorithm.name", "algorithm=mine", "--config-dir", "own")
    assert "value    mine, set by " in found.out and "own/algorithm/mine.yaml" in found.out


def test_a_name_that_is_not_there_and_more_than_a_name(cli):
    refused = cli("ls", "experiments", "arsk").err
    assert "there is no arsk among the experiments: alphabets, arsc" in refused and refused.strip().endswith("did you mean 'arsc'?")
    assert cli("ls", "runs", "x").code == cli("ls", "models", "minilm", "x").code == 2


def test_methods_with_their_papers(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    found = cli("ls", "algorithms")
    assert "Finn et al. 2017) with exact second-order meta-gradients." in found.out
    assert "Equation" not in found.out


@pytest.mark.parametrize(("state", "said"), [("done", "done"), ("stopped", "stopped"), ("running", "killed; resumable")])
def test_runs_with_their_state_and_score(cli, tiny_run, tmp_path, monkeypatch, state, said):
    monkeypatch.setenv("COLUMNS", "40")
    run = shutil.copytree(tiny_run, tmp_path / "outputs" / "train" / "maml" / "a")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "state": state}))
    if state != "done":
        (run / "results.json").unlink()
    found = cli("ls", "runs")
    (line,) = [line for line in found.out.splitlines() if line.startswith("outputs/train/maml/a ")]
    assert said in line
    assert ("(2-shot)" in line) if state == "done" else ("validation " in line)


def test_a_run_that_a_process_has(cli, tiny_run, tmp_path, monkeypatch):
    from filelock import FileLock

    monkeypatch.setenv("COLUMNS", "40")
    run = shutil.copytree(tiny_run, tmp_path / "outputs" / "train" / "maml" / "a")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "state": "running"}))
    with FileLock(run / ".lock"):
        assert " running " in cli("ls", "runs").out


def test_a_run_elsewhere_is_listed_where_it_was_started(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    make_latest(tiny_run, "train")
    link_elsewhere(tiny_run)
    make_latest(tiny_run, "train")
    link_elsewhere(tiny_run)
    assert cli("ls", "runs").out.count(f"{tiny_run} ") == 1


def test_a_run_that_cannot_be_read_is_listed(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    (tmp_path / "outputs" / "x").mkdir(parents=True)
    (tmp_path / "outputs" / "x" / "run.json").write_text("{")
    assert "unreadable" in cli("ls", "runs").out


def test_runs_of_finetune_have_a_score_and_those_of_one_minute_are_in_order(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    scores = [{"cross_validation": {"accuracy": 0.625}}, {"cross_validation": None}, {"test": {"accuracy": 0.9, "examples": 8, "held_out": False}}]
    for second, name, results in zip((59, 7, 30), "abc", scores, strict=True):
        folder = Path("outputs/finetune/task", name)
        folder.mkdir(parents=True)
        record = {"command": "finetune", "state": "done", "started": f"2026-01-01T10:00:{second:02}+0000", "versions": {"metatrain": "0"}}
        (folder / "run.json").write_text(json.dumps(record))
        (folder / "results.json").write_text(json.dumps(results))
    a, c, b = cli("ls", "runs").out.splitlines()[1:]
    assert "cross-validated 62.5" in a and "90.0 on 8 training examples" in c and b.split()[-1] == "done"


def test_a_kind_that_is_not_there(cli):
    found = cli("ls", "modls")
    assert found.code == 2 and "experiments, algorithms, models, tasks, arms, plugins, runs" in found.err


def test_what_a_method_leaves_out_of_its_paper_is_in_the_sentence_that_is_listed(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")
    listed = dict(line.split(maxsplit=1) for line in cli("ls", "algorithms").out.splitlines())
    for path in (ROOT / "conf" / "algorithm").glob("*.yaml"):
        words = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line).split(" Equation: ")[0]
        sentence = listed[path.stem].strip()
        assert words.startswith(sentence), path.stem
        rest = words.removeprefix(sentence)
        assert not re.search(r"[Ww]ithout (the paper|PET|LM-BFF)|in place of the paper", rest), f"{path.stem}: {rest}"
