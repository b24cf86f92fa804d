"""`metatrain sweep`: hyperparameter search over settings of `train`, scored on meta-validation tasks only; meta-test tasks are never used."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.effects import effects_of
from metatrain.config.compose import run_under_hydra
from metatrain.config.effects import typed_keys
from metatrain.config.overrides import normalise, quoted
from metatrain.config.renamed import current_key
from metatrain.config.schema import SweepConfig, TrainConfig
from metatrain.errors import RestartableError, Stopped, UserError
from metatrain.plugins import check_installed

if TYPE_CHECKING:
    from metatrain.search.study import Study, Taken
    from metatrain.tracking.console import Display


USAGE = """\
usage: metatrain sweep search=NAME|SETTING=SWEEP ... [SETTING=VALUE ...]

Hyperparameter search over settings of `metatrain train` with Optuna, scored on the meta-validation tasks only. Running the same command again
resumes the search; running it several times at once shares it. The search ends with a table, plots, and the best settings as an experiment.

examples:
  metatrain sweep search=rates search.trials=8
  metatrain sweep algorithm=anil 'inner.lr=tag(log,interval(1e-3,1))' inner.steps=1,3,5 search.trials=4
"""
SHOWN = (
    "search.trials",
    "search.sampler",
    "search.pruner",
    "search.storage",
    "name",
    "outer.steps",
    "validation.every",
    "validation.episodes",
    "hardware.device",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's; a setting whose value is a sweep belongs to the search space."""
    _check_needs()
    from metatrain.search.space import split_sweeps
    from metatrain.search.study import DATABASE_ERRORS

    sweeps, others = split_sweeps(normalise("sweep", arguments))
    space = [f"++search.space={{{', '.join(f'{key}: {quoted(sweep)}' for key, sweep in sweeps.items())}}}"] if sweeps else []
    try:
        run_under_hydra("sweep", [*others, *space], SweepConfig, start)
    except DATABASE_ERRORS as error:
        why = str(error.__cause__ or error).splitlines()[0]  # Optuna's own message only guesses the reason
        raise RestartableError(f"search.storage: the database does not respond: {why}; run the same command to resume the search") from error


