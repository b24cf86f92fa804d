"""Stopped and killed runs go on as if nothing had happened."""

import json
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import run_once, spawn
from safetensors.torch import load_file

from metatrain.config.overrides import quoted

SHORT = [
    "debug=fast", "hardware.threads=1", "outer.steps=14", "validation.every=4", "checkpoint.every=3", "algorithm.head=prototype", "evaluation.episodes=1",
    "evaluation.arms=[meta_trained,prototypes]",
]  # fmt: skip


def contents(run: Path) -> dict[str, bytes]:
    """All that a run leaves that does not name times."""
    files = [*sorted((run / "checkpoints").rglob("*")), run / "metrics.jsonl", *sorted((run / "model").rglob("*"))]
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.is_file() and path.name != "README.md"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    return run_once(tmp_path_factory.mktemp("whole"), "train", *SHORT)


def wait_for_training(run: Path, process) -> None:
    """Until the first meta-update of this process is recorded, or it has ended."""
    before = (run / "timings.jsonl").stat().st_size if (run / "timings.jsonl").exists() else 0
    while process.poll() is None and not ((run / "timings.jsonl").exists() and (run / "timings.jsonl").stat().st_size > before):
        time.sleep(0.01)


@pytest.mark.parametrize("by", [pytest.param("curriculum", marks=pytest.mark.nightly), pytest.param("hardness", marks=pytest.mark.nightly), "bandit"])
def test_a_sampler_resumes_where_it_was(cli, by):
    changed = [
        *SHORT, f"tasks.sampling.by={by}", "tasks.sampling.strength=3", "outer.schedule=constant", "outer.lr=1e-3", "evaluation.arms=[]", "report=false",
    ]  # fmt: skip
    assert cli("train", *changed, "hydra.run.dir=whole").code == 0
    # The curriculum is over as many meta-updates in both, of which validation stops the second early.
    assert cli("train", *changed, "validation.patience=1", "validation.every=1", "hydra.run.dir=early").code == 0
    stopped = json.loads(Path("early/metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert stopped < 14
    drawn = [
        [record["tasks"] for line in Path(run, "metrics.jsonl").read_text().splitlines() if "tasks" in (record := json.loads(line))]
        for run in ("whole", "early")
    ]
    assert drawn[0][:stopped] == drawn[1]
    assert cli("resume", "early", "validation.patience=null", "validation.every=4").code == 0
    again = [record["tasks"] for line in Path("early/metrics.jsonl").read_text().splitlines() if "tasks" in (record := json.loads(line))]
    assert again == drawn[0]
    fixed = cli("train", *(each for each in changed if "sampling" not in each), "validation.every=0", "hydra.run.dir=fixed")
    assert fixed.code == 0
    assert drawn[0] != [record["tasks"] for line in Path("fixed/metrics.jsonl").read_text().splitlines() if "tasks" in (record := json.loads(line))]


@pytest.mark.nightly
def test_ranges_of_ways_and_shots_resume_with_the_same_episodes(cli):
    """A run that stopped, a resumed run and several processes take the same episodes, whose sizes differ."""
    changed = [
        *SHORT,
        "tasks=sentiment",
        "episode.way=2..4",
        "episode.shots=1..3",
        "outer.schedule=constant",
        "outer.steps=4",
        "evaluation.arms=[]",
        "validation.every=0",
    ]
    assert cli("train", *changed, "hydra.run.dir=whole").code == 0
    assert cli("train", *changed, "hydra.run.dir=early", "outer.steps=2").code == 0
    assert cli("resume", "early", "outer.steps=4").code == 0
    assert contents(Path("whole"))["model/model.safetensors"] == contents(Path("early"))["model/model.safetensors"]
    assert cli("train", *changed, "hydra.run.dir=shared", "hardware.processes=2").code == 0
    assert contents(Path("whole"))["model/model.safetensors"] == contents(Path("shared"))["model/model.safetensors"]


@pytest.mark.nightly
def test_what_an_inner_rule_generates_resumes_to_the_same_bits(cli):
    changed = [*SHORT, "inner.rule=alfa", "outer.schedule=constant", "outer.steps=4", "outer.lr=1e-3", "evaluation.arms=[]", "validation.every=0"]
    assert cli("train", *changed, "hydra.run.dir=whole").code == 0
    assert cli("train", *changed, "hydra.run.dir=early", "outer.steps=2").code == 0
    assert cli("resume", "early", "outer.steps=4").code == 0
    assert cli("train", *changed, "hydra.run.dir=shared", "hardware.processes=2").code == 0
    learned = "model/adaptation.safetensors"
    for other in ("early", "shared"):
        for file in ("model/model.safetensors", learned):
            assert contents(Path("whole"))[file] == contents(Path(other))[file], (other, file)
    assert any("generator" in name for name in load_file(Path("whole") / learned))


@pytest.mark.nightly
def test_kills_change_nothing(uninterrupted, tmp_path):
    """Of the command as it is started by users; many more, of forked ones, are in tests/faults/test_kills.py."""
    rng = random.Random(20)
    run, kills, starts = tmp_path / "run", 0, 0
    arguments = ["train", *SHORT, f"hydra.run.dir={run}"]
    while kills < 3:
        process = spawn(*arguments, cwd=tmp_path)
        starts += 1
        if rng.random() < 0.8:
            wait_for_training(run, process)
            time.sleep(rng.uniform(0, 0.35))
        else:  # while it is starting, or a little later
            time.sleep(rng.uniform(0, 6))
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
        kills += process.returncode == -signal.SIGKILL
        if (run / "config.yaml").exists():
            arguments = ["resume", "latest"]
            if (run / "results.json").exists():  # it was faster than us: start over, so that the kills mean something
                shutil.rmtree(run)
                arguments = ["train", *SHORT, f"hydra.run.dir={run}"]
        assert starts < 60
    process = spawn(*arguments, cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert contents(run) == contents(uninterrupted)
    results = [json.loads((path / "results.json").read_text()) for path in (run, uninterrupted)]
    for result in results:
        for arm in result["arms"].values():
            del arm["adapt_seconds_per_episode"]
        for part in result["by_shots"].values():
            for arm in part["arms"].values():
                arm.pop("adapt_seconds_per_episode", None)
    assert results[0] == results[1]


@pytest.mark.nightly
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_resumes(uninterrupted, tmp_path, number, code):
    """Of the command as it is started by users; of forked ones, in every test run, in tests/faults/test_stops.py."""
    run = tmp_path / "run"
    process = spawn("train", *SHORT, f"hydra.run.dir={run}", cwd=tmp_path)
    wait_for_training(run, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "metatrain resume" in err and "Traceback" not in err
    assert json.loads((run / "run.json").read_text())["state"] == "stopped"
    process = spawn("resume", str(run), cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert contents(run)["metrics.jsonl"] == contents(uninterrupted)["metrics.jsonl"]
    assert contents(run)["checkpoints/step-00000014/MANIFEST.json"] == contents(uninterrupted)["checkpoints/step-00000014/MANIFEST.json"]


@pytest.fixture
def copied(tiny_run, tmp_path) -> Path:
    run = tmp_path / "copied"
    shutil.copytree(tiny_run, run)
    return run


def test_a_finished_run_says_so_and_shows_its_results(cli, copied):
    found = cli("resume", str(copied))
    assert found.code == 0
    assert "is finished" in found.out and "meta_trained" in found.out
    named = copied.rename(copied.with_name("seed=0,outer.lr=0.001"))  # as Hydra's multirun may call it
    assert "is finished" in cli("resume", str(named)).out
    assert cli("report", str(named)).out == f"report: {named}/report.html\n"


def test_a_finished_run_can_be_trained_longer(cli, copied):
    found = cli("resume", str(copied), "outer.steps=5", "evaluation.arms=[]")
    assert found.code == 0, found.err
    assert "resuming from step-00000003" in found.out
    steps = [json.loads(line)["step"] for line in (copied / "metrics.jsonl").read_text().splitlines() if '"meta_train"' in line]
    assert steps == [1, 2, 3, 4, 5]
    assert "steps: 5" in (copied / "config.yaml").read_text()


def test_settings_that_would_train_nothing_are_refused_and_the_run_stays_as_it_is(cli, copied):
    before = {path: path.read_bytes() for path in copied.iterdir() if path.suffix in (".json", ".jsonl", ".yaml")}
    for setting, words in (
        ("inner.lr=0.5", "is complete at step 3, so inner.lr would have no effect; to continue training, raise outer.steps, or start a new run"),
        ("seed=7", "has seed=0, which cannot change; start a new run with metatrain train and seed=7"),
        ("algorithm=protonet", "cannot change its option of algorithm; metatrain resume changes single settings"),
        ("algorithm=", "cannot change its option of algorithm"),
        ("+experiment=arsc", "cannot change its option of experiment"),
        ("hydra.run.dir=elsewhere", "is resumed in its own directory; remove hydra.run.dir"),
    ):
        found = cli("resume", str(copied), setting)
        assert found.code == 2 and words in found.err and len(found.err.splitlines()) == 1, found.err
    assert before == {path: path.read_bytes() for path in before}


def test_the_best_so_far_is_scored_as_those_to_come(cli, copied):
    assert cli("train", "debug=fast", "validation.every=2", "validation.episodes=3", "hardware.threads=1", "evaluation.arms=[]", "hydra.run.dir=run").code == 0
    scores = {each["step"]: each["accuracy"] for line in Path("run/metrics.jsonl").read_text().splitlines() if "accuracy" in (each := json.loads(line))}
    best = json.loads((copied / "checkpoints/step-00000003/state.json").read_text())["best_step"]
    found = cli("resume", str(copied), "outer.steps=4", "validation.episodes=3", "validation.every=5", "evaluation.arms=[]")
    assert found.code == 0, found.err
    assert f"the best checkpoint so far (step {best}, previously " in found.out and f") now scores accuracy {scores[best]:.3f}\n" in found.out


def test_a_damaged_checkpoint_is_set_aside_with_a_warning(cli, copied):
    (copied / "checkpoints" / "step-00000003" / "model.safetensors").write_bytes(b"x")
    found = cli("resume", str(copied), "outer.steps=4", "evaluation.arms=[]")
    assert found.code == 0, found.err
    assert "warning: " in found.out and "renamed to" in found.out and "resuming from step-00000002" in found.out


def test_a_checkpoint_of_another_model(cli, copied):
    before = (copied / "config.yaml").read_bytes()
    found = cli("resume", str(copied), "model.pooling=first", "outer.steps=4")
    assert found.code == 2
    assert "checkpoint of a different model" in found.err and len(found.err.splitlines()) == 1
    assert (copied / "config.yaml").read_bytes() == before


def test_what_is_different_from_here_on_is_said(cli, copied):
    record = json.loads((copied / "run.json").read_text())
    record["versions"]["torch"] = "2.10.0"
    (copied / "run.json").write_text(json.dumps(record))
    found = cli("resume", str(copied), "outer.steps=4", "validation.every=1")
    assert found.code == 0, found.err
    assert "changed: outer.steps: 3 -> 4\nchanged: validation.every: 2 -> 1\nwarning: torch is " in found.out
    assert "was 2.10.0: results may differ" in found.out


def test_tasks_whose_data_has_changed_are_refused_unless_others_are_asked_for(cli, tmp_path, three_files, monkeypatch):
    data, settings = three_files
    assert cli("train", "debug=fast", *settings, "validation.every=0", "hydra.run.dir=run").code == 0
    (data / "a.csv").write_text((data / "a.csv").read_text().replace("nice a 7", "fine a 7"))
    found = cli("resume", "run", "outer.steps=4")
    assert found.code == 2
    assert "the data of the tasks differs from that" in found.err and len(found.err.splitlines()) == 1
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    found = cli("resume", "../run", "outer.steps=4", "tasks.meta_train.tasks=[b]")
    assert found.code == 0, found.err
    assert f"relative paths in the settings are resolved against {tmp_path}, where the run was started" in found.out


def test_an_unreadable_best_checkpoint_is_one_line(cli, copied, examples):
    for path in (copied / "checkpoints").iterdir():
        (path / "model.safetensors").write_bytes(b"x")
    found = cli("finetune", f"checkpoint={copied}", f"data.train={examples}")
    assert found.code == 2
    assert "unreadable checkpoint" in found.err and len(found.err.splitlines()) == 1


def test_a_misspelt_setting(cli, copied):
    before = (copied / "config.yaml").read_bytes()
    found = cli("resume", str(copied), "outer.stepz=5")
    assert found.code == 2
    assert "did you mean 'outer.steps'?" in found.err
    assert (copied / "config.yaml").read_bytes() == before


def test_a_run_below_a_directory_of_any_name(cli, tiny_run, tmp_path, monkeypatch):
    folder = tmp_path / "O'Brien ${x} #é"
    shutil.copytree(tiny_run, folder / "r")
    monkeypatch.chdir(folder)
    found = cli("resume", "r", "outer.steps=4", f"tracking.project={quoted('a${x}')}")
    assert found.code == 0, found.err
    assert "changed: tracking.project: metatrain -> a${x}" in found.out
    monkeypatch.chdir(tmp_path)
    found = cli("resume", str(folder / "r"))
    assert found.code == 0, found.err
    assert f"to train longer: metatrain resume {shlex.quote(str(folder.relative_to(tmp_path) / 'r'))} outer.steps=..." in found.out
