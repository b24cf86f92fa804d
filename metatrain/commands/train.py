"""`metatrain train`: meta-train a model, then compare it with baselines on the meta-test tasks."""

from __future__ import annotations

from pathlib import Path

from metatrain.commands.effects import effects_of
from metatrain.commands.grid import add_run, grid_runs, show_seeds
from metatrain.commands.job import Job
from metatrain.commands.resume import check_same, resume
from metatrain.commands.workers import run_job
from metatrain.config.compose import is_of_grid, run_under_hydra
from metatrain.config.schema import TrainConfig
from metatrain.errors import Stopped
from metatrain.run import slurm
from metatrain.run.rank_environment import is_first_rank, number_of_ranks

USAGE = """\
usage: metatrain train [+experiment=NAME] [GROUP=OPTION ...] [SETTING=VALUE ...] [-m]

Meta-train a model on the meta-training tasks, select the best checkpoint on the meta-validation tasks, and compare it with baselines
on the meta-test tasks. With -m, run every combination of comma-separated values; runs that differ only in their seed are summarised in one
table. debug=fast runs every stage once, in seconds.

examples:
  metatrain train +experiment=sentiment_fewshot
  metatrain train algorithm=recommended tasks=files tasks.path=my_tasks/
  metatrain train algorithm=protomaml inner.steps=3 outer.lr=1e-4 evaluation.seed=0 -m seed=0,1,2
"""
SHOWN = (
    "name",
    "algorithm.head",
    "algorithm.adapt",
    "algorithm.meta_gradient",
    "inner.rule",
    "inner.lr",
    "inner.steps",
    "outer.steps",
    "outer.lr",
    "outer.meta_batch",
    "tasks.path",
    "tasks.text",
    "tasks.label",
    "tasks.task",
    "episode.way",
    "episode.shots",
    "episode.queries",
    "validation.every",
    "validation.patience",
    "evaluation.shots",
    "evaluation.episodes",
    "evaluation.arms",
    "model.name",
    "model.max_length",
    "hardware.device",
    "hardware.processes",
    "hardware.max_memory",
    "tracking.mode",
    "report",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    if number_of_ranks() > 1:
        from metatrain.run.ranks import share_run_id

        share_run_id()
    slurm.announce_ends_by_preemption_signal()
    with grid_runs(arguments) as runs:
        run_under_hydra("train", arguments, TrainConfig, start, effects=effects_of)
    if is_first_rank():
        show_seeds(runs)


def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
    """Start a new run in `path`, or resume the run of a grid that an earlier start of the same command created there."""
    from metatrain.run.latest import pin

    overrides = pin(config, overrides, "model.name", "evaluation.joint")
    try:
        if is_of_grid():
            from metatrain.run.directory import RunDirectory, is_run

            add_run(path)
            if is_run(path):
                run = RunDirectory(path.resolve())
                check_same(run, config)
                resume(run, config, [])
                return
        run_job(Job(config, path, overrides))
    except Stopped as stop:
        slurm.hand_over(stop)
        raise
