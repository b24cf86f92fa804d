"""`metatrain study`: from a file to its tables, also when it is killed on the way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metatrain.config.completion import complete

SETTINGS = "model=tiny outer.steps=3 outer.meta_batch=2 checkpoint.every=1 validation.every=0 evaluation.episodes=2 evaluation.queries=5 evaluation.seed=0"
STUDY = f"""\
base:
  train: {SETTINGS} evaluation.arms=[meta_trained,prototypes] evaluation.shots=[1] report=false tracking=none hardware.threads=1
  evaluate: evaluation.episodes=2 evaluation.queries=5 evaluation.seed=0 report=false hardware.threads=1
seeds: [0, 1]
runs:
  one: algorithm=protonet
  two: algorithm=protonet outer.lr=1e-2
tables:
  candidates: {{text: Two learning rates., rows: runs, against: one, statistics: [score, sd_of_seeds, difference, p, verdict]}}
  arms: {{runs: [two], statistics: [score, balanced, gain]}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METATRAIN_CONSOLE", "auto")  # --json replaces it
    Path("studies").mkdir()

    def call(text: str = STUDY) -> str:
        Path("studies/rates.yaml").write_text(text)
        return "studies/rates.yaml"

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder in which the study was run without an interruption."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "studies").mkdir()
    (folder / "studies" / "rates.yaml").write_text(STUDY)
    subprocess.run([sys.executable, "-m", "metatrain", "study", "studies/rates.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def runs_of(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("outputs/studies/rates/*/run.json"))


def test_two_runs_with_two_seeds_become_tables(made):
    assert [path.name.rsplit("-", 1)[0] for path in runs_of(made)] == ["one-seed0", "one-seed1", "two-seed0", "two-seed1"]
    text = (made / "outputs/studies/rates/tables.md").read_text()
    assert "Made by `metatrain study studies/rates.yaml`." in text and "Two learning rates." in text
    assert "| run | score | sd of seeds | difference from `one` | p | verdict |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| `two` |")]
    results = {path.name[:9]: json.loads((path / "results.json").read_text())["arms"]["meta_trained"]["mean"] for path in runs_of(made)}
    ours, theirs = ((results[f"{name}-seed0"] + results[f"{name}-seed1"]) / 2 for name in ("two", "one"))
    assert f"| {100 * ours:.1f} ±" in line and f"| {100 * (ours - theirs):+.1f} [" in line
    assert "| arm | score | balanced accuracy | gain |" in text
    files = {path.name for path in (made / "outputs/studies/rates/tables").iterdir()}
    assert files == {"candidates.tex", "candidates.csv", "arms.tex", "arms.csv", "training_time.svg", "adaptation_time.svg"}
    assert all(json.loads((path / "results.json").read_text())["training_tasks"] > 2 for path in runs_of(made))
    assert r"\toprule" in (made / "outputs/studies/rates/tables/arms.tex").read_text()


@pytest.mark.nightly
def test_a_study_that_is_killed_twice_has_the_same_tables(made, tmp_path):
    """Killed in the second run, of which one checkpoint is there, and in the third one, after its last checkpoint: finished runs are kept, others resumed."""
    (tmp_path / "studies").mkdir()
    shutil.copy(made / "studies" / "rates.yaml", tmp_path / "studies")
    command = [sys.executable, "-m", "metatrain", "study", "studies/rates.yaml"]
    for killed, checkpoint, finished in (("one-seed1", "step-*", 1), ("two-seed0", "step-00000003", 2)):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while not list(tmp_path.glob(f"outputs/studies/rates/{killed}-*/checkpoints/{checkpoint}/MANIFEST.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        runs = runs_of(tmp_path)
        assert len(runs) == finished + 1 and not (runs[-1] / "results.json").exists()
    before = [os.stat(run / "run.log").st_mtime_ns for run in runs[:2]]
    out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "run 2 of 4" not in out and "run 3 of 4: two, seed 0 (resumed)" in out
    assert [os.stat(run / "run.log").st_mtime_ns for run in runs[:2]] == before
    assert [path.name for path in runs_of(tmp_path)] == [path.name for path in runs_of(made)]
    for ours, theirs in zip(runs_of(tmp_path), runs_of(made)):
        assert (ours / "model" / "model.safetensors").read_bytes() == (theirs / "model" / "model.safetensors").read_bytes()
    for table in ("tables.md", "tables/candidates.tex", "tables/arms.tex", "tables/candidates.csv"):
        assert Path(tmp_path, "outputs/studies/rates", table).read_bytes() == Path(made, "outputs/studies/rates", table).read_bytes()


def test_a_changed_setting_changes_only_its_runs(cli, made, write):
    shutil.copytree(made / "outputs", "outputs", symlinks=True)
    file = write(STUDY.replace("outer.lr=1e-2", "outer.lr=2e-2"))
    found = cli("study", file, "plan")
    assert found.code == 0, found.err
    states = dict(line.split()[::-1] for line in found.out.splitlines()[:4])
    assert [state for name, state in sorted(states.items())] == ["done", "done", "missing", "missing"]
    assert "4 runs: 2 done, 0 stopped, 2 missing" in found.out
    table = json.loads(cli("--json", "study", file, "plan").out)
    assert table["columns"] == ["run", "seed", "state", "command", "directory"] and [row[2] for row in table["rows"]] == ["done", "done", "missing", "missing"]
    assert len(runs_of(Path.cwd())) == 4  # those of the old study


def test_tables_of_a_page_and_as_json(cli, made, write):
    shutil.copytree(made / "outputs", "outputs", symlinks=True)
    file = write()
    Path("page.md").write_text("# Title\n\n<!-- study rates: candidates -->\nold\n<!-- end of study table -->\n\nAfter.\n")
    found = cli("study", file, "page=page.md")
    assert found.code == 0 and "has no place for arms" in found.out, found.err
    page = Path("page.md").read_text()
    assert "old" not in page and "Two learning rates." in page and page.startswith("# Title") and page.endswith("After.\n")
    assert cli("study", file, "page=page.md").code == 0 and Path("page.md").read_text() == page
    lines = [json.loads(line) for line in cli("--json", "study", file).out.splitlines()]
    assert [line["table"] for line in lines if "table" in line] == ["candidates 1-shot", "arms 1-shot"]
    Path("page.md").write_text("# Title\n")
    found = cli("study", file, "page=page.md")
    assert found.code == 2 and "page=page.md: it has no line <!-- study rates: candidates -->" in found.err


def test_runs_that_build_on_others(cli, write):
    """An evaluation of each seed's own model, and one of the only seed that there is."""
    text = STUDY[: STUDY.index("  two:")].replace("[0, 1]", "[0]") + (
        'tested: {command: evaluate, settings: "checkpoint=${run:one} evaluation.shots=[2] evaluation.arms=[meta_trained]", seeds: [0, 3]}\n'
        "tables:\n  seeds: {runs: [tested], rows: seeds, statistics: [mean]}\n"
    ).replace("tested:", "  tested:")
    found = cli("study", write(text))
    assert found.code == 0, found.err
    assert [line[:5] for line in found.out.splitlines() if line.startswith(("| 0", "| 3"))] == ["| 0 |", "| 3 |"]
    (run,) = Path("outputs/studies/rates").glob("tested-seed3-*")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "state": "running"}))  # an evaluation that was killed is made again
    found = cli("study", "studies/rates.yaml")
    assert found.code == 0 and "run 3 of 3: tested, seed 3" in found.out and "run 1" not in found.out


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("runs:\n", "run:\n", "studies/rates.yaml: no setting named 'run'; did you mean 'runs'?"),
        ("outer.lr=1e-2", "outer.lrr=1e-2", "studies/rates.yaml: runs.two: no setting named 'outer.lrr'; did you mean 'outer.lr'?"),
        ("outer.lr=1e-2", "outer.lr=1e-2 -m", "runs.two: '-m' is not SETTING=VALUE"),
        ("outer.lr=1e-2", "seed=3", "runs.two: seed=3: list the seeds in `seeds`"),
        ("outer.lr=1e-2", "hydra.run.dir=x", "runs.two: hydra.run.dir=x: the study names the directories of its runs"),
    ],
)
def test_a_wrong_study_is_one_line_and_nothing_runs(cli, write, before, after, words):
    found = cli("study", write(STUDY.replace(before, after)))
    assert found.code == 2 and words in found.err and found.err.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_wrong_command_line(cli, write):
    write()
    for arguments, words in (
        ([], "takes one file"),
        (["studies/none.yaml"], "studies/none.yaml: no such file"),
        (["studies/rates.yaml", "page=none.md"], "page=none.md: no such file"),
        (["studies/rates.yaml", "-m"], "takes --config-dir DIR, not -m"),
        (["studies/rates.yaml", "outer.stepz=1"], "did you mean 'outer.steps'?"),
    ):
        found = cli("study", *arguments)
        assert found.code == 2 and words in found.err, found.err


def test_completion(write, monkeypatch, capsys):
    write()
    from metatrain.cli import COMMANDS, _completer

    for line, expected in (("metatrain study ", "studies/rates.yaml"), ("metatrain study studies/rates.yaml p", "plan")):
        monkeypatch.setenv("COMP_LINE", line)
        complete(["query=bash"], COMMANDS, _completer)
        assert capsys.readouterr().out.split() == [expected]
