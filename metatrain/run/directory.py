"""Run directory: settings, record and files of a run."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metatrain.config.explain import explain
from metatrain.config.settings import Change, escaped
from metatrain.config.user_folder import current_settings
from metatrain.errors import RestartableError, Stopped, UserError, is_disk_full
from metatrain.paths import local_path
from metatrain.run.atomic import write_json, write_text
from metatrain.run.hints import resume_command, shown
from metatrain.run.latest import DEBUG, latest, link_elsewhere, make_latest
from metatrain.run.relative_paths import located
from metatrain.tracking.metrics import read_metrics
from metatrain.version import __version__

_PACKAGES = ("torch", "transformers", "datasets", "hydra-core", "omegaconf", "numpy", "wandb")
_FIRST = ("run.json", "overrides.yaml", ".overrides.yaml.tmp", ".config.yaml.tmp")  # files that a run writes before config.yaml
# Files that may exist in the directory of a new run: those of a run that was killed early, of Hydra, of a file system or of git.
_BESIDE = (".run.json.tmp", ".hydra", "lost+found", ".DS_Store", ".gitkeep")
_SECRET_WORDS = ("token", "api_key", "password", "secret")


class RunDirectory:
    """Paths of a run, and access to its small files. All files are written atomically, except logs, which are appended to."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.tokenizer = path / "tokenizer"  # trained on the training tasks, for a randomly initialised model
        self.results = path / "results.json"
        self.analysis = path / "analysis.json"  # analysis of the meta-test, for the report
        self.report = path / "report.html"
        self.log = path / "run.log"
        self._lock = FileLock(path / ".lock")  # released by the operating system when the process ends for any reason

    @classmethod
    def create(cls, path: Path, config: Any, overrides: list[str], command: str, of_search: bool = False, is_latest: bool = True) -> RunDirectory:
        """Create the directory of a new run.

        of_search: a trial of a search, which gets no links below outputs/. is_latest: make it `latest` now; otherwise the caller does later.

        Raises:
            UserError: the directory holds another run or anything else, or cannot be written.
        """
        run = cls(path.resolve())
        debug = any(re.match(r"\+*debug=", item) for item in overrides)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._check_new(command)
            run.lock()
            if run.config.exists():  # another process has created the run meanwhile
                run.unlock()
                run._check_new(command)
            # config.yaml is written last: a directory without it is not a run yet.
            facts = {"directory": str(Path.cwd()), **({DEBUG: True} if debug else {})}
            seed = getattr(config, "seed", None)  # None: a command without random numbers
            run.update(command=command, process=_process(), started=_now(), seed=seed, versions=_versions(), git=_git_revision(), **facts)
            write_text(run.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create([_redacted(item) for item in overrides])))
            run._write_config(config)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(f"hydra.run.dir={path} cannot be written: {error.strerror}; choose another with hydra.run.dir=DIR") from error
        if not of_search:
            link_elsewhere(run.path)
            if is_latest:
                make_latest(run.path, command, debug)
        return run

    @classmethod
    def find(cls, name: str, command: str = "train") -> RunDirectory:
        """Return an existing run, by path or as the `latest` of a command.

        Raises:
            UserError: there is no such run.
        """
        path = latest(command) if name == "latest" else local_path(name)
        if name == "latest" and not path.exists():
            raise UserError(f"no run of metatrain {command} below outputs/ yet; give a run directory")
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} is not a run directory: it has no config.yaml; metatrain ls runs lists your runs")
        if not is_run(path):
            raise UserError(f"{path} is not a run directory: it has no run.json of metatrain; metatrain ls runs lists your runs")
        return cls(path.resolve())

    @classmethod
    def check_new(cls, path: Path, command: str) -> None:
        """Raises: UserError: a run cannot be created in `path`; checked before work begins."""
        if path.is_dir():
            cls(path.resolve())._check_new(command)

    def _check_new(self, command: str) -> None:
        """Raises: UserError: the directory holds a run, or other files that a run could overwrite."""
        if is_run(self.path):
            with suppress(PermissionError):  # the lock belongs to another user
                if self.is_held():
                    raise self._in_use()
            resumable = command == self.read_record().get("command", "train") == "train"
            remedy = f"resume it with: {resume_command(self.path)}" if resumable else "choose another directory with hydra.run.dir=DIR"
            raise UserError(f"{shown(self.path)} already holds a run; {remedy}")
        check_empty(self.path, _FIRST if _has_record(self.path) else ())

    def record_resumption(self, config: Any, overrides: list[str], changes: Sequence[Change], say: Callable[[str], None]) -> None:
        """Save the settings of a resumed run, and report what changes from here on."""
        record = self.read_record()
        if record.get("directory", str(Path.cwd())) != str(Path.cwd()):
            say(f"relative paths in the settings are resolved against {record['directory']}, where the run was started")
        for change in changes:
            say(f"changed: {change}")
        for name, now in _versions().items():
            before = record.get("versions", {}).get(name, now)
            if before != now:
                say(f"warning: {name} is now {now}, was {before}: results may differ from those of an uninterrupted run")
        if changes:
            self._write_config(config)
        self.update(versions=_versions(), **({"resumed_with": [*record.get("resumed_with", []), *overrides]} if overrides else {}))

    def lock(self) -> None:
        """Lock the run against other processes, until `unlock` or the end of this process.

        Raises:
            UserError: another process holds the lock.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise self._in_use() from error

    def _in_use(self) -> UserError:
        holder = self.read_record().get("process", {})
        by = f" {holder['pid']} on {holder['host']}" if holder else ""
        return UserError(f"{self.path} is in use by another process{by}; wait until it finishes, or stop it")

    def is_held(self) -> bool:
        """Return True if a process holds the lock of the run.

        Raises:
            OSError: the lock belongs to another user.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return True
        self._lock.release()
        return False

    def unlock(self) -> None:
        self._lock.release(force=True)

    def with_own_model(self, config: Any) -> Any:
        """Return the settings of `train` with the tokenizer that the run has trained, and the commit of the hub model that it began with, if any."""
        own = {"tokenizer": str(self.tokenizer)} if self.tokenizer.is_dir() else {}
        if commit := self.read_record().get("model_commit"):
            own["revision"] = commit
        return replace(config, model=replace(config.model, **own)) if own else config

    def read_record(self) -> dict[str, Any]:
        try:
            return json.loads(self.record.read_text()) if self.record.exists() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.record} is not valid JSON: {error.msg}; delete it to resume") from error

    def last_step(self) -> int:
        """Return the last meta-update in metrics.jsonl; 0: there is none."""
        return max((record["step"] for record in read_metrics(self.metrics)), default=0)

    def update(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.record, {**self.read_record(), **facts})

    def _write_config(self, config: Any) -> None:
        """Write the resolved settings; text that looks like an interpolation is escaped."""
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(escaped(asdict(config)))))

    def located(self, config: Any, keep: Collection[str] = ()) -> Any:
        """Return settings of this run with relative paths resolved against the directory where it was started, except the settings `keep`."""
        directory = self.read_record().get("directory")
        return config if directory is None else located(config, Path(directory), keep)

    def load_config(self, schema: type) -> Any:
        """Return the saved configuration of a run of `train` as an object of `schema`, with paths resolved as in `located`.

        Raises:
            UserError: it is a run of another command, or its configuration cannot be read or does not fit the schema.
        """
        command = self.read_record().get("command", "train")
        if command != "train":
            use = f"to use its model, write checkpoint={shown(self.model)}; " if command == "finetune" and self.model.is_dir() else ""
            raise UserError(f"{shown(self.path)} is a run of metatrain {command}; a run of metatrain train is required: {use}metatrain ls runs lists your runs")
        try:
            return self.located(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), current_settings(OmegaConf.load(self.config))[0])))
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"{self.config}: {explain(error)}") from error