def start(config: SweepConfig, path: Path, overrides: list[str]) -> None:
    """Run trials of the search in `path` until none is left to start."""
    from metatrain.config.compose import composed
    from metatrain.run.directory import check_empty
    from metatrain.run.hints import shell_quoted, shown
    from metatrain.search import report
    from metatrain.search.space import distributions
    from metatrain.search.study import LOCK, Study, check_search, error_of, rows
    from metatrain.tracking.console import Display

    check_search(config.search)
    space = distributions(config.search.space)
    if config.validation.every < 1:
        raise UserError("validation.every=0: a search needs validation scores; set it to 1 or more")
    base = [item for item in overrides if not item.lstrip("+~").startswith(("search", "name="))]
    if path.is_dir() and not (path / LOCK).exists():
        check_empty(path)
    validations = -(-config.outer.steps // config.validation.every)
    with Display() as display:
        check_data(path, config, space)
        study = Study(path, path.name, config.search, space, config.seed, validations)
        display.log_to(path / "sweep.log")
        display.say(f"search: {path}; {config.search.trials} trials of {', '.join(space)}")

        without_effect: set[str] = set()

        def settings(taken: Taken) -> TrainConfig:
            given = [*base, *_overrides(taken.trial.params)]
            found = composed("train", given, TrainConfig)
            for line in effects_of(found).notes(typed_keys(given)):
                if line not in without_effect:
                    without_effect.add(line)
                    display.say(f"warning: trial {taken.number}: {line}")
            checkpoints = replace(found.checkpoint, keep=1)
            return replace(
                found,
                name=path.name,
                hardware=config.hardware,
                tracking=config.tracking,
                evaluation=replace(found.evaluation, arms=[]),
                checkpoint=checkpoints,
                report=False,
            )

        over, turns = study.turns()
        display.start("searching", turns, over)
        while (taken := study.take()) is not None:
            _run(study, taken, settings, display)
            study.clear_away()
            leading, before = study.best(), over
            over, _ = study.turns()
            display.advance({"best": f"{leading[1].value:.3f} (trial {leading[0]})"} if leading else {}, by=over - before)
        display.stop()

        trials = study.trials()
        found = rows(trials)
        display.table(report.table(found, list(space)))
        report.write_csv(path / "trials.csv", found)
        for number, trial in enumerate(trials):
            if error_of(trial):
                display.say(f"trial {number} failed: {error_of(trial)}")
        leading = study.best()
        if leading is None:
            raise UserError(f"no trial of {path} has finished; the failures are listed above")
        for picture in report.draw(path, study.study, several=len(space) > 1 and len(found) > 3):
            display.say(f"plot: {picture}")
        number, best = leading
        folder = path / "conf" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{config.name}_{report.BEST}".replace("/", "_")
        (folder / f"{name}.yaml").write_text(report.experiment(base, _overrides(best.params), _groups(), best.value or 0.0, name), encoding="utf-8")
        display.say(f"best: trial {number}, validation score {best.value:.3f}: {' '.join(_overrides(best.params))}")
        display.say(f"next: metatrain train --config-dir {shell_quoted(shown(path / 'conf'))} +experiment={name}")


def check_data(path: Path, config: SweepConfig, space: Collection[str]) -> None:
    """Raises: UserError: the data has changed since earlier trials of the search; not checked if the search varies the tasks."""
    if any(key.startswith(("tasks", "seed", "evaluation.seed")) for key in space):
        return
    for checkpoints in path.glob("trials/*/checkpoints"):
        from metatrain.run.checkpoint import newest_state
        from metatrain.run.hints import shown
        from metatrain.tasks.distribution import load_tasks

        if (judged_on := newest_state(checkpoints).get("tasks")) is None:
            continue
        tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
        if not tasks.has_fingerprint(judged_on):
            raise UserError(f"the tasks' data has changed since the search in {shown(path.absolute())} began: restore it, or move or delete the search")
        return


def _run(study: Study, taken: Taken, settings: Callable[[Taken], TrainConfig], display: Display) -> None:
    """Run one trial in its own process, from the beginning or from its newest checkpoint."""
    from metatrain.commands.job import Job
    from metatrain.commands.workers import run_in_processes
    from metatrain.run.directory import RunDirectory
    from metatrain.tracking.metrics import read_metrics, validation_scores

    run, number = RunDirectory(taken.path), taken.number
    is_decided = False

    def should_end() -> bool:
        nonlocal is_decided
        is_decided = is_decided or study.scored(taken, validation_scores(read_metrics(run.metrics)))
        return is_decided

    try:
        begun = run.config.exists()
        while begun and run.is_held():
            time.sleep(0.2)  # a killed search whose trial is still stopping
        if (begun and run.read_record().get("state") == "done") or should_end():
            pass
        else:
            proposal = _overrides(taken.trial.params)
            display.say(f"trial {number}: {' '.join(proposal)}{' (resumed)' if begun else ''}")
            run_in_processes(Job(settings(taken), taken.path, proposal, of_search=True, changes=() if begun else None), should_end, quiet=True)
        is_decided = should_end()
    except UserError as error:
        study.failed(taken, str(error))
        display.say(f"trial {number} failed: {error}")
        return
    except Stopped as stop:
        if not is_decided:
            raise Stopped(stop.signal_number, f"stopped in trial {number}; run the same command to resume it") from None
    scores = validation_scores(read_metrics(run.metrics))
    if is_decided:
        study.pruned(taken)
        display.say(f"trial {number}: paused after {len(scores)} validations, best {max(scores):.3f}")
    else:
        study.done(taken, scores)
        display.say(f"trial {number}: {max(scores):.3f}")


def _overrides(params: dict[str, object]) -> list[str]:
    from metatrain.search.space import overrides

    return overrides({current_key(key): value for key, value in params.items()})


def _groups() -> list[str]:
    """Config groups, whose options are chosen by name."""
    from metatrain.config.compose import conf_dir

    return [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]


def _check_needs() -> None:
    """Raises: UserError: Optuna or matplotlib is not installed."""
    for module in ("optuna", "matplotlib"):
        check_installed("metatrain sweep", module, "sweep")
