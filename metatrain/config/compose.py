"""Run a command under Hydra: configuration folders, composition, and errors as one line."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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

from metatrain import plugins
from metatrain.config import user_folder
from metatrain.config.effects import Effects, typed_keys
from metatrain.config.explain import explain
from metatrain.config.overrides import OPTIONAL_GROUPS, SHORTHANDS, normalise, split_flags, verbatim
from metatrain.config.renamed import NOTES, former
from metatrain.config.schema import SCHEMAS, register
from metatrain.config.settings import escaped, settings_of
from metatrain.errors import RestartableError, UserError, one_line
from metatrain.tracking.console import announced

NOT_HASHED = ("hydra", "hardware", "tracking")  # settings that change no results
RUN_ID = "METATRAIN_RUN_ID"  # environment variable with the run id, which all ranks share


def conf_dir() -> Path:
    """Return the packaged configuration folder: inside the installed package, or next to it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def groups_of(command: str) -> dict[str, list[str]]:
    """Return the config groups that a command accepts as GROUP=OPTION, with their sorted options, then those of plug-ins."""
    named = _in_defaults(command) | {group for group, key in SHORTHANDS.get(command, {}).items() if key == f"{group}.name"}
    found = {name: sorted(path.stem for path in (conf_dir() / name).glob("*.yaml")) for name in sorted(named)}
    return {name: [*options, *plugins.of_setting(name)] for name, options in found.items() if options}


def _in_defaults(entry: str) -> set[str]:
    """Return the config groups in the defaults list of a file of conf/, and of the files in that list."""
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


def _check_chosen(command: str, overrides: list[str]) -> None:
    """Raises: UserError: an override changes a setting of a config group from which no option is chosen."""
    keys = [item.lstrip("+~").partition("=")[0] for item in overrides]
    empty = {each.name for each in fields(SCHEMAS[command]) if each.default is None and (conf_dir() / each.name).is_dir()} - set(keys)
    for key in keys:
        group = key.partition(".")[0]
        if "." in key and group in empty:
            raise UserError(f"{key} needs {group}=NAME beside it; without one, {command} takes the {group} of the run as they are")


def run_id() -> str:
    """Return the time and a random suffix, so that two runs started in the same second get different directories."""
    return os.environ.get(RUN_ID) or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def settings_hash(_root_: DictConfig) -> str:
    """Return a hash of the settings that results depend on: without hardware, tracking, and the storage and number of trials of a search."""
    settings = {key: value for key, value in _root_.items_ex(resolve=False) if key not in NOT_HASHED}
    plain: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)
    if "search" in plain:
        del plain["search"]["trials"], plain["search"]["storage"]
    return hash_of(former(plain))


def hash_of(settings: Mapping[str, Any]) -> str:
    """Return the hash that names a run with these settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_under_hydra(
    command: str,
    overrides: list[str],
    schema: type,
    task: Callable[[Any, Path, list[str]], None],
    config_path: Path | None = None,
    program: str | None = None,
    complete: bool = True,
    effects: Callable[[Any], Effects] | None = None,
) -> None:
    """Compose the configuration `command`.yaml and call `task(config, run directory, overrides)`, once or for each job of a grid.

    The task gets the configuration as an instance of the dataclass `schema`; with complete=False as a DictConfig, in which mandatory values
    may be missing. effects: which settings of a configuration have an effect; None: that is not checked here. In a grid or an experiment's file,
    settings without effect are only named.

    Raises:
        UserError: the configuration cannot be composed, a mandatory value is missing, or a setting on the command line has no effect.
        Whatever the task raises.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints the error and exits with 1
    register()
    entered = False
    failure: BaseException | None = None
    failed: dict[str, UserError | RestartableError] = {}  # failed jobs of a grid, by the overrides that differ between jobs

    def job(config: DictConfig) -> None:
        nonlocal entered, failure
        entered = True
        hydra_config = HydraConfig.get()
        folder = _directory(hydra_config)
        try:
            if hydra_config.job.chdir:
                raise UserError("hydra.job.chdir=true would look for data in the run's directory; leave it out (hydra.run.dir=DIR says where a run goes)")
            for key in texts:
                config[key] = None  # OmegaConf would take the text ??? as a missing value
            made = replace(typed(config, schema), **texts) if complete else config
            given = list(hydra_config.overrides.task)
            if effects is not None:
                _check_effects(effects(made), given)
            with announced(*([] if own is None else user_folder.clashes(own, conf_dir())), *NOTES.take()):
                task(made, folder, given)
        except BaseException as error:
            if folder.resolve().is_relative_to(outputs) or folder.resolve() == new:
                with suppress(OSError):
                    folder.rmdir()  # created by Hydra; removed only if it is empty
            if is_of_grid():
                if isinstance(error, (UserError, RestartableError)):
                    name = " ".join(item for item in hydra_config.overrides.task if item not in arguments) or f"job {hydra_config.job.num}"
                    failed[name] = error
                    print(f"metatrain: error: {name}: {one_line(error)}", file=sys.stderr, flush=True)
                raise  # Hydra continues with the other jobs, and raises the first error at the end
            failure = error  # raised below, where Hydra cannot wrap it

    folder = conf_dir() if config_path is None else config_path
    if config_path is None:
        _check_groups(command, split_flags(overrides)[0])
    texts = verbatim(command, overrides)
    arguments = normalise(command, overrides)
    _check_directories(arguments)
    named = next((Path(item.partition("=")[2].strip("'\"")) for item in arguments if item.lstrip("+").startswith("hydra.run.dir=")), None)
    outputs = Path("outputs").resolve()  # as it is before hydra.job.chdir changes the working directory
    new = None if named is None or named.exists() else named.resolve()  # a run directory that Hydra will make
    sys.argv = [program or f"metatrain {command}", *arguments]
    with user_folder.searched_first(split_flags(overrides)[1], run=config_path) as own:
        try:
            hydra.main(version_base="1.3", config_path=str(folder.resolve()), config_name=command)(job)()
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
            if entered and not isinstance(error, HydraException):
                raise  # raised by the task of a sweep: a bug, which keeps its traceback
            raise UserError(explain(error, command, [folder] if own is None else [folder, own])) from error
        except AssertionError:  # of OmegaConf: a setting in a group that is null
            if not entered:
                _check_chosen(command, split_flags(overrides)[0])
            raise
        except RecursionError as error:
            if entered:
                raise
            hint = f"; {own} is searched first, so a file in it cannot extend the packaged file of the same name: rename it" if own else ""
            raise UserError(f"the defaults list of a configuration file refers back to the file itself{hint}") from error
        except OSError as error:
            if entered:
                raise
            raise UserError(f"hydra.run.dir: cannot create {error.filename}: {error.strerror}") from error
        except (UserError, RestartableError) as error:
            if len(failed) < 2:
                raise
            kind = UserError if any(isinstance(each, UserError) for each in failed.values()) else RestartableError
            raise kind(f"{len(failed)} jobs failed: {'; '.join(f'{name}: {each}' for name, each in failed.items())}") from error
        finally:
            NOTES.reset()
    if failure is not None:
        raise failure


