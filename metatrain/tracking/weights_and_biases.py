"""Weights & Biases, in addition to the local files. A failure there never stops or delays a run."""

from __future__ import annotations

import http.client
import json
import netrc
import os
import queue
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from metatrain.errors import UserError
from metatrain.plugins import check_installed
from metatrain.tracking.config import TrackingConfig

TENSORBOARD = "tensorboard"
MODES = ("auto", "wandb", "offline", TENSORBOARD, "none")
_START_SECONDS = 20  # timeout of the first contact with the server
_END_SECONDS = 30  # timeout of uploads at the end of a run
_AWAY_SECONDS = 2  # the same if the server does not answer


@dataclass(frozen=True)
class Attached:
    """Files and tables that W&B gets at the end of a run; files are paths."""

    page: str | None = None  # the report
    files: dict[str, str] = field(default_factory=dict)  # results and report, by name, kept with the tables as an artifact
    images: dict[str, str] = field(default_factory=dict)  # charts, by name
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)  # by name: `columns` and `rows`
    model: str | None = None  # model directory, uploaded as an artifact
    model_facts: dict[str, Any] = field(default_factory=dict)  # metadata of the artifact


class Tracker(Protocol):
    """Record of a run outside of its own files."""

    run_id: str | None  # of the service, for a resumed run

    @property
    def is_on(self) -> bool:
        """True if records are kept."""

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Keep the numbers of a meta-update or validation."""

    def finish(self, summary: Mapping[str, Any], attached: Attached | None = None) -> None:
        """Keep the summary and the files of a finished run."""

    def close(self) -> None:
        """End the record of a run that was stopped or has failed."""


class WandbRun:
    """Connection to W&B through a separate process; does nothing if W&B is not used, or after a failure, which gives one warning."""

    def __init__(self, config: TrackingConfig, name: str, folder: Path, settings: Any, say: Callable[[str], None], run_id: str | None = None, after: int = 0):
        """settings: the run's configuration, a dataclass; run_id: the W&B run to resume, which already has the steps up to `after`."""
        self.run_id = run_id
        self._say, self._after, self._folder = say, after, folder
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[dict[str, Any]] = deque()  # messages of the process that have not been handled yet
        self._server: str | None = None
        mode = _mode(config.mode)
        if mode is None:
            if config.mode != "none" and _is_disabled():
                say("tracking: local files only; Weights & Biases is disabled by WANDB_MODE or WANDB_DISABLED")
            elif config.mode == "auto":
                say("tracking: local files only; to use Weights & Biases, run `wandb login` or set WANDB_API_KEY")
            return
        self.run_id = run_id or secrets.token_hex(4)
        self._mode = mode
        first = {
            "project": config.project,
            "entity": config.entity,
            "group": config.group,
            "name": name,
            "id": self.run_id,
            "resume": "allow" if run_id else None,
            "dir": str(folder),
            "config": asdict(settings),
            "mode": mode,
            "seconds": _START_SECONDS,
        }
        # In its own session, so that Ctrl-C reaches only the run; -P: import no module from the working directory.
        command = [sys.executable, "-P", "-m", "metatrain.tracking.wandb_process"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        try:
            self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
        except OSError as error:
            say(f"warning: Weights & Biases is disabled for this run: {error}")
            return
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, args=(self._process,), daemon=True)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._writer.start()
        self._reader.start()
        self._send(first)

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Send a record without waiting. Steps that W&B already has from before a resume are not sent again."""
        self._hear()
        if self._process is not None and step > self._after:
            self._send({"log": dict(record), "step": step})

    @property
    def is_on(self) -> bool:
        """True if records are sent."""
        self._hear()
        return self._process is not None

    def finish(self, summary: Mapping[str, Any], attached: Attached | None = None) -> None:
        """Send the summary and the files, and wait a limited time for the upload."""
        self._hear()
        process = self._process
        if process is None:
            return
        self._send({"finish": dict(summary), **asdict(attached or Attached())})
        self._lines.put(None)
        begin = time.monotonic()
        there = self._mode == "offline" or _answers(self._server)
        try:
            process.wait((_END_SECONDS if there else _AWAY_SECONDS) - (time.monotonic() - begin))
        except subprocess.TimeoutExpired:
            self._kill()
            written = any((self._folder / "wandb").glob("*run-*"))
            later = f"to upload it later: wandb sync {shlex.quote(str(self._folder / 'wandb'))}/*run-*" if written else "metrics.jsonl has all metrics"
            self._say(f"warning: the upload to Weights & Biases did not finish in time; {later}")
            return
        self._reader.join(_AWAY_SECONDS)
        self._hear()
        self._kill()

    def close(self) -> None:
        """End the process after a run was stopped or has failed; it gets `_AWAY_SECONDS` to send what is queued."""
        if self._process is None:
            return
        self._lines.put(None)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_AWAY_SECONDS)
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._lines.put(json.dumps(message) + "\n")

    def _hear(self) -> None:
        """Handle the messages of the process."""
        while self._said:
            message = self._said.popleft()
            if "error" in message:
                self._say(f"warning: Weights & Biases is disabled for the rest of this run: {message['error']}")
                self._kill()
            elif "server" in message:
                self._server = message["server"]
            else:
                self._say(f"tracking: Weights & Biases {self._mode}" + (f", {message['url']}" if message["url"] else ", in this run directory"))

    def _write(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):  # the process has ended, and its last message says why
            while (line := self._lines.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()
            process.stdin.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        heard = False
        assert process.stdout is not None
        for line in process.stdout:
            try:
                self._said.append(json.loads(line))
            except ValueError:
                continue  # printed by W&B itself
            heard = heard or "error" in self._said[-1]
        if process.wait() != 0 and not heard:
            self._said.append({"error": f"its process ended with exit code {process.returncode}"})


def check_tracking(config: TrackingConfig) -> None:
    """Raises: UserError: the mode is unknown, or online mode has no API key."""
    if config.mode not in MODES:
        raise UserError(f"tracking.mode={config.mode} is unknown; choose one of {', '.join(MODES)}")
    if config.mode == TENSORBOARD:
        check_installed("tracking=tensorboard", "tensorboard", "tensorboard")
    if config.mode == "wandb" and _mode(config.mode) == "online" and not has_key():
        raise UserError(
            "tracking=wandb: no Weights & Biases API key is configured; run `wandb login`, set WANDB_API_KEY, or choose tracking=offline, which writes files "
            "for `wandb sync`"
        )


def _answers(server: str | None) -> bool:
    """Return True if the server answers within `_AWAY_SECONDS`."""
    if server is None:
        return False  # the process has not reported its server yet
    found: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(server, timeout=_AWAY_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an HTTP error is an answer
        except (OSError, http.client.HTTPException):
            return
        found.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # a name lookup has no timeout of its own
    thread.start()
    thread.join(_AWAY_SECONDS)
    return bool(found)


def _mode(choice: str) -> str | None:
    """Return the mode of W&B: online | offline | None (not used). With `auto` and `wandb`, the environment variables of W&B apply."""
    if choice in ("none", "offline"):
        return None if choice == "none" else choice
    if _is_disabled():
        return None
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return "offline"
    return "online" if choice == "wandb" or has_key() else None


def _is_disabled() -> bool:
    return os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes")


def has_key() -> bool:
    """Return True if W&B would find an API key; checked without importing wandb, which takes a second."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host or "coreweave" in host for host in hosts)
