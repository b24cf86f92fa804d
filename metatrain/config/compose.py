"""Running a command under Hydra: where its configuration lies, and how its errors reach the user."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from metatrain.config import user_folder
from metatrain.config.explain import explain
from metatrain.config.overrides import OPTIONAL_GROUPS, SHORTHANDS, normalise, split_flags, verbatim
from metatrain.config.schema import SCHEMAS, register
from metatrain.config.settings import settings_of
from metatrain.errors import RestartableError, UserError, one_line
from metatrain.tracking.console import announced

RUN_ID = "METATRAIN_RUN_ID"  # environment: what all ranks of a run call it


def conf_dir() -> Path:
    """The configuration folder: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def groups_of(command: str) -> dict[str, list[str]]:
    """The config groups of which a command takes an option by name (GROUP=OPTION), each with its options, sorted."""
    named = _in_defaults(command) | {group for group, key in SHORTHANDS.get(command, {}).items() if key == f"{group}.name"}
    found = {name: sorted(path.stem for path in (conf_dir() / name).glob("*.yaml")) for name in sorted(named)}
    return {name: options for name, options in found.items() if options}


def _in_defaults(entry: str) -> set[str]:
    """The groups in the defaults list of a file of conf/, and of those that it builds on."""
    found = set(OPTIONAL_GROUPS) if entry == "training" else set()
    for item in OmegaConf.load(conf_dir() / f"{entry}.yaml").defaults:
        if not isinstance(item, str):
            (name,) = item
            found.add(str(name).removeprefix("override ").strip("/"))
        elif (conf_dir() / f"{item}.yaml").is_file():
            found |= _in_defaults(item)
    return found


def _check_groups(command: str, overrides: list[str]) -> None:
    """Raises: UserError: an override chooses from a config group that the command does not have."""
    known = groups_of(command)
    for item in overrides:
        name = item.lstrip("+~").partition("=")[0]
        if "=" in item and "/" not in name and name not in (*known, *SHORTHANDS.get(command, {})) and (conf_dir() / name).is_dir():
            own = ", ".join(setting.key for setting in settings_of(SCHEMAS[command]) if setting.key.startswith(f"{name}."))
            hint = f"it has {own}" if own else f"metatrain {command} --help lists those it has"
            raise UserError(f"metatrain {command} has no setting '{name}'; {hint}")


