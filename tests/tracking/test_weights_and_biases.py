"""W&B is beside the record: whatever it does, the run goes on."""

import json
import os
import signal
import socket
import sys
from dataclasses import dataclass

import pytest
from conftest import ROOT

from metatrain.errors import UserError
from metatrain.tracking.config import TrackingConfig
from metatrain.tracking.weights_and_biases import Attached, WandbRun, check_tracking


@dataclass
class Settings:
    seed: int = 0


@pytest.fixture
def lines() -> list[str]:
    return []


def start(mode: str, folder, say, run_id=None) -> WandbRun:
    return WandbRun(TrackingConfig(mode=mode), "name", folder, Settings(), say, run_id)


def test_auto_without_a_key_keeps_to_the_local_record(tmp_path, lines, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    run = start("auto", tmp_path, lines.append)
    run.log(1, {"a": 1})
    run.finish({})
    assert "wandb" not in sys.modules
    assert lines == ["tracking: local files only; to use Weights & Biases, run `wandb login` or set WANDB_API_KEY"]


def test_offline_writes_a_run_that_can_be_synced(tmp_path, lines):
    run = start("offline", tmp_path, lines.append)
    run.log(1, {"train/loss": 0.5})
    run.finish({"meta_test/meta_trained": 0.8})
    assert run.run_id
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{run.run_id}/*.wandb"))
    assert not [line for line in lines if "warning" in line]


STUB = """
import json, os, time
from types import SimpleNamespace
HOW, RECORD = os.environ["STUB"], open(os.environ["STUB_RECORD"], "a")
def note(what, **facts):
    RECORD.write(json.dumps([what, facts]) + "\\n"); RECORD.flush()
    if HOW == f"{what} fails":
        raise ConnectionError("the server is on fire\\nand more")
    if HOW == f"{what} hangs":
        time.sleep(60)
    if HOW == f"{what} dies":
        os._exit(7)
Settings = SimpleNamespace
def setup(settings):
    return SimpleNamespace(settings=SimpleNamespace(base_url=os.environ.get("WANDB_BASE_URL", "http://127.0.0.1:9")))
Image = Html = lambda path: ["file", path]
Table = lambda columns, data: ["table", columns, data]
class Artifact:
    def __init__(self, name, type, metadata=None): self.facts = {"name": name, "type": type, "metadata": metadata}
    def add_dir(self, path): self.facts["folder"] = path
    def add_file(self, path, name): self.facts[name] = path
    def add(self, table, name): self.facts[name] = table
class Run:
    url, summary, id = None, {}, "abc"
    def log(self, record, step=None): note("log", record=record, step=step)
    def log_artifact(self, artifact): note("artifact", **artifact.facts)
    def finish(self, exit_code=0): note("finish", exit_code=exit_code, summary=self.summary)
def init(**arguments):
    arguments.pop("settings")
    note("init", **arguments)
    return Run()
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Puts a module in the place of wandb that behaves as it is told; returns what it was asked for, in order."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "wandb.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stub"), str(ROOT)]))
    monkeypatch.setenv("STUB_RECORD", str(tmp_path / "record"))

    def behave(how: str):
        monkeypatch.setenv("STUB", how)
        return lambda: [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]

    return behave


def test_what_is_handed_over_arrives_in_order(tmp_path, lines, stub):
    asked = stub("well")
    run = start("offline", tmp_path, lines.append)
    for step in (1, 2):
        run.log(step, {"a": step})
    run.finish({"b": 1})
    (_, begun), *logged, (_, finished) = asked()
    assert (begun["id"], begun["resume"], begun["config"], begun["mode"]) == (run.run_id, None, {"seed": 0}, "offline")
    assert logged == [["log", {"record": {"a": step}, "step": step}] for step in (1, 2)]
    assert finished == {"exit_code": 0, "summary": {"b": 1}}
    assert lines == ["tracking: Weights & Biases offline, in this run directory"]


def test_charts_tables_the_report_and_the_model_are_sent_before_the_end(tmp_path, lines, stub):
    asked = stub("well")
    run = start("offline", tmp_path, lines.append)
    table = {"columns": ["arm"], "rows": [["meta_trained"]]}
    run.finish({"b": 1}, Attached("report.html", {"results.json": "r.json"}, {"arms": "arms.png"}, {"5-shot": table}, "model", {"base_model": "minilm"}))
    _, logged, results, artifact, finished = asked()
    files = {"charts/arms": ["file", "arms.png"], "report": ["file", "report.html"], "tables/5-shot": ["table", ["arm"], [["meta_trained"]]]}
    assert logged == ["log", {"record": files, "step": None}]
    kept = {"results.json": "r.json", "tables/5-shot": ["table", ["arm"], [["meta_trained"]]]}
    assert results == ["artifact", {"name": "results-abc", "type": "results", "metadata": None, **kept}]
    assert artifact == ["artifact", {"name": "model-abc", "type": "model", "metadata": {"base_model": "minilm"}, "folder": "model"}]
    assert finished == ["finish", {"exit_code": 0, "summary": {"b": 1}}]


def test_a_run_sends_its_charts_and_model_with_the_real_client(cli, tmp_path):
    settings = ["hardware.threads=1", "tracking=offline", "tracking.log_model=true", "report=true", "hydra.run.dir=run", "outer.steps=1"]
    found = cli("train", "debug=fast", *settings)
    assert found.code == 0 and "warning" not in found.out, found.out + found.err
    assert (tmp_path / "run" / "charts" / "arms.png").is_file()
    media = {path.relative_to(folder).parts[:2] for folder in (tmp_path / "run" / "wandb").glob("offline-run-*/files/media") for path in folder.rglob("*.*")}
    assert {("images", "charts"), ("table", "tables")} <= media and any(kind == "html" for kind, _ in media)


def test_finetune_sends_its_scores_and_its_model_if_asked(cli, tmp_path, stub):
    asked = stub("well")
    for name, rows in (("train", "it broke,1\nbad box,2\nit shines,4\nvery good,5\n"), ("test", "a bad thing,1\na good thing,4\n")):
        (tmp_path / f"{name}.csv").write_text(f"text,stars\n{rows}")
    settings = [
        "algorithm=recommended",
        "data.label=stars",
        "+data.label_descriptions={1: bad, 2: bad, 4: good, 5: good}",
        "report=false",
        "hardware.threads=1",
    ]
    files = ["data.train=train.csv", "data.test=test.csv"]
    found = cli("finetune", "checkpoint=tiny", *files, *settings, "tracking=offline", "tracking.log_model=true", "hydra.run.dir=run")
    assert found.code == 0 and "warning: Weights & Biases" not in found.out, found.out + found.err
    (_, begun), artifact, (_, finished) = asked()
    assert (begun["name"], begun["mode"], begun["config"]["checkpoint"]) == ("task-seed0", "offline", "tiny")
    facts = {"base_model": "tiny", "algorithm": "recommended", "run": str(tmp_path / "run")}
    sent = {"name": "model-abc", "type": "model", "metadata": facts, "folder": str(tmp_path / "run" / "model")}
    assert artifact == ["artifact", sent]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["labels"] == ["bad", "good"] and finished["summary"]["test/accuracy"] == results["test"]["accuracy"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["wandb_id"] == begun["id"]

    scored = cli("score", "model=run", "data=test.csv", "label=stars", "report=false", "hydra.run.dir=scores")  # the same labels are replaced
    assert scored.code == 0, scored.err
    assert json.loads((tmp_path / "scores" / "results.json").read_text())["test"]["accuracy"] == results["test"]["accuracy"]
    (tmp_path / "record").unlink()
    assert cli("finetune", "checkpoint=tiny", *files, *settings, "hydra.run.dir=other").code == 0
    assert not (tmp_path / "record").exists()  # nothing is sent by default


@pytest.mark.parametrize("where", ["init", "log", "finish"])
@pytest.mark.parametrize(("how", "words"), [("fails", "ConnectionError: the server is on fire"), ("dies", "its process ended with exit code 7")])
def test_a_failure_anywhere_is_one_warning(tmp_path, lines, stub, where, how, words):
    asked = stub(f"{where} {how}")
    run = start("offline", tmp_path, lines.append)
    run.log(1, {"a": 1})
    if where != "finish":
        run._process.wait()
        run._reader.join()
    for step in (2, 3):
        run.log(step, {"a": step})
    run.finish({"b": 1})
    assert [line for line in lines if "warning" in line] == [f"warning: Weights & Biases is disabled for the rest of this run: {words}"]
    assert asked()[-1][0] == where
    assert run._process is None


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_server_that_does_not_answer_holds_nothing_up(tmp_path, lines, stub, where, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    if where != "init":
        (tmp_path / "wandb" / "run-1").mkdir(parents=True)  # as the client does, once it has begun
    with socket.create_server(("127.0.0.1", 0)) as hole:  # takes connections, and never answers
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{hole.getsockname()[1]}")
        stub(f"{where} hangs")
        run = start("wandb", tmp_path, lines.append)
        process = run._process
        for step in range(10_000):  # far more than a pipe holds
            run.log(step + 1, {"a": "x" * 100})
        run.finish({"b": 1})
    later = "metrics.jsonl has all metrics" if where == "init" else f"to upload it later: wandb sync {tmp_path}/wandb/*run-*"
    assert [line for line in lines if "warning" in line] == [f"warning: the upload to Weights & Biases did not finish in time; {later}"]
    assert process.returncode == -signal.SIGKILL


def test_a_resumed_run_keeps_its_id_and_sends_no_step_twice(tmp_path, lines, stub):
    asked = stub("well")
    run = WandbRun(TrackingConfig(mode="offline"), "name", tmp_path, Settings(), lines.append, "abc", after=2)
    for step in (1, 2, 3):
        run.log(step, {"a": step})
    run.finish({})
    (_, begun), *logged, _ = asked()
    assert (run.run_id, begun["id"], begun["resume"]) == ("abc", "abc", "allow")
    assert [facts["step"] for _, facts in logged] == [3]


def test_a_run_that_is_stopped_sends_what_it_has_and_is_not_marked_as_done(tmp_path, lines, stub):
    asked = stub("well")
    run = start("offline", tmp_path, lines.append)
    run.log(1, {"a": 1})
    run.close()
    assert asked()[1:] == [["log", {"record": {"a": 1}, "step": 1}], ["finish", {"exit_code": 1, "summary": {}}]]
    run.close()  # once more does nothing


@pytest.mark.parametrize(
    ("setting", "environment", "mode"),
    [
        ("auto", {}, None),
        ("auto", {"WANDB_API_KEY": "x" * 40}, "online"),
        ("auto", {"WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_MODE": "offline", "WANDB_API_KEY": "x" * 40}, "offline"),
        ("auto", {"WANDB_MODE": "disabled", "WANDB_API_KEY": "x" * 40}, None),
        ("auto", {"WANDB_DISABLED": "true", "WANDB_API_KEY": "x" * 40}, None),
        ("wandb", {"WANDB_API_KEY": "x" * 40}, "online"),
        ("wandb", {"WANDB_MODE": "offline"}, "offline"),
        ("offline", {"WANDB_MODE": "disabled"}, "offline"),
        ("none", {"WANDB_MODE": "offline", "WANDB_API_KEY": "x" * 40}, None),
    ],
)
def test_the_setting_and_the_environment_decide_on_the_mode(tmp_path, lines, stub, monkeypatch, setting, environment, mode):
    asked = stub("well")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_tracking(TrackingConfig(mode=setting))
    run = start(setting, tmp_path, lines.append)
    run.finish({})
    assert (asked()[0][1]["mode"] if run.run_id else None) == mode


def test_online_without_a_key_is_refused_before_work_begins(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE")
    found = cli("train", "debug=fast", "tracking=wandb")
    assert found.code == 2 and "wandb login" in found.err and "tracking=offline" in found.err
    assert not (tmp_path / "outputs").exists() or not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]


def test_unknown_mode():
    with pytest.raises(UserError, match="choose one of"):
        check_tracking(TrackingConfig(mode="sometimes"))
