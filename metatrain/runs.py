"""The commands `train`, `evaluate` and `finetune` in Python; each returns its run.

    run = metatrain.train(experiment="sentiment_fewshot", algorithm="maml", inner={"lr": 0.01})
    run.metrics                                  # a DataFrame
    run.model().adapt(examples)

Settings are those of the command line: keyword arguments, or a mapping with dotted keys.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from metatrain.api import load
from metatrain.commands import evaluate as evaluate_command
from metatrain.commands import finetune as finetune_command
from metatrain.commands import train as train_command
from metatrain.config.compose import run_under_hydra
from metatrain.config.python_settings import as_overrides
from metatrain.config.schema import SCHEMAS
from metatrain.errors import Stopped, UserError, of_system
from metatrain.run.directory import RunDirectory
from metatrain.run.hints import shown
from metatrain.run.rank_environment import number_of_ranks
from metatrain.tracking.console import MODE
from metatrain.tracking.metrics import read_metrics

if TYPE_CHECKING:
    import pandas

_ENVIRONMENT = ("HYDRA_FULL_ERROR", MODE)  # variables that a run sets


def train(
    settings: Mapping[str, Any] | None = None,
    /,
    *,
    directory: str | Path | None = None,
    config_dir: str | Path | None = None,
    quiet: bool = False,
    **named: Any,
) -> Run:
    """Meta-train a model as `metatrain train` does, and return the run.

    settings, named: the settings of the command (`metatrain train --help`), with dotted keys or as nested mappings:
    `metatrain.train(algorithm="maml", inner={"lr": 0.01, "steps": 5})`. directory: of the run (`hydra.run.dir`). config_dir: a folder of the
    user's own configuration files (`--config-dir`). quiet: print nothing.

    Raises:
        UserError: a setting does not exist or cannot be used, as the command would say.
        RestartableError: a fault of the machine, for example a full disk.
        KeyboardInterrupt: the run was interrupted, after its state was saved; `metatrain resume` resumes it.
    """
    if number_of_ranks() > 1:
        from metatrain.run.ranks import share_run_id

        share_run_id()
    return _run("train", train_command.start, {**(settings or {}), **named}, directory, config_dir, quiet)


def evaluate(
    settings: Mapping[str, Any] | None = None,
    /,
    *,
    directory: str | Path | None = None,
    config_dir: str | Path | None = None,
    quiet: bool = False,
    **named: Any,
) -> Run:
    """Compare a checkpoint with baselines as `metatrain evaluate` does, and return the run; arguments and errors as in `train`."""
    return _run("evaluate", evaluate_command.start, {**(settings or {}), **named}, directory, config_dir, quiet)


def finetune(
    settings: Mapping[str, Any] | None = None,
    /,
    *,
    directory: str | Path | None = None,
    config_dir: str | Path | None = None,
    quiet: bool = False,
    **named: Any,
) -> Run:
    """Adapt a checkpoint to examples as `metatrain finetune` does, and return the run; arguments and errors as in `train`.

    `metatrain.finetune(checkpoint="minilm", data={"train": "examples.csv", "test": "held_out.csv"})`
    """
    return _run("finetune", finetune_command.start, {**(settings or {}), **named}, directory, config_dir, quiet)


class Run:
    """A run of `train`, `evaluate` or `finetune`: its directory, and what its files hold."""

    def __init__(self, directory: str | Path):
        """Open an existing run. Raises: UserError: the directory is not that of a run."""
        self._run = RunDirectory.find(str(directory))

    def __repr__(self) -> str:
        record = self.record
        return f"<metatrain run: {record.get('command', 'train')}, {record.get('state', 'unknown')}, {shown(self.directory)}>"

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return self._run.path

    @property
    def record(self) -> dict[str, Any]:
        """Content of run.json: command, state, versions, seed."""
        return self._run.read_record()

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, resolved."""
        found: Any = OmegaConf.to_container(OmegaConf.load(self._run.config), resolve=True)
        return found

    @property
    def results(self) -> dict[str, Any]:
        """Content of results.json. Raises: UserError: the run has no results yet."""
        if not self._run.results.is_file():
            raise UserError(f"{self._run.results}: the run has no results yet; resume it with `metatrain resume`")
        found: dict[str, Any] = json.loads(self._run.results.read_text(encoding="utf-8"))
        return found

    @property
    def metrics(self) -> pandas.DataFrame:
        """Records of metrics.jsonl, one row each, with the columns `step` and `split`; empty for a run of `finetune`."""
        import pandas

        return pandas.DataFrame.from_records(read_metrics(self._run.metrics))

    @property
    def arms(self) -> pandas.DataFrame:
        """Scores of the arms, from 0 to 1: one row for each arm and number of shots, best first. Raises: UserError: the run has no scores of arms."""
        import pandas

        parts = self.results.get("by_shots")
        if parts is None:
            raise UserError(f"{shown(self.directory)} is a run of {self.record.get('command')}, which compares no arms; see results")
        rows = [
            {"shots": int(shots) if shots.isdecimal() else shots, "arm": name, **_numbers(arm)}
            for shots, part in parts.items()
            for name, arm in sorted(part["arms"].items(), key=lambda item: -item[1]["mean"])
        ]
        return pandas.DataFrame.from_records(rows)

    @property
    def report(self) -> Path | None:
        """The report, report.html; None: the run wrote none."""
        return self._run.report if self._run.report.is_file() else None

    def model(self, **options: Any) -> Any:
        """Return the model, as `metatrain.load` opens it with these options: one that adapts to tasks (train), or that predicts (finetune).

        Raises:
            UserError: the run has no model, or it cannot be read.
        """
        if self.record.get("command") == "evaluate":
            raise UserError(f"{shown(self.directory)} is an evaluation, which writes no model; load its checkpoint: {self.settings['checkpoint']}")
        return load(self.directory, **options)