def run_id() -> str:
    """Time and a few random letters: two runs started in the same second get different directories."""
    return os.environ.get(RUN_ID) or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def settings_hash(_root_: DictConfig) -> str:
    """Names a run or a search by what its numbers depend on: not by where it computes, whom it tells, and how long a search goes on."""
    settings = {key: value for key, value in _root_.items_ex(resolve=False) if key not in ("hydra", "hardware", "tracking")}
    plain: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    if "search" in plain:
        del plain["search"]["trials"], plain["search"]["storage"]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def run_under_hydra(
    command: str,
    overrides: list[str],
    schema: type,
    task: Callable[[Any, Path, list[str]], None],
    config_path: Path | None = None,
    program: str | None = None,
    complete: bool = True,
) -> None:
    """Compose the configuration `command`.yaml and call `task(config, run directory, overrides)`, once or for each job of a sweep.

    The task gets the configuration as an object of the dataclass `schema`; with complete=False as it is composed, in which values that must
    be set may be missing.

    Raises:
        UserError: the configuration cannot be composed, or a value that must be set is missing.
        Whatever the task raises.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit with 1 otherwise
    register()
    entered = False
    failure: BaseException | None = None
    failed: dict[str, UserError | RestartableError] = {}  # jobs of a grid, by their own overrides

    def job(config: DictConfig) -> None:
        nonlocal entered, failure
        entered = True
        hydra_config = HydraConfig.get()
        folder, started_in = _directories(hydra_config)
        try:
            if hydra_config.job.chdir:
                raise UserError("hydra.job.chdir=true would look for data in the run's directory; leave it out (hydra.run.dir=DIR says where a run goes)")
            for key in texts:
                config[key] = None  # OmegaConf takes the text ??? for a value that is missing
            with announced(*([] if own is None else user_folder.clashes(own, conf_dir()))):
                task(replace(typed(config, schema), **texts) if complete else config, folder, list(hydra_config.overrides.task))
        except BaseException as error:
            if folder.resolve().is_relative_to((started_in / "outputs").resolve()):
                with suppress(OSError):
                    folder.rmdir()  # which Hydra made; only if nothing is in it
            if is_of_grid():
                if isinstance(error, (UserError, RestartableError)):
                    name = " ".join(item for item in hydra_config.overrides.task if item not in arguments) or f"job {hydra_config.job.num}"
                    failed[name] = error
                    print(f"metatrain: error: {name}: {one_line(error)}", file=sys.stderr, flush=True)
                raise  # Hydra continues with the other jobs, and raises the first error at the end
            failure = error  # raised below, where Hydra adds nothing to it

    folder = conf_dir() if config_path is None else config_path
    if config_path is None:
        _check_groups(command, split_flags(overrides)[0])
    texts = verbatim(command, overrides)
    arguments = normalise(command, overrides)
    _check_directories(arguments)
    sys.argv = [program or f"metatrain {command}", *arguments]
    with user_folder.searched_first(split_flags(overrides)[1]) as own:
        try:
            hydra.main(version_base="1.3", config_path=str(folder.resolve()), config_name=command)(job)()
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
            if entered and not isinstance(error, HydraException):
                raise  # raised by the task of a sweep: a bug, which keeps its traceback
            raise UserError(explain(error, command, [folder] if own is None else [folder, own])) from error
        except RecursionError as error:
            if entered:
                raise
            hint = f"; {own} is searched first, so that a file in it cannot build on the packaged one of the same name: give it another name" if own else ""
            raise UserError(f"the defaults of a configuration file lead back to itself{hint}") from error
        except OSError as error:
            if entered:
                raise
            raise UserError(f"hydra.run.dir: cannot create {error.filename}: {error.strerror}") from error
        except (UserError, RestartableError) as error:
            if len(failed) < 2:
                raise
            kind = UserError if any(isinstance(each, UserError) for each in failed.values()) else RestartableError
            raise kind(f"{len(failed)} jobs failed: {'; '.join(f'{name}: {each}' for name, each in failed.items())}") from error
    if failure is not None:
        raise failure


def _check_directories(arguments: Sequence[str]) -> None:
    """Raises: UserError: the directory of one run is given for a grid, or that of a grid for one run; Hydra would ignore it."""
    keys = {item.lstrip("+").partition("=")[0] for item in arguments}
    grid = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    if grid and "hydra.run.dir" in keys:
        raise UserError("hydra.run.dir is the directory of a single run; with -m, hydra.sweep.dir=DIR says where the runs of the grid go")
    if not grid and (ignored := keys & {"hydra.sweep.dir", "hydra.sweep.subdir"}):
        raise UserError(f"{min(ignored)} is for the runs of a grid (-m); hydra.run.dir=DIR says where a single run goes")


def _directories(hydra_config: HydraConf) -> tuple[Path, Path]:
    """Return (the run directory, the one the command was started in). OmegaConf would take `${x}` in their names for a reference."""
    runtime: Any = OmegaConf.to_container(OmegaConf.structured(hydra_config).runtime, resolve=False)
    return Path(runtime["output_dir"]), Path(runtime["cwd"])


def is_of_grid() -> bool:
    """Whether this is one of the runs that `-m` makes."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def composed(command: str, overrides: list[str], schema: type) -> Any:
    """Another configuration: from the folders that a command searches while it runs under Hydra, in Python from the packaged ones.

    Raises:
        UserError: it cannot be composed.
    """
    try:
        if GlobalHydra.instance().is_initialized():
            return typed(hydra.compose(command, overrides), schema)
        register()
        with hydra.initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return typed(hydra.compose(command, overrides), schema)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(explain(error, command, [conf_dir()])) from error


def typed(config: DictConfig, schema: type) -> Any:
    """The configuration as an object of `schema`.

    Raises:
        UserError: a value is missing or cannot be.
    """
    try:
        missing = OmegaConf.missing_keys(config)
        if missing:
            found = min(missing)
            key = next((short for names in SHORTHANDS.values() for short, full in names.items() if full == found), found)
            raise UserError(f"{key} is not set; add {key}=... to the command")
        # As plain values first: `++` puts keys into a typed config that its type does not have, and a reference may bring any type.
        plain = OmegaConf.create(escaped(OmegaConf.to_container(config, resolve=True)))
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    _check_entries("", made)
    seed = getattr(made, "seed", 0)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} must be between 0 and {2**32 - 1}")
    return made


def escaped(value: Any) -> Any:
    """Values whose references are resolved, so that what looks like one in a text is not taken for one again."""
    if isinstance(value, dict):
        return {key: escaped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [escaped(each) for each in value]
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value) if isinstance(value, str) else value


def _check_entries(path: str, value: Any) -> None:
    """Raises: UserError: an entry of a list is itself a list or a mapping, which OmegaConf lets pass; no setting has such entries."""
    if is_dataclass(value):
        for each in fields(value):
            _check_entries(f"{path}.{each.name}" if path else each.name, getattr(value, each.name))
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_entries(f"{path}.{name}", each)
    elif isinstance(value, list):
        for place, each in enumerate(value):
            if isinstance(each, (list, dict)) or each is None:
                raise UserError(f"{path}[{place}]={each} must be a single value")


# Here, for launchers whose processes import this module and run no command.
if not OmegaConf.has_resolver("run_id"):
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True)
    OmegaConf.register_new_resolver("settings_hash", settings_hash)
