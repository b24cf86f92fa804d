"""The runs of a study: their settings, their directories, and which of them are there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metatrain.config.compose import NOT_HASHED, composed_for, hash_of
from metatrain.config.overrides import normalise
from metatrain.config.schema import EvaluateConfig, TrainConfig
from metatrain.errors import UserError
from metatrain.run.directory import RunDirectory, is_run
from metatrain.study.config import REFERENCE, StudyConfig

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
        seeds = study.seeds if run.seeds is None else run.seeds
        for full, settings in study.variants_of(run_name).items():
            try:
                found[full] = _planned(name, full, run.command, [study.base.get(run.command, ""), run.settings, settings], seeds, more, found)
            except (UserError, ValueError) as error:  # ValueError: of shlex, a quotation mark that is not closed
                raise UserError(f"runs.{full}: {error}") from error
    return [run for runs in found.values() for run in runs]


def _planned(
    study: str, name: str, command: str, settings: Sequence[str], seeds: Sequence[int], more: Sequence[str], earlier: dict[str, list[PlannedRun]]
) -> list[PlannedRun]:
    """Return one run of a study with each seed. Settings that name earlier runs differ between seeds; otherwise they are composed once."""
    added = [item for item in more if command == "train" or item.lstrip("+").startswith("hardware")]
    of_words: dict[tuple[str, ...], list[int]] = {}
    for seed in seeds:
        words = shlex.split(" ".join(settings))
        words = [REFERENCE.sub(lambda found, seed=seed: str(_at_seed(found[1], earlier[found[1]], seed).path), word) for word in words]  # type: ignore[misc]
        _check(words)
        of_words.setdefault(tuple(words), []).append(seed)
    found = {}
    for given, same in of_words.items():
        configs = composed_for(same, command, normalise(command, [*given, f"seed={same[0]}", *added]), _SCHEMAS[command])
        for seed, config in zip(same, configs):
            hashed = {key: value for key, value in asdict(config).items() if key not in NOT_HASHED}
            path = FOLDER / study / f"{name}-seed{seed}-{hash_of({'command': command, **hashed})}"
            found[seed] = PlannedRun(name, seed, command, [*given, f"seed={seed}", *added], config, path)
    return [found[seed] for seed in seeds]


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
