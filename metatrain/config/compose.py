"""Running a command under Hydra: where its configuration lies, and how its errors reach the user."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metatrain.config.explain import explain
from metatrain.config.schema import register
from metatrain.errors import UserError

OPTIONAL_GROUPS = ("experiment", "debug")  # not in any defaults list, so that `+experiment=x` works


def conf_dir() -> Path:
    """The configuration folder: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def run_id() -> str:
    """Time and a few random letters: two runs started in the same second get different directories."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def normalise(overrides: list[str]) -> list[str]:
    """Let `experiment=x` and `debug=x` mean `+experiment=x` and `+debug=x`; debug goes last, so that it wins over an experiment."""
    plain = [f"+{item}" if item.split("=", 1)[0] in OPTIONAL_GROUPS and "=" in item else item for item in overrides]
    return [item for item in plain if not item.startswith("+debug=")] + [item for item in plain if item.startswith("+debug=")]


def run_under_hydra(
    config_name: str,
    overrides: list[str],
    schema: type,
    task: Callable[[Any, Path, list[str]], None],
    config_path: Path | None = None,
    program: str | None = None,
) -> None:
    """Compose the configuration and call `task(config, run directory, overrides)`, once or for each job of a sweep.

    The task gets the configuration as an object of the dataclass `schema`.

    Raises:
        UserError: the configuration cannot be composed, or a value that must be set is missing.
        Whatever the task raises.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit with 1 otherwise
    if not OmegaConf.has_resolver("run_id"):
        OmegaConf.register_new_resolver("run_id", run_id, use_cache=True)
    register()
    entered = False

    def job(config: DictConfig) -> None:
        nonlocal entered
        entered = True
        missing = OmegaConf.missing_keys(config)
        if missing:
            key = min(missing)
            raise UserError(f"{key} is not set; add {key}=... to the command")
        try:
            typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
        except OmegaConfBaseException as error:
            raise UserError(explain(error, [], None)) from error
        hydra_config = HydraConfig.get()
        task(typed, Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task))

    folder = conf_dir() if config_path is None else config_path
    arguments = normalise(overrides)
    sys.argv = [program or f"metatrain {config_name}", *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(folder.resolve()), config_name=config_name)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        if entered and not isinstance(error, HydraException):
            raise  # raised by the task: a bug, which keeps its traceback
        raise UserError(explain(error, arguments, folder)) from error
    except OSError as error:
        if entered:
            raise
        raise UserError(f"hydra.run.dir: cannot create {error.filename}: {error.strerror}") from error