@contextmanager
def recorded(run: RunDirectory) -> Iterator[None]:
    """Record in run.json how the block ends, and unlock the run. A killed process leaves the state `running`."""
    state, code = "crashed", 1
    run.update(state="running", process=_process(), exit=None)
    try:
        yield
        state, code = "done", 0
    except (UserError, RestartableError) as error:
        state, code = "failed", error.exit_code
        raise
    except Stopped as stop:
        state, code = "stopped", stop.exit_code
        raise
    except OSError as error:
        if not is_disk_full(error):
            raise
        state, code = "failed", RestartableError.exit_code
        if run.read_record().get("command") != "train":
            raise  # other commands cannot be resumed
        raise RestartableError(f"the disk is full: {error}; free some space, then: {resume_command(run.path)}") from error
    finally:
        run.update(state=state, exit=code, ended=_now())
        run.unlock()


def is_run(path: Path) -> bool:
    """Return True if this is a run directory of metatrain; other programs write config.yaml or checkpoints/ too."""
    return (path / "config.yaml").is_file() and (_has_record(path) or any(path.glob("checkpoints/step-*/MANIFEST.json")))


def check_empty(path: Path, allowed: Collection[str] = ()) -> None:
    """Raises: UserError: the directory for a new run holds files other than those with the names `allowed`."""
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in (*_BESIDE, *allowed) and not _is_output(entry))
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(f"hydra.run.dir={shown(path.absolute())} holds {foreign[0]}{more}, and is not a run of metatrain; a run needs a new or empty directory")


def _has_record(path: Path) -> bool:
    """Return True if there is a run.json written by metatrain."""
    try:
        return "metatrain" in json.loads((path / "run.json").read_text(encoding="utf-8"))["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_output(entry: Path) -> bool:
    """Return True if this may be the redirected output of this command, or is the empty lock file of a run."""
    return (entry.suffix in (".log", ".out", ".err") and entry.name != "run.log") or (entry.name == ".lock" and entry.stat().st_size == 0)


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _redacted(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{key}=***" if value and any(word in key.lower() for word in _SECRET_WORDS) else override


def _versions() -> dict[str, str]:
    found = {"metatrain": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """Return the git revision of the working directory; None: it is not a git checkout."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
