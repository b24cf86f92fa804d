"""The study: which trial is next, what became of each, and all of it on disk, so that several processes can work on it, and go on.

Proposals of a trial are drawn with a seed of its own and depend on nothing but the trials before it. One process that is killed and
started again therefore proposes what it would have proposed anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from metatrain.errors import UserError
from metatrain.search.config import SearchConfig

SAMPLERS = ("tpe", "random")
PRUNERS = ("halving", "hyperband", "none")
_ERROR = "error"  # attribute of a trial that has failed: why


def check_search(config: SearchConfig) -> None:
    """Raises: UserError: a value makes no sense."""
    if config.trials < 1:
        raise UserError(f"search.trials={config.trials} must be 1 or more")
    if config.reduction < 2:
        raise UserError(f"search.reduction={config.reduction} must be 2 or more")
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if getattr(config, key) not in known:
            raise UserError(f"search.{key}={getattr(config, key)} is unknown; choose one of {', '.join(known)}")


@dataclass
class Taken:
    """A trial that this process works on; no other does while it holds the lock."""

    trial: Trial
    path: Path  # of its run
    lock: FileLock
    reported: int  # validations that the study knows of


class Study:
    """One search in one directory."""

    def __init__(self, folder: Path, name: str, config: SearchConfig, space: dict[str, BaseDistribution], seed: int, validations: int):
        """validations: of a trial that is not ended early, which are the steps at which it may be.

        Raises:
            UserError: the storage cannot be opened.
        """
        self.folder, self._config, self._space, self._seed, self._validations = folder, config, space, seed, validations
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        self._taking = FileLock(folder / ".taking.lock")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._taking:
            try:
                storage = config.storage or JournalStorage(JournalFileBackend(str(folder / "study.journal")))
                self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=self._pruner(), load_if_exists=True)
            except (ImportError, ValueError, OSError, SQLAlchemyError) as error:
                raise UserError(f"search.storage={config.storage}: {str(error).splitlines()[0]}") from error

    def take(self) -> Taken | None:
        """The next trial: one that its process has left, or a new one; None: all have been begun."""
        with self._taking:
            trials = self.study.get_trials(deepcopy=False)
            for left in trials:
                if left.state == TrialState.RUNNING and (taken := self._taken(Trial(self.study, left._trial_id), len(left.intermediate_values))):
                    return taken
            if len(trials) >= self._config.trials:
                return None
            self.study.sampler = self._sampler(len(trials))
            return self._taken(self.study.ask(self._space), 0)

    def scored(self, taken: Taken, scores: Sequence[float]) -> bool:
        """Tell the study the validation scores of a trial so far, in order; whether it should end."""
        for score in scores[taken.reported :]:
            taken.reported += 1
            taken.trial.report(score if math.isfinite(score) else 0.0, taken.reported)
            if self._is_behind(taken):
                return True
        return self._is_behind(taken)

    def done(self, taken: Taken, scores: Sequence[float]) -> None:
        """A trial has come to its end; its best validation counts, as it does in a run."""
        self._end(taken, max(scores), TrialState.COMPLETE)

    def pruned(self, taken: Taken) -> None:
        self._end(taken, None, TrialState.PRUNED)

    def failed(self, taken: Taken, why: str) -> None:
        taken.trial.set_user_attr(_ERROR, why)
        self._end(taken, None, TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """All of them, in their order."""
        return self.study.get_trials(deepcopy=False)

    def best(self) -> FrozenTrial | None:
        """The first of the best of those that were not ended early."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: trial.value, default=None)

    def path(self, trial: FrozenTrial | Trial) -> Path:
        """Of its run."""
        return self.folder / "trials" / f"{trial.number:04d}"

    def _is_behind(self, taken: Taken) -> bool:
        return taken.reported < self._validations and taken.trial.should_prune()

    def _taken(self, trial: Trial, reported: int) -> Taken | None:
        path = self.path(trial)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return Taken(trial, path, lock, reported)

    def _end(self, taken: Taken, value: float | None, state: TrialState) -> None:
        self.study.tell(taken.trial, value, state=state)
        taken.lock.release()

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return RandomSampler(seed) if self._config.sampler == "random" else TPESampler(seed=seed, multivariate=True)

    def _pruner(self) -> BasePruner:
        if self._config.pruner == "halving":
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=self._config.reduction)
        if self._config.pruner == "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=self._validations, reduction_factor=self._config.reduction)
        return NopPruner()


def error_of(trial: FrozenTrial) -> str:
    """Why a trial has failed."""
    return trial.user_attrs.get(_ERROR, "")


def rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """A record of each trial, for a table."""
    found = []
    for trial in trials:
        seconds = trial.duration.total_seconds() if trial.duration else None
        scores = list(trial.intermediate_values.values())
        score = trial.value if trial.state == TrialState.COMPLETE else max(scores, default=None)
        record = {"trial": trial.number, "state": trial.state.name.lower(), "score": score, "validations": len(scores), "seconds": seconds}
        found.append({**record, **trial.params})
    return found
