"""`metatrain.train`, `evaluate` and `finetune` in Python: the settings of the command line, and the run that comes of them."""

import os
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import metatrain
from metatrain.config.compose import conf_dir
from metatrain.errors import Stopped, UserError
from metatrain.run.signals import StopRequest
from metatrain.tracking.console import Display

SAME = [
    ("train", {"algorithm": "maml", "inner": {"lr": 0.01, "steps": 3}}, ["algorithm=maml", "inner.lr=0.01", "inner.steps=3"]),
    ("train", {"experiment": "sentiment_fewshot", "debug": "fast", "seed": np.int64(4)}, ["+experiment=sentiment_fewshot", "debug=fast", "seed=4"]),
    ("train", {"algorithm": ["protonet", {"head_scale": 3.0}], "report": False}, ["algorithm=protonet", "algorithm.head_scale=3.0", "report=false"]),
    (
        "train",
        {"tasks": ["files", {"path": Path("my tasks, #1")}], "validation.patience": None},
        ["tasks=files", "tasks.path='my tasks, #1'", "validation.patience=null"],
    ),
    (
        "train",
        {"evaluation": {"shots": (1, 5)}, "tasks": {"meta_train": {"tasks": ["a b", "true"]}}},
        ["evaluation.shots=[1,5]", "tasks.meta_train.tasks=['a b','true']"],
    ),
    (
        "train",
        {"name": "${seed}", "tasks": {"label_descriptions": {"pos": "good, fine"}}},
        ["name='\\${seed}'", "++tasks.label_descriptions={pos: 'good, fine'}"],
    ),
    ("evaluate", {"checkpoint": Path("x"), "tasks": "reviews", "evaluation": {"episodes": 3}}, ["checkpoint=x", "tasks=reviews", "evaluation.episodes=3"]),
    ("finetune", {"checkpoint": "tiny", "data": {"train": "1.csv"}, "algorithm": "maml"}, ["checkpoint=tiny", "data.train=1.csv", "algorithm=maml"]),
]


@pytest.mark.parametrize(("command", "settings", "overrides"), SAME, ids=[f"{command}-{number}" for number, (command, *_) in enumerate(SAME)])
def test_settings_compose_as_on_the_command_line(command, settings, overrides, cli, monkeypatch):
    composed = []
    monkeypatch.setattr(f"metatrain.commands.{command}.start", lambda config, path, given: composed.append((config, path)))
    assert cli(command, *overrides, "hydra.run.dir=here").code == 0
    monkeypatch.setattr("metatrain.runs.Run", lambda path: path)
    assert getattr(metatrain, command)(settings, directory="here") == Path("here").resolve()
    (typed, first), (given, second) = composed
    assert asdict(typed) == asdict(given) and first == second


def test_a_run_that_exists(tiny_run):
    run = metatrain.Run(tiny_run)
    assert "train, done" in repr(run) and run.record["seed"] == run.settings["seed"] == 0
    assert set(run.metrics["split"]) >= {"meta_train"} and run.metrics["step"].max() >= 2
    assert list(run.arms.columns[:2]) == ["shots", "arm"] and run.arms["mean"].between(0, 1).all()
    assert set(run.arms["arm"]) == set(run.results["arms"])
    assert isinstance(run.model(device="cpu"), metatrain.api.FewShotModel)
    with pytest.raises(UserError, match="is not a run directory"):
        metatrain.Run(tiny_run / "model")


def test_finetune_in_python(examples, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = metatrain.finetune(checkpoint="tiny", data={"train": examples.name, "test": examples}, report=False)
    assert run.directory.is_relative_to(tmp_path / "outputs" / "finetune") and run.results["labels"] == ["bad", "good"]
    assert run.model().labels == ["bad", "good"] and run.report is None and run.metrics.empty
    assert "accuracy" in capfd.readouterr().out
    metatrain.finetune(checkpoint="tiny", data={"train": examples.name}, report=False, quiet=True, directory="quiet")
    assert capfd.readouterr().out == ""
    with pytest.raises(UserError, match="is a run of finetune, which compares no arms"):
        _ = run.arms


@pytest.mark.slow
def test_train_and_evaluate_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = metatrain.train(debug="fast", algorithm="recommended", tracking="none", quiet=True)
    test = metatrain.evaluate(checkpoint=run.directory, evaluation={"episodes": 1, "shots": [1, 2], "arms": ["meta_trained", "prototypes"]}, quiet=True)
    assert test.arms["shots"].tolist() == [1, 1, 2, 2]
    with pytest.raises(UserError, match="is an evaluation, which writes no model; load its checkpoint"):
        test.model()


def test_the_process_is_as_before(examples, tmp_path, monkeypatch):
    """Also where the caller runs under Hydra itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    torch.manual_seed(5)
    before = sys.argv, torch.get_num_threads(), torch.get_rng_state().tolist(), signal.getsignal(signal.SIGINT), torch.get_float32_matmul_precision()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        metatrain.finetune(checkpoint="tiny", data={"train": str(examples)}, report=False, hardware={"threads": 1})
        with pytest.raises(UserError, match="only one class|no such file"):
            metatrain.finetune(checkpoint="tiny", data={"train": "nothing.csv"})
        assert GlobalHydra.instance().is_initialized() and compose("train").seed == 0
    after = sys.argv, torch.get_num_threads(), torch.get_rng_state().tolist(), signal.getsignal(signal.SIGINT), torch.get_float32_matmul_precision()
    assert after == before and "HYDRA_FULL_ERROR" not in os.environ


def test_wrong_settings_are_refused_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for settings, said in [
        ({"outer": {"stepz": 3}}, "no setting named 'outer.stepz'; did you mean 'outer.steps'?"),
        ({"outer": {"steps": "many"}}, "outer.steps: Value 'many'"),
        ({"algorithm": "mamm"}, "no algorithm named 'mamm'"),
        ({"inner": {"lr": object()}}, "inner.lr=.*: a setting is a string, a number"),
        ({"inner": {"lr": np.zeros(2)}}, r"inner.lr=array\(\[0., 0.\]\): a setting is a string, a number"),
        ({"tasks": {"path": pandas.DataFrame({"text": ["a"]})}}, "^tasks.path is a table; write it to a file .* or use metatrain.FewShotClassifier"),
        ({"inner": {1: 2}}, "inner.: the name of a setting must be a string, not 1"),
        ({"config_dir": "nothing"}, "nothing"),
    ]:
        with pytest.raises(UserError, match=said):
            metatrain.train(**settings)
    assert not list(tmp_path.rglob("config.yaml"))


def test_an_interrupted_run_raises_what_python_does(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def interrupted(config, path, overrides):
        raise Stopped(signal.SIGINT, "stopped after step 3")

    monkeypatch.setattr("metatrain.commands.train.start", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 3"):
        metatrain.train()

    def crashed(config, path, overrides):
        sys.exit(1)

    monkeypatch.setattr("metatrain.commands.train.start", crashed)
    with pytest.raises(RuntimeError, match="a process of the run has failed, with exit code 1"):
        metatrain.train()


def test_a_run_may_be_in_a_thread():
    found = []

    def run():
        with StopRequest() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_progress_in_a_notebook_is_lines_of_its_output(monkeypatch, capsys):
    class ZMQInteractiveShell:
        """As rich tells a notebook by."""

    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.delenv("METATRAIN_CONSOLE", raising=False)
    with Display() as display:
        assert not display.console.is_jupyter
        display.start("meta-training", 2)
        display.advance(by=2)
    assert "meta-training 2/2" in capsys.readouterr().out