def _numbers(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of an arm, its further metrics among them, without those of each task."""
    own = {key: value for key, value in arm.items() if key not in ("per_task", "metrics")}
    return {**own, **{metric: values["mean"] for metric, values in arm.get("metrics", {}).items()}}


def _run(
    command: str,
    start: Callable[[Any, Path, list[str]], None],
    settings: Mapping[str, Any],
    directory: str | Path | None,
    config_dir: str | Path | None,
    quiet: bool,
) -> Run:
    """Compose the settings, run the command in this process, and return the run."""
    overrides = as_overrides(command, {**settings, **({} if directory is None else {"hydra.run.dir": directory})})
    flags = [] if config_dir is None else ["--config-dir", str(config_dir)]
    directories: list[Path] = []

    def begin(config: Any, path: Path, given: list[str]) -> None:
        directories.append(path.resolve())
        start(config, path, given)

    with _process_kept():
        if quiet:
            os.environ[MODE] = "quiet"
        try:
            run_under_hydra(command, [*overrides, *flags], SCHEMAS[command], begin)
        except Stopped as stop:
            if stop.signal_number != signal.SIGINT:
                raise
            raise KeyboardInterrupt(str(stop)) from stop
        except SystemExit as end:  # one of several processes of the run, whose traceback is printed
            raise RuntimeError(f"a process of the run has failed, with exit code {end.code}") from end
        except OSError as error:
            if (found := of_system(error)) is None:
                raise
            raise found from error
    return Run(directories[0])


@contextmanager
def _process_kept() -> Iterator[None]:
    """Restore what a command sets for its own process: arguments, environment, threads, random state, and Hydra's state."""
    arguments, environment = sys.argv, {name: os.environ.get(name) for name in _ENVIRONMENT}
    threads, precision, state = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()  # a program under Hydra may call us
    try:
        yield
    finally:
        sys.argv = arguments
        for name, value in environment.items():
            with suppress(KeyError):
                del os.environ[name]
            if value is not None:
                os.environ[name] = value
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_rng_state(state)
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, config
