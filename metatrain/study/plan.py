"""The runs of a study: their settings, their directories, and which of them are there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metatrain.config.compose import NOT_HASHED, composed, hash_of
from metatrain.config.overrides import normalise
from metatrain.config.schema import EvaluateConfig, TrainConfig
from metatrain.errors import UserError
from metatrain.run.directory import RunDirectory, is_run
from metatrain.study.config import REFERENCE, RunConfig, StudyConfig

FOLDER = Path("outputs/studies")
_SCHEMAS = {"train": TrainConfig, "evaluate": EvaluateConfig}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, with one seed."""

    name: str  # RUN, or RUN/VARIANT
    seed: int
    command: str  # train | evaluate
    overrides: list[str]
    config: Any  # TrainConfig | EvaluateConfig
    path: Path

    @property
    def state(self) -> str:
        """Return done, stopped (resumable), or missing."""
        if not is_run(self.path):
            return "missing"
        if RunDirectory(self.path).read_record().get("state") == "done":
            return "done"
        return "stopped" if self.command == "train" else "missing"


def planned(study: StudyConfig, name: str, more: Sequence[str]) -> list[PlannedRun]:
    """Return the runs of the study `name`, in an order in which each needs only earlier ones; more: settings added to every run.

    Raises:
        UserError: the settings of a run cannot be composed.
    """
    found: dict[str, list[PlannedRun]] = {}
    for run_name, run in study.runs.items():
        for full, settings in study.variants_of(run_name).items():
            found[full] = [_planned(study, name, full, run, settings, seed, more, found) for seed in (study.seeds if run.seeds is None else run.seeds)]
    return [run for runs in found.values() for run in runs]


def _planned(
    study: StudyConfig, study_name: str, name: str, run: RunConfig, variant: str, seed: int, more: Sequence[str], earlier: dict[str, list[PlannedRun]]
) -> PlannedRun:
    try:
        words = shlex.split(" ".join([study.base.get(run.command, ""), run.settings, variant]))
        words = [REFERENCE.sub(lambda found: str(_at_seed(found[1], earlier[found[1]], seed).path), word) for word in words]
        _check(words)
        added = [item for item in more if run.command == "train" or item.lstrip("+").startswith("hardware")]
        overrides = [*words, f"seed={seed}", *added]
        config = composed(run.command, normalise(run.command, overrides), _SCHEMAS[run.command])
    except (UserError, ValueError) as error:  # ValueError: of shlex, a quotation mark that is not closed
        raise UserError(f"runs.{name}: {error}") from error
    settings = {key: value for key, value in asdict(config).items() if key not in NOT_HASHED}
    path = FOLDER / study_name / f"{name}-seed{seed}-{hash_of({'command': run.command, **settings})}"
    return PlannedRun(name, seed, run.command, overrides, config, path)


def _at_seed(name: str, runs: Sequence[PlannedRun], seed: int) -> PlannedRun:
    """Return the run with this seed, or the only one."""
    of_seed = [run for run in runs if run.seed == seed] or list(runs)
    if len(of_seed) > 1:
        raise UserError(f"${{run:{name}}} has no run with seed {seed}; it has {', '.join(str(run.seed) for run in runs)}")
    return of_seed[0]


def _check(words: Sequence[str]) -> None:
    """Raises: UserError: a word is no setting, or one that the study makes."""
    for word in words:
        if word.startswith("-") or "=" not in word and not word.startswith("~"):
            raise UserError(f"'{word}' is not SETTING=VALUE; flags such as -m are not possible in a study")
        key = word.lstrip("+~").partition("=")[0]
        if key == "seed":
            raise UserError(f"{word}: list the seeds in `seeds`")
        if key.startswith("hydra."):
            raise UserError(f"{word}: the study names the directories of its runs; leave {key} out")
