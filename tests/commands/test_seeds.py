"""Runs that differ in their training seed only."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from metatrain.evaluation.over_seeds import Trainings, difference, over_seeds, spread
from metatrain.evaluation.protocol import Scores, summarise

TASKS = ("x", "y", "z")


def results(seed: int, scores: dict[str, np.ndarray], episodes_of: int = 0, tasks: tuple[str, ...] = TASKS) -> dict:
    """results.json of arms with these scores, [tasks, episodes]."""
    arms = {
        arm: Scores(*({task: list(map(float, row)) for task, row in zip(tasks, values)} for _ in range(2)), seconds=[0.1]) for arm, values in scores.items()
    }
    part = summarise(arms)
    protocol = {"split": "meta_test", "tasks": list(tasks), "way": 2, "queries_per_class": 5, "episodes_per_task": 2, "seed": episodes_of, "shots": [5]}
    return {"format": 1, "protocol": protocol, **part, "by_shots": {"5": part}}


def run(folder: Path, seed: int, lr: float, ours: np.ndarray, **other) -> str:
    """A run directory with the meta-trained arm and one other."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"name: maml\nseed: {seed}\nouter: {{lr: {lr}}}\nevaluation: {{seed: 0}}\n")
    (folder / "run.json").write_text(json.dumps({"command": "train", "state": "done", "versions": {"metatrain": "1"}}))
    (folder / "results.json").write_text(json.dumps(results(seed, {"meta_trained": ours, "prototypes": np.full((3, 2), 0.5)}, **other)))
    return str(folder)


def scores_of(seed: int, gain: float = 0.1) -> np.ndarray:
    """[tasks, episodes]: seeds 0, 1, 2 are 2 points apart, tasks 4 points."""
    return 0.5 + gain + 0.02 * (seed - 1) + np.array([[-0.04] * 2, [0.0] * 2, [0.04] * 2])


def test_spread_is_parted_into_that_of_seeds_and_that_of_tasks():
    found = spread([np.stack([scores_of(seed)[task] for seed in range(3)]) for task in range(3)])
    assert found == (pytest.approx(0.02), pytest.approx(0.04))
    assert spread([np.array([[0.1, 0.2]])]) == (None, None)


def test_an_interval_over_seeds_and_tasks_by_hand():
    trainings = Trainings((0, 1, 2), tuple(results(seed, {"meta_trained": scores_of(seed), "prototypes": np.full((3, 2), 0.5)}) for seed in range(3)))
    ours, other = over_seeds(trainings, "5")
    of_tasks, of_seeds = (student.ppf(0.975, 2) * value / np.sqrt(3) for value in (0.04, 0.02))
    assert (ours.arm, ours.mean) == ("meta_trained", pytest.approx(0.6)) and ours.half_width == pytest.approx(np.hypot(of_tasks, of_seeds))
    assert other.comparison is not None and other.comparison["ci95"] == pytest.approx([0.1 - ours.half_width, 0.1 + ours.half_width])
    assert (other.of_seeds, other.comparison["verdict"]) == (0.0, "not distinguishable")  # 0.1 +- 0.11


def test_seeds_are_paired_where_both_methods_have_the_same():
    def trained(gain, seeds):
        return Trainings(seeds, tuple(results(seed, {"meta_trained": scores_of(seed, gain)}) for seed in seeds))

    paired = difference(trained(0.2, (0, 1, 2)), "meta_trained", trained(0.1, (0, 1, 2)), "meta_trained", "5")
    assert paired.mean == pytest.approx(0.1) and [source.df for source in paired.sources] == [2, 2] and paired.half_width == pytest.approx(0)
    other = difference(trained(0.2, (0, 1, 2)), "meta_trained", trained(0.1, (0, 1)), "meta_trained", "5")
    assert [source.df for source in other.sources] == [2, 2, 1] and other.half_width > 0
    changed = Trainings((0,), (results(0, {"meta_trained": scores_of(0)}, episodes_of=7),))
    assert difference(trained(0.2, (0,)), "meta_trained", changed, "meta_trained", "5") == "different seed"


def test_compare_takes_runs_that_differ_in_their_seed_only_as_one(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runs = [run(tmp_path / f"r{lr}_{seed}", seed, lr, scores_of(seed, gain)) for lr, gain in ((0.1, 0.1), (0.2, 0.2)) for seed in (0, 1, 2)]
    found = cli("compare", *runs)
    assert found.code == 0, found.err
    lines = found.out.splitlines()
    assert [line[:4] for line in lines[:2]] == ["A = ", "B = "] and "(training seeds 0, 1, 2)" in lines[0]
    assert ["outer.lr", "0.1", "0.2"] in [line.split() for line in lines]
    (row,) = [line.split() for line in lines if line.startswith("B ") and "meta_trained" in line]
    assert row[:6] == ["B", "meta_trained", "70.0", "±", "11.1", "2.0"] and row[6] == "+10.0" and row[-1] == "better"


def test_compare_of_seeds_only_shows_every_arm_over_seeds(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = cli("compare", *(run(tmp_path / f"r{seed}", seed, 0.1, scores_of(seed)) for seed in (2, 0)))
    assert found.code == 0 and "5-shot; training seeds 0, 2; 3 meta-test tasks" in found.out
    assert "prototypes" in found.out and "over 3 tasks (2 degrees of freedom) and 2 training seeds (1)" in found.out


def test_evaluations_of_runs_that_differ_in_their_seed_only_are_one(cli, tmp_path):
    runs = [run(tmp_path / f"r{seed}", seed, 0.1, scores_of(seed)) for seed in (0, 1)]
    for seed, checkpoint in enumerate(runs):
        folder = Path(run(tmp_path / f"e{seed}", 0, 0.1, scores_of(seed)))
        (folder / "config.yaml").write_text(f"name: evaluation\nseed: 0\ncheckpoint: {checkpoint}\ntasks: {{name: mine}}\n")
        (folder / "run.json").write_text(json.dumps({"command": "evaluate", "versions": {"metatrain": "1"}}))
        (folder / "results.json").write_text(json.dumps({**json.loads((folder / "results.json").read_text()), "checkpoint": checkpoint}))
    assert "training seeds 0, 1; 3 meta-test tasks" in cli("compare", "e0", "e1").out
    (Path(runs[1]) / "config.yaml").unlink()
    assert "B = e1" in cli("compare", "e0", "e1").out  # nobody knows how that was trained


def test_seeds_that_were_tested_on_other_tasks_are_not_averaged(cli, tmp_path):
    runs = [run(tmp_path / "r0", 0, 0.1, scores_of(0)), run(tmp_path / "r1", 1, 0.1, scores_of(1), tasks=("x", "y", "w"))]
    assert "cannot be combined: different tasks" in cli("compare", *runs).out


def test_a_grid_of_seeds_ends_in_one_table_and_is_tested_on_the_same_episodes(cli, tmp_path):
    arms = "evaluation.arms=[meta_trained,prototypes]"
    found = cli("train", "debug=fast", "outer.steps=1", "hardware.threads=1", arms, "evaluation.seed=5", "hydra.sweep.dir=grid", "-m", "seed=0,1")
    assert found.code == 0, found.err
    made = [json.loads(path.read_text())["protocol"]["seed"] for path in tmp_path.glob("grid/*/results.json")]
    assert made == [5, 5]
    end = found.out[found.out.index("maml, trained with 2 seeds") :]
    assert "2-shot; training seeds 0, 1; 4 meta-test tasks" in end and "sd of seeds" in end and "p is corrected" in end
    assert not list(tmp_path.glob(".metatrain-grid-*"))
