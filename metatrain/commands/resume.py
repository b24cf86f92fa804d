"""`metatrain resume [RUN|latest] [overrides]`: go on with a stopped run, exactly where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig

USAGE = """\
usage: metatrain resume [RUN|latest] [SETTING=VALUE ...]

Goes on with a stopped or killed run from its newest checkpoint. Without settings the result equals that of a run that
was never interrupted, bit for bit (on CPUs, with the same number of threads). RUN is a run directory; without it, the
newest run below outputs/. Settings replace the run's own from here on, for example outer.steps=200 to train longer.
"""


def main(arguments: list[str]) -> None:
    """Entry point; the first argument without '=' names the run."""
    from omegaconf import OmegaConf

    from metatrain.training.run_directory import RunDirectory, write_text

    if "-h" in arguments or "--help" in arguments:
        print(USAGE)
        return
    names = [item for item in arguments if "=" not in item and not item.startswith("-")]
    run = RunDirectory.find(names[0] if names else "latest")
    overrides = [item for item in arguments if item not in names[:1]]
    run.load_config(TrainConfig)  # a damaged config.yaml is named before Hydra sees it

    def go_on(config: TrainConfig, path: Path, changed: list[str]) -> None:
        from metatrain.commands.meta_test import show
        from metatrain.commands.train import meta_train
        from metatrain.tracking.console import Display

        if changed:
            write_text(run.config, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))
            run.update(resumed_with=[*run.read_record().get("resumed_with", []), *changed])
        elif run.read_record().get("state") == "done":
            with Display() as display:
                display.say(f"{run.path} is finished; to train longer: metatrain resume {run.path} outer.steps=...")
                show(json.loads(run.results.read_text()), display)
            return
        meta_train(run.with_tokenizer(config), lambda: run, resume=True)

    settings = [
        f"hydra.run.dir='{run.path}'",
        "hydra.output_subdir=null",
        "hydra.job.name=resume",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    run_under_hydra("config", [*overrides, *settings], TrainConfig, go_on, config_path=run.path, program="metatrain resume")
