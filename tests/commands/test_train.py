"""A whole run in miniature, as a user would start it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from config.test_compose import composed
from conftest import ROOT, spawn, write_jsonl

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.commands import meta_train
from metatrain.config.compose import conf_dir
from metatrain.config.schema import Overrides
from metatrain.errors import UserError
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import training_episode
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.metrics import read_metrics

METHODS = sorted(path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
# Methods of which another, with the same kind of head, inner loop or export, is run in every test run; these run nightly.
ALIKE = (
    "alfa", "anil", "boil", "cavia", "cloze", "feat", "fomaml", "imaml", "leave_one_out", "maml_lora", "mamlpp", "matching", "meta_curvature", "metasgd",
    "protoanil", "protomaml", "protonet", "protonet_cosine", "relation", "soft_k_means", "unicorn",
)  # fmt: skip
# Experiments whose tasks take half a minute to make, or have the form of those of another.
NIGHTLY = (
    "alphabets", "arsc", "arsc_linear", "clinc150_all", "clinc150_cross_domain", "clinc150_splits", "domain_adaptation", "fdu_leave_domains_out",
    "intent_fewshot", "mr_subj_trec_transfer", "reviews_leave_domains_out", "sentiment_fewshot", "smlmt", "text_to_text", "universal",
)  # fmt: skip
MODELS = {"alphabets": "scratch_vit", "pictures_and_texts": "scratch_clip"}  # in place of debug=fast's, which reads no pictures


def test_a_run_directory_holds_what_is_promised(tiny_run):
    for name in ("config.yaml", "overrides.yaml", "run.json", "metrics.jsonl", "results.json", "run.log", "model/config.json", "model/adaptation.json"):
        assert (tiny_run / name).is_file(), name
    assert [path.name for path in sorted((tiny_run / "checkpoints").iterdir())] == ["step-00000002", "step-00000003"]
    record = json.loads((tiny_run / "run.json").read_text())
    assert (record["state"], record["exit"], record["command"], record["seed"]) == ("done", 0, "train", 0)
    assert {"torch", "transformers", "metatrain"} <= set(record["versions"])
    assert record["hardware"]["threads"] == 1
    assert (tiny_run / "overrides.yaml").read_text().startswith("- debug=fast") or "+debug=fast" in (tiny_run / "overrides.yaml").read_text()


def test_the_record_is_complete(tiny_run):
    records = read_metrics(tiny_run / "metrics.jsonl")
    assert [record["step"] for record in records if record["split"] == "meta_train"] == [1, 2, 3]
    assert [record["step"] for record in records if record["split"] == "meta_validation"] == [2, 3]
    for record in records:
        if record["split"] == "meta_train":
            assert record["loss_before"] > 0 and record["loss_after"] > 0 and record["gradient_norm"] > 0
            assert 0 <= record["accuracy_before"] <= 1 and 0 <= record["accuracy_after"] <= 1
        else:
            assert 0 <= record["accuracy"] <= 1 and 0 <= record["accuracy_with_shuffled_labels"] <= 1


def test_results_compare_the_four_arms_on_the_test_tasks(tiny_run):
    results = json.loads((tiny_run / "results.json").read_text())
    assert set(results["arms"]) == {"meta_trained", "no_meta_training", "logistic_regression", "prototypes"}
    assert results["protocol"]["tasks"] == ["delivery", "films", "headphones", "restaurants"]
    assert {item["against"] for item in results["comparisons"]} == set(results["arms"]) - {"meta_trained"}
    for arm in results["arms"].values():
        assert 0 <= arm["mean"] <= 1 and arm["adapt_seconds_per_episode"] > 0
        assert all(task["episodes"] == 2 for task in arm["per_task"].values())
    assert "2-shot: meta_trained" in (tiny_run / "run.log").read_text()


def test_a_run_learns_something_when_it_can(cli, tmp_path):
    """debug=overfit trains and tests on the same two tasks: adaptation must get better on them."""
    found = cli("train", "debug=overfit", "algorithm.head=prototype", "inner.steps=0", "hydra.run.dir=run", "tracking=none")
    assert found.code == 0, found.err
    trained = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["split"] == "meta_train"]
    first, last = (sum(record["loss_after"] for record in part) / len(part) for part in (trained[:10], trained[-10:]))
    assert last < 0.7 * first


def test_training_stops_early_when_validation_no_longer_improves(cli, tmp_path):
    settings = ["outer.steps=30", "outer.lr=0", "validation.every=1", "validation.patience=2", "hydra.run.dir=run"]
    assert cli("train", "debug=fast", *settings).code == 0
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert max(record["step"] for record in records) == 3  # the first is the best, two more are not better
    assert records[-1]["best_step"] == 1
    said = "stopped early at step 3: 2 validations without a new best (validation.patience=2)"
    assert said in (tmp_path / "run" / "run.log").read_text()
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix in (".json", ".jsonl", ".yaml")}
    found = cli("resume", "run", "outer.steps=60")
    assert found.code == 2 and "run stopped early at step 3 (validation.patience=2), so outer.steps would have no effect" in found.err, found.err
    assert before == {path: path.read_bytes() for path in before}
    assert "finished (it stopped early); to train longer: metatrain resume run validation.patience=null" in cli("resume", "run").out


def test_the_same_command_gives_the_same_numbers(cli, tiny_run, tmp_path):
    found = cli("train", "debug=fast", "validation.every=2", "hardware.threads=1", "hydra.run.dir=again")
    assert found.code == 0, found.err
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (tiny_run / "metrics.jsonl").read_bytes()


def test_episodes_in_one_pass_train_the_same(cli, tmp_path):
    """To rounding, which few steps do not let grow."""
    for name, together in (("alone", 1), ("together", 2)):
        settings = ["debug=fast", "algorithm.head=prototype", "hardware.precision=float64", f"hardware.vectorized_episodes={together}", "evaluation.arms=[]"]
        found = cli("train", *settings, f"hydra.run.dir={name}")
        assert found.code == 0, found.err
        assert ("up to 2 episodes vectorised in one pass" in found.out) == (together == 2)
    losses = [
        [record["loss_after"] for record in read_metrics(tmp_path / name / "metrics.jsonl") if record["split"] == "meta_train"]
        for name in ("alone", "together")
    ]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-9)


def test_another_seed_gives_others(cli, tiny_run, tmp_path):
    assert cli("train", "debug=fast", "seed=1", "hardware.threads=1", "hydra.run.dir=other").code == 0
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() != (tiny_run / "metrics.jsonl").read_bytes()


def test_implicit_meta_gradients_report_how_far_conjugate_gradients_came(cli, tmp_path):
    assert cli("train", "debug=fast", "algorithm=imaml", "outer.steps=1", "hydra.run.dir=run").code == 0
    (record, *_) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert 0 < record["cg_residual"] < 0.5 and record["cg_damping"] == 1
    settings = ["algorithm.proximal=1e-3", "outer.steps=2", "evaluation.arms=[]", "validation.every=0"]
    found = cli("train", "debug=fast", "algorithm=imaml", *settings, "hydra.run.dir=other")
    assert found.out.count("conjugate gradients found no solution for 2 of 2 episodes of meta-update 1") == 1, found.out
    assert all(record["cg_damping"] > 1 and record["cg_residual"] <= 0.5 for record in read_metrics(tmp_path / "other" / "metrics.jsonl"))


def training_loss(learner, config) -> float:
    """The mean query loss after adaptation of the first training episodes."""
    tasks, tokens = load_tasks(config.tasks, config.seed), learner.model.tokens()
    episodes = [training_episode(tasks, config.episode, config.seed, index) for index in range(24)]
    return sum(float(learner.outer_gradient(encode_episode(episode, tokens)).loss_after) for episode in episodes) / len(episodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if name in ALIKE else name for name in METHODS])
def test_every_method_lowers_its_training_loss_is_exported_and_evaluated_from_its_export(cli, tmp_path, name):
    longer = ["outer.steps=24", "outer.lr=1e-3", "validation.every=0", "evaluation.arms=[meta_trained]"]
    found = cli("train", f"algorithm={name}", "debug=fast", *longer, "hydra.run.dir=run", "hardware.threads=1")
    assert found.code == 0, found.err
    opened = open_checkpoint("run", Overrides(), torch.device("cpu"), torch.float32, lambda line: None)
    assert training_loss(opened.learner, opened.config) < training_loss(opened.untrained(), opened.config)

    settings = ["evaluation.shots=[2]", "evaluation.episodes=2", "evaluation.queries=4", "hardware.threads=1", "tasks=reviews"]
    found = cli("evaluate", "checkpoint=run/model", *settings, "hydra.run.dir=again")
    assert found.code == 0, found.err
    ours, theirs = (json.loads((tmp_path / folder / "results.json").read_text())["arms"]["meta_trained"] for folder in ("run", "again"))
    assert ours["per_task"] == theirs["per_task"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nightly) if name in NIGHTLY else name for name in EXPERIMENTS])
def test_every_experiment_runs_in_debug_fast(cli, monkeypatch, tmp_path, name):
    data = Path(os.environ.get("METATRAIN_DATA", ROOT.parent / "shared" / "data"))
    if name in MODELS:
        data = tmp_path / "data"
        subprocess.run([sys.executable, ROOT / "scripts" / "data" / "alphabets.py", data / "alphabets", "--pictures", "6"], check=True)
    elif name == "same_request" and (intents := data / "clinc150").is_dir():
        data = tmp_path / "data"
        subprocess.run([sys.executable, ROOT / "scripts" / "data" / "pairs.py", data / name, "--intents", intents, "--rows", "60"], check=True)
    monkeypatch.setenv("METATRAIN_DATA", str(data))
    tasks = composed("train", f"+experiment={name}").tasks
    for path in (Path(tasks.path), *(Path(source.path) for source in tasks.sources.values())):
        if path.is_relative_to(data) and not path.is_dir():
            pytest.skip(f"the data set {path.name} is not on this machine (METATRAIN_DATA)")
    model = [f"model={MODELS[name]}"] if name in MODELS else []
    fold = ["tasks.fold=1"] if name == "universal" else []  # without one, there is no meta-test
    found = cli("train", f"+experiment={name}", "debug=fast", *model, *fold, "hydra.run.dir=run")
    assert found.code == 0, found.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["arms"]["meta_trained"]["mean"] > 0
    assert found.out.rstrip().endswith("data.pair=COLUMN") == (name == "same_request")


@pytest.mark.slow
def test_a_grid_makes_a_run_for_each_point_and_continues_after_one_that_fails(cli, tmp_path):
    grid = tmp_path / "outputs" / "train" / "grid"
    found = cli("train", "debug=fast", "outer.steps=1", "inner.lr=0.01,-1,0.02", "-m")
    assert found.code == 2
    assert "inner.lr=-1" in found.err and "Traceback" not in found.err
    first = {path: path.stat().st_mtime_ns for path in grid.glob("*/results.json")}
    assert len(first) == 2

    # Given again, with another point and one that was killed on its way, it does what is missing.
    killed = next(iter(first)).parent
    (killed / "run.json").write_text(json.dumps({**json.loads((killed / "run.json").read_text()), "state": "running"}))
    found = cli("train", "debug=fast", "outer.steps=1", "inner.lr=0.01,0.02,0.03", "-m")
    assert found.code == 0 and found.out.count("is finished") == 1 and found.out.count("resuming from step-00000001") == 1, found.out + found.err
    second = {path: path.stat().st_mtime_ns for path in grid.glob("*/results.json")}
    assert len(second) == 3 and sum(second[path] == at for path, at in first.items()) == 1


def test_runs_of_a_grid_share_no_directory_and_are_not_taken_for_those_of_other_data(cli, three_files):
    data, settings = three_files
    short = ["debug=fast", "outer.steps=1", "validation.every=0", "evaluation.arms=[]"]
    grid = ["train", *short, *settings, "hydra.sweep.dir=grid", "hydra.sweep.subdir=same", "-m"]
    found = cli(*grid, "inner.lr=0.01,0.02")
    assert found.code == 2 and "inner.lr=0.02: grid/same holds a run with other settings (inner.lr: 0.01 -> 0.02)" in found.err, found.err
    assert "grid/same is finished" in cli(*grid, "inner.lr=0.01").out
    (data / "a.csv").write_text((data / "a.csv").read_text().replace("nice a 7", "fine a 7"))
    found = cli(*grid, "inner.lr=0.01")
    assert found.code == 2 and "grid/same is finished, and the tasks' data has changed since: move or delete it to run it again" in found.err


def test_every_failing_job_of_a_grid_is_named(cli):
    found = cli("train", "debug=fast", "inner.lr=-1,-2", "-m")
    assert found.code == 2
    lines = found.err.splitlines()
    assert [line.split(": ")[2] for line in lines[:2]] == ["inner.lr=-1", "inner.lr=-2"]
    assert lines[-1].startswith("metatrain: error: 2 jobs failed: inner.lr=-1: ") and "; inner.lr=-2: " in lines[-1]


@pytest.mark.nightly
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_run_a_grid_at_once(tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    arguments = ["debug=fast", "outer.steps=1", "hardware.threads=1", "inner.lr=0.01,0.02", f"hydra/launcher={launcher}", "-m"]
    process = spawn("train", *arguments, cwd=tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert len(list(tmp_path.glob("outputs/train/grid/*/results.json"))) == 2


def test_slurm_has_a_configuration():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        launcher = compose("train", ["hydra/launcher=slurm"], return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher") and launcher.max_num_timeout == 20 and launcher.partition is None


def test_only_large_tasks_are_tokenised_before_training(cli, tmp_path, monkeypatch):
    def prepare(tokens: Tokens, tasks: list[Task], on_progress: object) -> None:
        raise UserError(f"tokenised: {[task.name for task in tasks]}")  # the rest of the run is not needed

    monkeypatch.setattr(meta_train, "_LARGE_TASK", 20)
    monkeypatch.setattr(Tokens, "prepare", prepare)
    (tmp_path / "data").mkdir()
    for name, size in {"a": 20, "b": 21, "c": 19, "d": 40}.items():
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", [{"text": f"{name} {number}", "label": "xy"[number % 2]} for number in range(size)])
    data = ("tasks=files", "tasks.path=data", "tasks.meta_validation.tasks=[c]", "tasks.meta_test.tasks=[d]")
    found = cli("train", "debug=fast", *data, "hydra.run.dir=run")
    assert found.code == 2 and "tokenised: ['b', 'd']" in found.err, found.err


def test_no_arms_no_meta_test(cli, tmp_path):
    found = cli("train", "debug=fast", "outer.steps=1", "evaluation.arms=[]", "hydra.run.dir=run")
    assert found.code == 0 and "meta-test skipped" in found.out, found.err
    assert (tmp_path / "run" / "model" / "adaptation.json").exists() and not (tmp_path / "run" / "results.json").exists()
    assert "is finished" in cli("resume", "run").out
    assert cli("evaluate", "checkpoint=run", "evaluation.arms=[]").code == 2
