"""`metatrain serve`: many tasks on one model, over HTTP."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import ServeConfig

TOKEN = "METATRAIN_TOKEN"  # environment variable
USAGE = f"""\
usage: metatrain serve [checkpoint=RUN|latest|MODEL] [folder=DIR] [SETTING=VALUE ...]

Serve few-shot classifiers over HTTP: create a task from examples, add examples, remove it, predict. All tasks share one model; each stores only what
adapts, in a file of `folder`. http://HOST:PORT/ is a page to try it, /docs lists the routes, /openapi.json describes them for programs. If the
environment variable {TOKEN} is set, clients have to send it (Authorization: Bearer TOKEN); hosts that other machines reach need it. Needs the
extra `serve`.

examples:
  metatrain serve
  metatrain serve checkpoint=latest folder=tickets port=8080
"""
SHOWN = ("checkpoint", "folder", "host", "port", "adapt", "max_tasks", "max_texts", "max_examples", "max_body_mb", "hardware.device", "hardware.threads")
_LOCAL = ("127.0.0.1", "localhost")
_LAST_REQUESTS = 30  # seconds that requests in progress may take after the signal to stop


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("serve", arguments, ServeConfig, start, effects=effects_of_use)


def start(config: ServeConfig, path: Path, overrides: list[str]) -> None:
    """Open the model and its tasks, and answer requests until a signal arrives."""
    from metatrain.errors import Stopped, UserError
    from metatrain.plugins import check_installed
    from metatrain.run.atomic import folder_for
    from metatrain.run.hints import shown

    for module in ("fastapi", "uvicorn"):
        check_installed("metatrain serve", module, "serve")
    _check(config)
    token = os.environ.get(TOKEN) or None
    if token is None and config.host not in _LOCAL:
        raise UserError(f"host={config.host} can be reached from other machines; set the environment variable {TOKEN} to a secret that clients send")
    listening = _listening(config.host, config.port)
    import uvicorn

    from metatrain.api import Origin, open_model
    from metatrain.serving.app import Limits, application
    from metatrain.serving.store import TaskStore
    from metatrain.serving.worker import Worker

    model = open_model(Origin(config.checkpoint, True if config.adapt == "head" else None, adapt=config.adapt), config.hardware)
    folder = folder_for("folder", config.folder)
    store = TaskStore(model, folder, config.max_tasks)
    limits = Limits(config.max_texts, config.max_examples, int(config.max_body_mb * 1e6), _LOCAL if token is None else ("*",))
    app = application(store, Worker(model), config.checkpoint, limits, token)
    server = uvicorn.Server(uvicorn.Config(app, config.host, config.port, log_level="warning", timeout_graceful_shutdown=_LAST_REQUESTS, server_header=False))
    port = listening.getsockname()[1]
    print(f"{len(store)} tasks in {shown(folder)}; serving {config.checkpoint} at http://{config.host}:{port}/", flush=True)
    try:
        server.run([listening])
    except (Stopped, KeyboardInterrupt) as stop:  # uvicorn sends itself the signal again when it has stopped
        number = stop.signal_number if isinstance(stop, Stopped) else signal.SIGINT
        raise Stopped(number, f"stopped; {len(store)} tasks are in {shown(folder)}") from stop


def _listening(host: str, port: int) -> socket.socket:
    """Raises: UserError: the address cannot be used."""
    from metatrain.errors import UserError

    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"host={host} port={port} cannot be used: {error.strerror}; choose another port, or stop what uses this one") from error


def _check(config: ServeConfig) -> None:
    """Raises: UserError: a setting is out of range."""
    from metatrain.errors import UserError

    if not 0 <= config.port < 2**16:
        raise UserError(f"port={config.port} must be between 0 and {2**16 - 1}")
    for key in ("max_tasks", "max_texts", "max_examples", "max_body_mb"):
        if not 0 < getattr(config, key) < float("inf"):
            raise UserError(f"{key}={getattr(config, key)} must be positive")
