"""`metatrain resume [RUN|latest] [overrides]`: resume a stopped run exactly where it stopped."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.job import Job
from metatrain.commands.workers import run_job
from metatrain.config.compose import run_under_hydra
from metatrain.config.overrides import OPTIONAL_GROUPS, quoted
from metatrain.config.schema import TrainConfig
from metatrain.config.settings import changes
from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.run.directory import RunDirectory

USAGE = """\
usage: metatrain resume [RUN|latest] [SETTING=VALUE ...]

Resume a stopped or killed run from its newest checkpoint. Without settings, the result is bit-identical to that of an uninterrupted run (on
CPUs, with the same number of threads). RUN is a run directory; the default is the newest run of train below outputs/. Settings replace those
of the run from this point on.

examples:
  metatrain resume
  metatrain resume latest outer.steps=200
"""


def main(arguments: list[str]) -> None:
    """Entry point; the first argument that is not a setting names the run."""
    from metatrain.run.directory import RunDirectory

    if {"-m", "--multirun"} & set(arguments):
        raise UserError("metatrain resume resumes a single run; remove -m, or start a grid with metatrain train -m")
    names = [item for item in arguments if not item.startswith("-") and ("=" not in item or Path(item).is_dir())]
    run = RunDirectory.find(names[0] if names else "latest")
    overrides = [item for item in arguments if item not in names[:1]]
    _check_overrides(run, run.load_config(TrainConfig), overrides)  # a damaged config.yaml is named before Hydra sees it

    def start(config: TrainConfig, path: Path, changed: list[str]) -> None:
        resume(run, run.located(config, keep=[item.lstrip("+").partition("=")[0] for item in changed]), changed)

    settings = [
        f"hydra.run.dir={quoted(str(run.path))}",
        "hydra.output_subdir=null",
        "hydra.job.name=resume",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    run_under_hydra("config", [*overrides, *settings], TrainConfig, start, config_path=run.path, program="metatrain resume")


def _check_overrides(run: RunDirectory, config: TrainConfig, overrides: list[str]) -> None:
    """Raises: UserError: an override would choose another option of a config group, or another seed."""
    from metatrain.run.hints import shown

    groups = [field.name for field in fields(config) if is_dataclass(getattr(config, field.name))]
    for item in overrides:
        key, sign, value = item.lstrip("+").partition("=")
        if sign and key.startswith(("hydra.run.", "hydra.sweep.")):
            raise UserError(f"{item}: {shown(run.path)} is resumed in its own directory; remove {key}, or copy the run and resume the copy")
        if sign and key in (*groups, *OPTIONAL_GROUPS):
            raise UserError(
                f"{item}: {shown(run.path)} cannot change its option of {key}; metatrain resume changes single settings (KEY.SETTING=VALUE), "
                f"and metatrain train starts a new run with {key}={value or '...'}"
            )
        if sign and key == "seed" and value != str(config.seed):
            raise UserError(
                f"{item}: {shown(run.path)} has seed={config.seed}, which cannot change; start a new run with metatrain train and seed={value or '...'}"
            )


def resume(run: RunDirectory, config: TrainConfig, overrides: list[str]) -> None:
    """Resume a run from its newest checkpoint, or show the results of a finished run whose settings do not change."""
    from metatrain.commands.meta_test import show
    from metatrain.run.hints import resume_command, shown
    from metatrain.tracking.console import Display

    if overrides or run.read_record().get("state") != "done":
        run_job(Job(config, run.path, overrides, changes=changes(run.load_config(TrainConfig), config)))
        return
    early = run.last_step() < config.outer.steps
    longer = "validation.patience=null" if early else "outer.steps=..."
    with Display() as display:
        display.say(f"{shown(run.path)} is finished{' (it stopped early)' if early else ''}; to train longer: {resume_command(run.path, longer)}")
        if run.results.exists():
            show(json.loads(run.results.read_text()), display)


def check_same(run: RunDirectory, config: TrainConfig) -> None:
    """Raises: UserError: the run that a grid found in its directory has other settings, or is finished and the data of its tasks has changed since."""
    from metatrain.run import checkpoint
    from metatrain.run.hints import shown
    from metatrain.tasks.distribution import load_tasks

    differing = [change for change in changes(run.load_config(TrainConfig), config) if not change.key.startswith(("hardware.", "tracking."))]
    if differing:
        raise UserError(
            f"{shown(run.path)} holds a run with other settings ({differing[0]}{', ...' if len(differing) > 1 else ''}); each run of a grid has a "
            "directory of its own: remove hydra.sweep.subdir, or choose another hydra.sweep.dir=DIR"
        )
    trained_on = checkpoint.newest_state(run.checkpoints).get("tasks")
    if run.read_record().get("state") != "done" or trained_on is None:
        return
    tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
    if not tasks.has_fingerprint(trained_on):
        raise UserError(f"{shown(run.path)} is finished, and the tasks' data has changed since: move or delete it to run it again")
