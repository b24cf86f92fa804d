"""Weights & Biases beside the local record. Nothing that goes wrong here may stop a run."""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metatrain.errors import UserError
from metatrain.tracking.config import TrackingConfig

MODES = ("auto", "wandb", "offline", "none")
_START_SECONDS = 20  # for the first contact with the server


class WandbRun:
    """Sends records to W&B, or does nothing. After the first failure it does nothing, with one warning."""

    def __init__(self, config: TrackingConfig, name: str, folder: Path, settings: Any, say: Callable[[str], None], run_id: str | None = None):
        """`settings` is the run's configuration, a dataclass; `run_id` that of the W&B run to go on with."""
        self.run_id = run_id
        self._say = say
        self._run = None
        mode = _mode(config.mode)
        if mode is None:
            if config.mode == "auto":
                say("tracking: local files; for Weights & Biases run `wandb login` or set WANDB_API_KEY")
            return
        self._guard(lambda: self._start(config, mode, name, folder, settings))

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._guard(lambda: self._run.log(dict(record), step=step))

    def finish(self, summary: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        self._guard(lambda: self._run.summary.update(dict(summary)))
        if self._run is not None:
            self._guard(self._run.finish)

    def _start(self, config: TrackingConfig, mode: str, name: str, folder: Path, settings: Any) -> None:
        import wandb

        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            group=config.group,
            name=name,
            id=self.run_id,
            resume="allow" if self.run_id else None,
            dir=str(folder),
            config=asdict(settings),
            mode=mode,
            settings=wandb.Settings(silent=True, init_timeout=_START_SECONDS, console="off"),
        )
        self.run_id = self._run.id
        self._say(f"tracking: Weights & Biases {mode}" + (f", {self._run.url}" if self._run.url else ", in this run directory"))

    def _guard(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001  third-party code with open-ended failures; the local record is complete without it
            self._run = None
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            self._say(f"warning: Weights & Biases is off for the rest of this run: {reason}")


def check_tracking(config: TrackingConfig) -> None:
    """Raises: UserError: the mode is unknown."""
    if config.mode not in MODES:
        raise UserError(f"tracking.mode={config.mode} is unknown; choose one of {', '.join(MODES)}")


def _mode(choice: str) -> str | None:
    if choice == "none" or (choice == "auto" and not _has_key()):
        return None
    return "offline" if choice == "offline" else "online"


def _has_key() -> bool:
    """Whether W&B would find a key; asked without importing it, which takes a second."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or os.environ.get("WANDB_DISABLED") == "true":
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host or "coreweave" in host for host in hosts)
