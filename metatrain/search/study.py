"""Study of a search: proposes trials and stores their outcomes on disk, so that several processes can share it and resume it.

With successive halving, a trial pauses at each rung, and Optuna records it as pruned. If it is promoted, Optuna gets a new trial with the
same settings; it resumes the same run from its checkpoint.

The proposals for a trial have their own seed and depend only on earlier trials, so a process that is killed and restarted makes the same
proposals.
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
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError)  # raised by any use of a study whose database does not respond
LOCK = ".taking.lock"  # lock file in the directory of every search
_ERROR = "error"  # attribute of a failed trial: the reason
_NUMBER, _FROM = "number", "from"  # attributes of a promoted trial: its number as users see it, and the rung that it is resumed from


def check_search(config: SearchConfig) -> None:
    """Raises: UserError: a value is invalid."""
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
    """A trial that this process runs; the lock keeps other processes from running it."""

    trial: Trial
    number: int  # number of the trial as users see it
    path: Path  # run directory
    lock: FileLock
    reported: int  # number of validation scores reported to the study


class Study:
    """Search in one directory."""

    def __init__(self, folder: Path, name: str, config: SearchConfig, space: dict[str, BaseDistribution], seed: int, validations: int):
        """validations: number of validations of a trial that is not stopped early; a trial can be stopped at each of them.

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
        """Return the next trial: an abandoned one, a promoted one, or a new one; None if there is none."""
        with self._taking:
            trials = self.study.get_trials(deepcopy=False)
            for left in trials:
                if left.state == TrialState.RUNNING and (taken := self._taken(Trial(self.study, left._trial_id), trials, len(left.intermediate_values))):
                    return taken
            chains = _chains(trials)
            # A trial enqueued by a process that was then killed comes first in any case.
            if len(chains) >= self._config.trials and not any(trial.state == TrialState.WAITING for trial in trials):
                further = self._further(chains)
                if further is None:
                    return None
                number, rung = further
                self.study.enqueue_trial(chains[number][0].params, user_attrs={_NUMBER: number, _FROM: rung})
            self.study.sampler = self._sampler(len(chains))
            return self._taken(self.study.ask(self._space), trials, 0)

    def _further(self, chains: Sequence[Sequence[FrozenTrial]]) -> tuple[int, int] | None:
        """Return (number, rung) of the trial to promote next, highest rung first; None if there is none."""
        ended = any(chain[-1].state in (TrialState.COMPLETE, TrialState.RUNNING) for chain in chains)
        for rung in reversed(self.rungs):
            there: dict[int, float] = {}
            promoted = {number for number, chain in enumerate(chains) if chain[-1].user_attrs.get(_FROM, 0) >= rung}
            for number, chain in enumerate(chains):
                scores = {step: value for trial in chain for step, value in trial.intermediate_values.items()}
                if rung in scores:
                    there[number] = max(value for step, value in scores.items() if step <= rung)
            ranked = sorted(there, key=lambda number: (-there[number], number))
            allowed = len(ranked) // self._config.reduction
            if ranked and not ended:
                allowed = max(allowed, 1)  # otherwise no trial would ever be completed
            for number in ranked[:allowed]:
                if number not in promoted:
                    return number, rung
        return None

    def scored(self, taken: Taken, scores: Sequence[float]) -> bool:
        """Report the validation scores of a trial so far, in order; return True if the trial must pause or stop now."""
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
        """Record that a trial is complete; its value is its best validation score, as in a run."""
        self._end(taken, max(scores), TrialState.COMPLETE)

    def pruned(self, taken: Taken) -> None:
        self._end(taken, None, TrialState.PRUNED)

    def failed(self, taken: Taken, why: str) -> None:
        taken.trial.set_user_attr(_ERROR, why)
        self._end(taken, None, TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """Return the latest Optuna trial of each trial, by number."""
        return [chain[-1] for chain in _chains(self.study.get_trials(deepcopy=False))]

    def turns(self) -> tuple[int, int]:
        """Return (number of finished Optuna trials, expected total); a trial is one Optuna trial per rung that it reaches."""
        there = all_of_them = self._config.trials
        for _ in self.rungs:
            there = max(1, there // self._config.reduction)
            all_of_them += there
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)), all_of_them

    def best(self) -> tuple[int, FrozenTrial] | None:
        """Return (number, trial) of the best complete trial, the first one of equals."""
        complete = [(number, trial) for number, trial in enumerate(self.trials()) if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda each: each[1].value or 0.0, default=None)

    def clear_away(self) -> None:
        """Delete the weights of complete trials except the best; at the end of the search, delete those of all other trials too.

        Scores are kept. A trial that is promoted later, in a longer search, is trained again.
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
        """Return the run directory of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def _taken(self, trial: Trial, trials: Sequence[FrozenTrial], reported: int) -> Taken | None:
        """Return the trial, or None if another process runs it; trials: all trials, or at least all earlier ones."""
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
    """Return, by number of the trial as users see it, its Optuna trials in order."""
    found: list[list[FrozenTrial]] = []
    for trial in trials:
        if _NUMBER in trial.user_attrs:
            found[trial.user_attrs[_NUMBER]].append(trial)
        else:
            found.append([trial])
    return found


def rungs(config: SearchConfig, validations: int) -> list[int]:
    """Return the numbers of validations after which trials pause, without the last validation, which completes a trial."""
    found, rung = [], math.ceil(config.first_rung * validations)
    while rung < validations:
        found.append(rung)
        rung *= config.reduction
    return found


def error_of(trial: FrozenTrial) -> str:
    """Return the reason for the failure of a trial."""
    return trial.user_attrs.get(_ERROR, "")


def rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """Return a table row for each of `Study.trials`."""
    found = []
    for number, trial in enumerate(trials):
        seconds = trial.duration.total_seconds() if trial.duration else None
        scores = list(trial.intermediate_values.values())
        score = trial.value if trial.state == TrialState.COMPLETE else max(scores, default=None)
        record = {"trial": number, "state": trial.state.name.lower(), "score": score, "validations": len(scores), "seconds": seconds}
        found.append({**record, **trial.params})
    return found


def _shown(storage: str | None) -> str:
    """Return the URL of a database without its password."""
    try:
        return str(make_url(storage)) if storage else "null"
    except SQLAlchemyError:
        return "(not a valid SQLAlchemy URL)"


def _why(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "the driver of this database is not installed; for postgresql+psycopg://...: pip install 'metatrain-nlp[postgresql]'"
    return str(error).splitlines()[0]
