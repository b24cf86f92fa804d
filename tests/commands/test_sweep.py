"""`metatrain sweep` as its users know it."""

import csv
import json
import signal
import time
from pathlib import Path

import pytest
from config.test_compose import composed
from conftest import spawn

from metatrain.commands import sweep
from metatrain.config.compose import settings_hash, typed
from metatrain.config.schema import SweepConfig
from metatrain.errors import RestartableError, UserError
from metatrain.tasks.distribution import load_tasks

optuna = pytest.importorskip("optuna")

SEARCH = [
    "debug=fast", "hardware.threads=1", "validation.every=1", "outer.steps=3", "outer.lr=tag(log,interval(1e-5,1e-2))", "inner.steps=choice(1,2)",
    "search.pruner=none",
]  # fmt: skip


def trials(folder: Path) -> list[dict]:
    return list(csv.DictReader((folder / "trials.csv").open()))


@pytest.mark.nightly
def test_a_search_that_is_killed_resumes_and_its_best_can_be_trained(tmp_path, cli):
    def search(name: str):
        return spawn("sweep", *SEARCH, "search.trials=4", f"hydra.run.dir={name}", cwd=tmp_path)

    whole = search("whole")
    broken = search("broken")
    while not (tmp_path / "broken/trials/0001/metrics.jsonl").exists():
        time.sleep(0.05)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    finished = tmp_path / "broken/trials/0000/run.log"
    before = finished.stat().st_mtime_ns
    assert whole.communicate()[1] == "" and whole.returncode == 0
    again = search("broken")
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert finished.stat().st_mtime_ns == before
    kept = ("trial", "state", "score", "validations", "outer.lr", "inner.steps")
    assert [[row[key] for key in kept] for row in trials(tmp_path / "broken")] == [[row[key] for key in kept] for row in trials(tmp_path / "whole")]
    assert not list(tmp_path.glob("*/trials/*/results.json"))  # no meta-test
    assert not (tmp_path / "outputs").exists()  # and no trial is the `latest`
    assert len(list(tmp_path.glob("broken/trials/*/model"))) == 1

    for picture in ("parallel_coordinates", "slices", "history", "importance"):
        assert (tmp_path / "broken" / f"{picture}.png").stat().st_size > 5000
    (best,) = [row for row in trials(tmp_path / "broken") if f"trial {row['trial']}, validation" in out]
    assert float(best["score"]) == max(float(row["score"]) for row in trials(tmp_path / "broken"))
    found = cli("train", "--config-dir", "broken/conf", "+experiment=maml_best", "validation.every=1", "hydra.run.dir=again", "evaluation.episodes=1")
    assert found.code == 0, found.err
    of_trial = tmp_path / "broken/trials" / f"{int(best['trial']):04d}/metrics.jsonl"
    assert (tmp_path / "again/metrics.jsonl").read_bytes() == of_trial.read_bytes()


@pytest.mark.slow
def test_a_stop_is_answered(tmp_path):
    process = spawn("sweep", *SEARCH, "search.trials=2", "outer.steps=100000", "validation.every=100000", "hydra.run.dir=stopped", cwd=tmp_path)
    while not (tmp_path / "stopped/trials/0000/timings.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert err == "metatrain: stopped in trial 0; run the same command to resume it\n"
    assert json.loads((tmp_path / "stopped/trials/0000/run.json").read_text())["state"] == "stopped"


def test_trials_that_cannot_be_are_said(cli):
    found = cli("sweep", *SEARCH, "inner.lr=choice(-1,-2)", "search.trials=2", "hydra.run.dir=failed")
    assert found.code == 2 and "no trial of" in found.err and len(found.err.splitlines()) == 1
    assert "trial 0 failed: inner.lr=-" in found.out and "trial 1 failed: inner.lr=-" in found.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "search.space is empty"),
        (["search=rates", "search.pruner=median"], "search.pruner=median"),
        (["outer.lr=interval(2,1)"], "search.space: outer.lr="),
        (["search=rates", "validation.every=0"], "validation.every=0"),
        (["search=rats"], "search"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, tmp_path, arguments, said):
    found = cli("sweep", "debug=fast", *arguments)
    assert found.code == 2 and said in found.err and len(found.err.splitlines()) == 1, found.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_directory_says_what_is_searched():
    def name(*settings: str) -> str:
        return settings_hash(composed("sweep", *settings))

    assert name("search=rates") == name("search=rates", "search.trials=99", "hardware.threads=1", "tracking=offline")
    assert len({name("search=rates"), name("search=rates", "seed=1"), name("search=rates", "outer.steps=3"), name()}) == 4


def test_a_database_that_is_gone_is_a_fault_that_a_restart_can_heal(monkeypatch):
    def gone(*_arguments) -> None:
        raise optuna.exceptions.StorageInternalError("a guess") from ConnectionError("terminating connection\nand more")

    monkeypatch.setattr(sweep, "run_under_hydra", gone)
    with pytest.raises(RestartableError, match=r"search\.storage: the database does not respond: terminating connection; run the same command to resume"):
        sweep.main(["search=rates"])


def test_a_search_is_made_only_where_nothing_is(cli, tmp_path):
    (tmp_path / "trials.csv").write_text("mine")
    found = cli("sweep", "model=tiny", "inner.lr=0.1,0.2", "hydra.run.dir=.")
    assert found.code == 2 and "hydra.run.dir=. holds trials.csv, and is not a run of metatrain" in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_a_search_whose_data_has_changed_is_refused(tmp_path):
    config = typed(composed("sweep"), SweepConfig)
    state = tmp_path / "trials/0000/checkpoints/step-00000001/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"tasks": load_tasks(config.tasks, config.seed).fingerprint()}))
    sweep.check_data(tmp_path, config, ["inner.lr"])
    state.write_text(json.dumps({"tasks": "other"}))
    with pytest.raises(UserError, match="the tasks' data has changed since the search in .* began"):
        sweep.check_data(tmp_path, config, ["inner.lr"])
    sweep.check_data(tmp_path, config, ["inner.lr", "tasks.holdout"])
