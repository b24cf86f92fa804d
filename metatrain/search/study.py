"""The study: which trial is next, what became of each, and all of it on disk, so that several processes can work on it, and go on.

With successive halving a trial waits at each rung. Optuna knows it as pruned; if it may go on, that is a further trial of Optuna's, with
the same settings and the same run, which goes on from its checkpoint.

Proposals of a trial are drawn with a seed of its own and depend on nothing but the trials before it. One process that is killed and
started again therefore proposes what it would have proposed anyway.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from metatrain.errors import UserError
from metatrain.search.config import SearchConfig

SAMPLERS = ("tpe", "random")
PRUNERS = ("halving", "hyperband", "none")
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError)  # what comes of any use of a study whose database does not answer
LOCK = ".taking.lock"  # in the directory of every search
_ERROR = "error"  # attribute of a trial that has failed: why
_NUMBER, _FROM = "number", "from"  # attributes of one that goes on: whose run it has, and the rung it comes from


def check_search(config: SearchConfig) -> None:
    """Raises: UserError: a value makes no sense."""
    if config.trials < 1:
        raise UserError(f"search.trials={config.trials} must be 1 or more")
    if config.reduction < 2:
        raise UserError(f"search.reduction={config.reduction} must be 2 or more")
    if not 0 < config.first_rung <= 1:
        raise UserError(f"search.first_rung={config.first_rung} must be above 0 and at most 1")
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if getattr(config, key) not in known:
            raise UserError(f"search.{key}={getattr(config, key)} is unknown; choose one of {', '.join(known)}")


@dataclass
class Taken:
    """A trial that this process works on; no other does while it holds the lock."""

    trial: Trial
    number: int  # among the trials that users know
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
        self.rungs = rungs(config, validations) if config.pruner == "halving" else []
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        self._taking = FileLock(folder / LOCK)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._taking:
            try:
                storage = config.storage or JournalStorage(JournalFileBackend(str(folder / "study.journal")))
                self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=self._pruner(), load_if_exists=True)
            except (ImportError, ValueError, OSError, SQLAlchemyError) as error:
                raise UserError(f"search.storage={_shown(config.storage)}: {_why(error)}") from error

    def take(self) -> Taken | None:
        """The next trial: one that its process has left, one that may go on, or a new one; None: there is none."""
        with self._taking:
            trials = self.study.get_trials(deepcopy=False)
            for left in trials:
                if left.state == TrialState.RUNNING and (taken := self._taken(Trial(self.study, left._trial_id), trials, len(left.intermediate_values))):
                    return taken
            chains = _chains(trials)
            # One that was let go on, by a process that came no further, is asked for first in any case.
            if len(chains) >= self._config.trials and not any(trial.state == TrialState.WAITING for trial in trials):
                further = self._further(chains)
                if further is None:
                    return None
                number, rung = further
                self.study.enqueue_trial(chains[number][0].params, user_attrs={_NUMBER: number, _FROM: rung})
            self.study.sampler = self._sampler(len(chains))
            return self._taken(self.study.ask(self._space), trials, 0)

    def _further(self, chains: Sequence[Sequence[FrozenTrial]]) -> tuple[int, int] | None:
        """The number of the trial that goes on, and from which rung, the highest first; None: none does now."""
        ended = any(chain[-1].state in (TrialState.COMPLETE, TrialState.RUNNING) for chain in chains)
        for rung in reversed(self.rungs):
            there: dict[int, float] = {}
            gone_on = {number for number, chain in enumerate(chains) if chain[-1].user_attrs.get(_FROM, 0) >= rung}
            for number, chain in enumerate(chains):
                scores = {step: value for trial in chain for step, value in trial.intermediate_values.items()}
                if rung in scores:
                    there[number] = max(value for step, value in scores.items() if step <= rung)
            ranked = sorted(there, key=lambda number: (-there[number], number))
            allowed = len(ranked) // self._config.reduction
            if ranked and not ended:
                allowed = max(allowed, 1)  # or none would ever come to its end
            for number in ranked[:allowed]:
                if number not in gone_on:
                    return number, rung
        return None

    def scored(self, taken: Taken, scores: Sequence[float]) -> bool:
        """Tell the study the validation scores of a trial so far, in order; whether it should end, for now or for good."""
        for score in scores[taken.reported :]:
            taken.reported += 1
            taken.trial.report(score if math.isfinite(score) else 0.0, taken.reported)
            if self._ends(taken):
                return True
        return self._ends(taken)

    def _ends(self, taken: Taken) -> bool:
        if self.rungs:
            return taken.reported in self.rungs and taken.reported > taken.trial.user_attrs.get(_FROM, 0)
        return taken.reported < self._validations and taken.trial.should_prune()

    def done(self, taken: Taken, scores: Sequence[float]) -> None:
        """A trial has come to its end; its best validation counts, as it does in a run."""
        self._end(taken, max(scores), TrialState.COMPLETE)

    def pruned(self, taken: Taken) -> None:
        self._end(taken, None, TrialState.PRUNED)

    def failed(self, taken: Taken, why: str) -> None:
        taken.trial.set_user_attr(_ERROR, why)
        self._end(taken, None, TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """Where each trial has come to, by number."""
        return [chain[-1] for chain in _chains(self.study.get_trials(deepcopy=False))]

    def turns(self) -> tuple[int, int]:
        """(how many are over, how many there will be): a trial has one from each rung that it comes to."""
        there = all_of_them = self._config.trials
        for _ in self.rungs:
            there = max(1, there // self._config.reduction)
            all_of_them += there
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)), all_of_them

    def best(self) -> tuple[int, FrozenTrial] | None:
        """The first of the best of those that have come to their end, with its number."""
        complete = [(number, trial) for number, trial in enumerate(self.trials()) if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda each: each[1].value or 0.0, default=None)

    def clear_away(self) -> None:
        """Remove weights that are of no more use: of trials that have come to their end, but the best, and once there is nothing to do of all others.

        What has been measured stays. A trial that may go on after all, in a longer search, is trained again.
        """
        with self._taking:
            chains, best = _chains(self.study.get_trials(deepcopy=False)), self.best()
            trials = [chain[-1] for chain in chains]
            over = len(trials) >= self._config.trials and all(trial.state.is_finished() for trial in trials) and self._further(chains) is None
            for number, trial in enumerate(trials):
                if (trial.state == TrialState.COMPLETE or over) and best is not None and number != best[0]:
                    for name in ("checkpoints", "model"):
                        shutil.rmtree(self._path(number) / name, ignore_errors=True)

    def _path(self, number: int) -> Path:
        """Of a trial's run."""
        return self.folder / "trials" / f"{number:04d}"

    def _taken(self, trial: Trial, trials: Sequence[FrozenTrial], reported: int) -> Taken | None:
        """The trial, if no other process has it; `trials`: all, or all before it."""
        begun = sum(_NUMBER not in each.user_attrs for each in trials if each.number < trial.number)
        number = trial.user_attrs.get(_NUMBER, begun)
        path = self._path(number)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return Taken(trial, number, path, lock, reported)

    def _end(self, taken: Taken, value: float | None, state: TrialState) -> None:
        self.study.tell(taken.trial, value, state=state)
        taken.lock.release()

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return RandomSampler(seed) if self._config.sampler == "random" else TPESampler(seed=seed, multivariate=True)

    def _pruner(self) -> BasePruner:
        if self._config.pruner == "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=self._validations, reduction_factor=self._config.reduction)
        return NopPruner()