def _check_effects(effects: Effects, overrides: Sequence[str]) -> None:
    """Add notes about settings without effect.

    Raises:
        UserError: a setting on the command line has no effect, and this is a single run.
    """
    if not is_of_grid():
        effects.check(overrides)
    for line in effects.notes(typed_keys(overrides)):
        NOTES.add(f"warning: {line}")
    for file, keys in user_folder.settings_of_option("experiment"):
        for line in effects.notes(key for key in keys if key not in typed_keys(overrides)):
            NOTES.add(f"{file}: {line}")


def _check_directories(arguments: Sequence[str]) -> None:
    """Raises: UserError: hydra.run.dir is given with -m, or hydra.sweep.dir without it; Hydra would ignore it."""
    keys = {item.lstrip("+").partition("=")[0] for item in arguments}
    grid = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & set(arguments))
    if grid and "hydra.run.dir" in keys:
        raise UserError("hydra.run.dir is the directory of a single run; with -m, hydra.sweep.dir=DIR says where the runs of the grid go")
    if not grid and (ignored := keys & {"hydra.sweep.dir", "hydra.sweep.subdir"}):
        raise UserError(f"{min(ignored)} is for the runs of a grid (-m); hydra.run.dir=DIR says where a single run goes")


def _directory(hydra_config: HydraConf) -> Path:
    """Return the run directory, without resolving `${x}` in its name."""
    runtime: Any = OmegaConf.to_container(OmegaConf.structured(hydra_config).runtime, resolve=False)
    return Path(runtime["output_dir"])


def is_of_grid() -> bool:
    """Return True if this run is a job of a grid (`-m`)."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def composed(command: str, overrides: list[str], schema: type) -> Any:
    """Return another configuration, composed from the folders of the running command, or outside Hydra from the packaged folder.

    Raises:
        UserError: it cannot be composed.
    """
    return typed(_composed(command, overrides), schema)


def composed_for(seeds: Sequence[int], command: str, overrides: list[str], schema: type) -> list[Any]:
    """Return the same for each seed; composing takes most of the time, and is done once."""
    config, found = _composed(command, overrides), []
    for seed in seeds:
        config.seed = seed
        found.append(typed(config, schema))
    return found


def _composed(command: str, overrides: list[str]) -> DictConfig:
    try:
        if GlobalHydra.instance().is_initialized():
            return hydra.compose(command, overrides)
        register()
        with hydra.initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return hydra.compose(command, overrides)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(explain(error, command, [conf_dir()])) from error


def typed(config: DictConfig, schema: type) -> Any:
    """Return the configuration as an instance of `schema`.

    Raises:
        UserError: a value is missing or invalid.
    """
    try:
        missing = OmegaConf.missing_keys(config)
        if missing:
            found = min(missing)
            key = next((short for names in SHORTHANDS.values() for short, full in names.items() if full == found), found)
            raise UserError(f"{key} is not set; add {key}=... to the command")
        # Via plain values, because `++` adds keys that the typed config does not have, and an interpolation can have any type.
        plain = OmegaConf.create(escaped(OmegaConf.to_container(config, resolve=True)))
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), plain))
    except OmegaConfBaseException as error:
        raise UserError(explain(error)) from error
    _check_entries("", made)
    seed = getattr(made, "seed", 0)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed} must be between 0 and {2**32 - 1}")
    return made


def _check_entries(path: str, value: Any) -> None:
    """Raises: UserError: an entry of a list is a list, a mapping or null, which OmegaConf accepts but no setting allows."""
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


# Registered here for launchers whose processes import this module without running a command.
if not OmegaConf.has_resolver("run_id"):
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True)
    OmegaConf.register_new_resolver("settings_hash", settings_hash)
