"""`metatrain resume [RUN|latest] [overrides]`: go on with a stopped run, exactly where it stopped."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig
from metatrain.config.settings import leaves

if TYPE_CHECKING:
    from metatrain.training.run_directory import RunDirectory

USAGE = """\
usage: metatrain resume [RUN|latest] [SETTING=VALUE ...]

Goes on with a stopped or killed run from its newest checkpoint. Without settings the result equals that of a run that
was never interrupted, bit for bit (on CPUs, with the same number of threads). RUN is a run directory; without it, the
newest run of train below outputs/. Settings replace the run's own from here on.

examples:
  metatrain resume
  metatrain resume latest outer.steps=200
"""


def main(arguments: list[str]) -> None:
    """Entry point; the first argument that is no setting names the run."""
    from metatrain.training.run_directory import RunDirectory

    names = [item for item in arguments if not item.startswith("-") and ("=" not in item or Path(item).is_dir())]
    run = RunDirectory.find(names[0] if names else "latest")
    overrides = [item for item in arguments if item not in names[:1]]
    run.load_config(TrainConfig)  # a damaged config.yaml is named before Hydra sees it

    def start(config: TrainConfig, path: Path, changed: list[str]) -> None:
        go_on(run, config, changed)

    settings = [
        f"hydra.run.dir='{run.path}'",
        "hydra.output_subdir=null",
        "hydra.job.name=resume",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    run_under_hydra("config", [*overrides, *settings], TrainConfig, start, config_path=run.path, program="metatrain resume")


def go_on(run: RunDirectory, config: TrainConfig, overrides: list[str]) -> None:
    """Go on with a run from where it is; one that is finished is only shown, if it is to have no other settings."""
    from metatrain.commands.meta_test import show
    from metatrain.commands.train import Job, run_job
    from metatrain.tracking.console import Display
    from metatrain.training.run_directory import shown

    if overrides or run.read_record().get("state") != "done":
        run_job(Job(config, run.path, overrides, changes=_changes(run.load_config(TrainConfig), config)))
        return
    with Display() as display:
        display.say(f"{shown(run.path)} is finished; to train longer: metatrain resume {shown(run.path)} outer.steps=...")
        if run.results.exists():
            show(json.loads(run.results.read_text()), display)


def _changes(before: TrainConfig, after: TrainConfig) -> list[str]:
    """Settings that differ."""
    old, new = dict(leaves(asdict(before))), dict(leaves(asdict(after)))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
