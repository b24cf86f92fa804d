"""A run directory: what was asked for, what happened, and where everything of the run lies."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metatrain import __version__
from metatrain.config.explain import explain
from metatrain.errors import RestartableError, Stopped, UserError, is_disk_full
from metatrain.training.whole_files import write_json, write_text

_PACKAGES = ("torch", "transformers", "datasets", "hydra-core", "omegaconf", "numpy", "wandb")
_SECRET_WORDS = ("token", "api_key", "password", "secret")


class RunDirectory:
    """Paths of a run and its small files. All files appear whole or not at all, except logs, which grow."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.tokenizer = path / "tokenizer"  # of a model with random weights, made from the training tasks
        self.results = path / "results.json"
        self.analysis = path / "analysis.json"  # a closer look at the meta-test, for the report
        self.report = path / "report.html"
        self.log = path / "run.log"
        self._lock = FileLock(path / ".lock")  # of the operating system, which lets go of it when the process ends, however it ends

    @classmethod
    def create(cls, path: Path, config: Any, overrides: list[str], command: str, latest: bool = True) -> RunDirectory:
        """Start a new run in `path` and, if so wished, point `outputs/latest` to it.

        Raises:
            UserError: the directory holds another run, or cannot be written.
        """
        run = cls(path.resolve())
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.lock()
            if run.config.exists():
                run.unlock()
                raise UserError(f"{run.path} already holds a run; {_remedy(command, run.path)}")
            write_text(run.path / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create([_redacted(item) for item in overrides])))
            write_text(run.config, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise UserError(f"hydra.run.dir={path} cannot be written: {error.strerror}; choose another with hydra.run.dir=DIR") from error
        run.update(command=command, process=_process(), started=_now(), seed=config.seed, versions=_versions(), git=_git_revision())
        if latest:
            point(Path("outputs/latest"), run.path)
            point(_latest(command), run.path)
        return run

    @classmethod
    def find(cls, name: str, command: str = "train") -> RunDirectory:
        """An existing run by path, or the `latest` of a command.

        Raises:
            UserError: there is no such run.
        """
        path = _latest(command) if name == "latest" else Path(name).expanduser()
        if name == "latest" and not path.exists():
            raise UserError(f"there is no latest run of metatrain {command} below outputs/; name a run directory")
        if not (path / "config.yaml").is_file():
            raise UserError(f"{path} is not a run directory: it has no config.yaml; metatrain ls runs shows yours")
        return cls(path.resolve())

    def go_on(self, config: Any, overrides: list[str], changes: list[str], say: Callable[[str], None]) -> None:
        """Take over the settings of a resumption, and say what is different from here on."""
        record = self.read_record()
        for line in changes:
            say(f"changed: {line}")
        for name, now in _versions().items():
            before = record.get("versions", {}).get(name, now)
            if before != now:
                say(f"warning: {name} is {now} now, and was {before}: numbers may differ from those of an uninterrupted run")
        if changes:
            write_text(self.config, OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True))
        self.update(versions=_versions(), **({"resumed_with": [*record.get("resumed_with", []), *overrides]} if overrides else {}))

    def lock(self) -> None:
        """Keep other processes out of the run until `unlock`, or the end of this one.

        Raises:
            UserError: another process has it.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            holder = self.read_record().get("process", {})
            by = f" {holder['pid']} on {holder['host']}" if holder else ""
            raise UserError(f"{self.path} is in use by another process{by}; wait for its end, or stop it") from error

    def is_held(self) -> bool:
        """Whether a process has the run.

        Raises:
            OSError: only its owner may look.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return True
        self._lock.release()
        return False

    def unlock(self) -> None:
        self._lock.release(force=True)

    def with_tokenizer(self, config: Any) -> Any:
        """The run's settings (those of `train`), with its own tokenizer if it has made one."""
        if not self.tokenizer.is_dir():
            return config
        return replace(config, model=replace(config.model, tokenizer=str(self.tokenizer)))

    def read_record(self) -> dict[str, Any]:
        try:
            return json.loads(self.record.read_text()) if self.record.exists() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.record} is not valid JSON: {error.msg}; delete it to go on") from error

    def update(self, **facts: Any) -> None:
        """Add facts to run.json."""
        write_json(self.record, {**self.read_record(), **facts})

    def load_config(self, schema: type) -> Any:
        """The saved configuration of a run of `train`, as an object of `schema`.

        Raises:
            UserError: it is a run of another command, or its configuration cannot be read or does not fit.
        """
        command = self.read_record().get("command", "train")
        if command != "train":
            raise UserError(f"{shown(self.path)} is a run of metatrain {command}; one of metatrain train is wanted: metatrain ls runs shows yours")
        try:
            return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(self.config)))
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"{self.config}: {explain(error)}") from error


@contextmanager
def recorded(run: RunDirectory) -> Iterator[None]:
    """Record in run.json how the work inside ends, and let go of the run. A process that is killed leaves `running` there."""
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
        if is_disk_full(error):
            state, code = "failed", RestartableError.exit_code
        raise
    finally:
        run.update(state=state, exit=code, ended=_now())
        run.unlock()


def shown(path: Path) -> str:
    """The path as one would type it: from the working directory, if it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def typed_setting(key: str, path: Path) -> str:
    """KEY=PATH as it can be pasted into a shell."""
    name = shown(path)
    return f"{key}={name}" if re.fullmatch(r"[\w./-]+", name) else shlex.quote(f'{key}="{name}"')


def _remedy(command: str, path: Path) -> str:
    return f"go on with it by: metatrain resume {path}" if command == "train" else "choose another directory with hydra.run.dir=DIR"


def _process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _latest(command: str) -> Path:
    """The link to the newest run of one command; `outputs/latest` is the newest of all."""
    return Path("outputs") / f".latest-{command}"


def point(link: Path, path: Path) -> None:
    """Make `link` point to the run at `path`: a relative link where it lies below outputs/."""
    root = link.parent.resolve()
    root.mkdir(exist_ok=True)
    target = os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
    temporary = root / f".{link.name}-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


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
    """Revision of the checkout the command was started in, if it is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