def _chains(trials: Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
    """By number, Optuna's trials that are one for users, in their order."""
    found: list[list[FrozenTrial]] = []
    for trial in trials:
        if _NUMBER in trial.user_attrs:
            found[trial.user_attrs[_NUMBER]].append(trial)
        else:
            found.append([trial])
    return found


def rungs(config: SearchConfig, validations: int) -> list[int]:
    """The validations after which trials wait; after the last of all a trial is at its end."""
    found, rung = [], math.ceil(config.first_rung * validations)
    while rung < validations:
        found.append(rung)
        rung *= config.reduction
    return found


def error_of(trial: FrozenTrial) -> str:
    """Why a trial has failed."""
    return trial.user_attrs.get(_ERROR, "")


def rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """A record of each of `Study.trials`, for a table."""
    found = []
    for number, trial in enumerate(trials):
        seconds = trial.duration.total_seconds() if trial.duration else None
        scores = list(trial.intermediate_values.values())
        score = trial.value if trial.state == TrialState.COMPLETE else max(scores, default=None)
        record = {"trial": number, "state": trial.state.name.lower(), "score": score, "validations": len(scores), "seconds": seconds}
        found.append({**record, **trial.params})
    return found


def _shown(storage: str | None) -> str:
    """A database's URL without its password."""
    try:
        return str(make_url(storage)) if storage else "null"
    except SQLAlchemyError:
        return "(not a valid SQLAlchemy URL)"


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "the driver of this database is not installed; for postgresql+psycopg://...: pip install 'metatrain-nlp[postgresql]'"
    return str(error).splitlines()[0]
