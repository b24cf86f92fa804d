"""`metatrain explain SETTING`: its meaning, its value, and which file or override set it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain import plugins
from metatrain.config.renamed import current_key, said_of
from metatrain.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from metatrain.config.settings import Setting

USAGE = """\
usage: metatrain explain KEY [SETTING=VALUE ...]

Explain a setting: its meaning, type, default and value, which file or override set it, and which methods and experiments set it. If several
commands have the setting, the value is that of `metatrain train`. If KEY is a group, list its settings; without KEY, list all groups.

examples:
  metatrain explain outer.lr
  metatrain explain outer.weight_interpolation +experiment=clinc150_cross_domain
  metatrain explain oos_false_rejection_rate
  metatrain explain inner
"""
# plan, doctor and resume have the settings of train.
_COMMANDS = (
    "train",
    "sweep",
    "finetune",
    "evaluate",
    "predict",
    "score",
    "export",
    "serve",
    "push",
    "tasks",
)  # plan, doctor and resume have the settings of train
_MISSING = "???"  # OmegaConf's mark of a value that must be given


def main(arguments: list[str]) -> None:
    """Entry point; the first argument without '=' names the setting."""
    names = [item for item in arguments if "=" not in item and not item.startswith("-")]
    key, settings = names[0].rstrip(".") if names else None, _settings()
    if key is not None and (new := current_key(key)) != key:
        print(said_of(key))
        key = new
    if key is None:
        for command in _COMMANDS:
            if own := {each: of[command] for each, of in settings.items() if next(iter(of)) == command}:
                _list(command, own, "")
        return
    if key not in settings:
        raise UserError(f"no setting named '{key}'{_hint(key, settings)}")
    of_commands = settings[key]
    command = next(iter(of_commands))
    if of_commands[command].type == "group":
        _list(command, {each: of[command] for each, of in settings.items() if command in of}, key)
        if others := plugins.of_setting(key):
            print(f"plug-ins: {', '.join(others)}")
    else:
        _explain(command, of_commands[command], [item for item in arguments if item not in names[:1]])
    for other, setting in of_commands.items():
        if setting.meaning != of_commands[command].meaning:
            print(f"  in {other}: {setting.meaning}{'' if setting.type == 'group' else f' (default {_plain(setting.default)})'}")


def completions(before: list[str]) -> list[str]:
    """Return the completions: settings."""
    return [] if before else sorted(_settings())


def _settings() -> dict[str, dict[str, Setting]]:
    """By key: the setting in each command that has it, in the order of `_COMMANDS`."""
    from metatrain.config.schema import SCHEMAS
    from metatrain.config.settings import settings_of

    found: dict[str, dict[str, Setting]] = {}
    for command in _COMMANDS:
        for setting in settings_of(SCHEMAS[command]):
            found.setdefault(setting.key, {})[command] = setting
    return found


def _hint(key: str, settings: Iterable[str]) -> str:
    """Return the suggestion for a misspelt setting."""
    from metatrain.config.compose import groups_of
    from metatrain.config.explain import suggestion

    if key.partition(".")[0] == "hydra":
        return "; metatrain train --cfg hydra lists those of Hydra; hydra.run.dir=DIR says where a run goes, hydra.sweep.dir=DIR where those of a grid go"
    same = [each for each in settings if each.rsplit(".", 1)[-1] == key]
    if same:
        return f"; there are {', '.join(same)}"
    for command in _COMMANDS:
        if options := groups_of(command).get(key):
            return f"; it is a config group of metatrain {command}, {key}=OPTION, with the options {', '.join(options)}"
    return suggestion(key, settings) or "; metatrain explain lists the groups"


def _list(command: str, settings: dict[str, Setting], group: str) -> None:
    """The settings of a group of a command; `group` empty: its groups, and the settings that are in none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), title=None if group else f"metatrain {command}", title_justify="left")
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for key, setting in settings.items():
        if key.rpartition(".")[0] == group:
            shown = "" if setting.type == "group" else _plain(setting.default)
            table.add_row(key, setting.type, shown, setting.meaning)
    Console(highlight=False, markup=False).print(table)


def _explain(command: str, setting: Setting, overrides: list[str]) -> None:
    from metatrain.commands.effects import effects_of_values
    from metatrain.config.compose import run_under_hydra
    from metatrain.config.schema import SCHEMAS

    def show(config: DictConfig, path: Path, given: list[str]) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        values: Any = OmegaConf.to_container(config, resolve=True)
        value: Any = reduce(lambda values, part: values[part], setting.key.split("."), values)
        effects = effects_of_values(SCHEMAS[command], values, trains=command == "train")
        unread = effects.unread(setting.key) if command == "train" else None
        chosen = {str(group): str(option) for group, option in HydraConfig.get().runtime.choices.items() if option and not str(group).startswith("hydra")}
        print(setting.key if command == "train" else f"{setting.key}, of metatrain {command}")
        print(f"  {setting.meaning}" if setting.meaning else "  (no description)")
        print(f"  type     {setting.type}, default {_plain(setting.default)}")
        if read_when := effects.words(setting.key):
            print(f"  read     when {read_when}")
        print(f"  value    {_plain(value)}, set by {_set_by(setting.key, given, chosen)}")
        if unread is not None:
            print(f"  effect   none here: {unread.because}")
        if own := plugins.of_setting(setting.key):
            print(f"  plug-ins {', '.join(own)}")
        for kind in ("algorithm", "experiment"):
            if uses := _uses(setting.key, kind):
                print(f"  {kind:<10} {', '.join(f'{name} ({value})' for name, value in uses)}")
        print(f"  defined in {setting.where}")

    run_under_hydra(command, [*overrides, "hydra.run.dir=.", "hydra.output_subdir=null"], SCHEMAS[command], show, program="metatrain explain", complete=False)


def _set_by(key: str, given: list[str], chosen: dict[str, str]) -> str:
    """The last that sets a key: the command line, a file of a configuration folder, a plug-in, or nobody."""
    from metatrain.config.compose import conf_dir
    from metatrain.config.plugin_prompts import GROUP
    from metatrain.config.user_folder import file_of

    if any(item.lstrip("+").partition("=")[0] == key for item in given):
        return "the command line"
    # Later ones win, as in conf/train.yaml: debug over experiment over method over the rest.
    order = ["debug", "experiment", "algorithm", *(group for group in chosen if group not in ("debug", "experiment", "algorithm"))]
    for group in order:
        file = file_of(group, chosen.get(group))
        if file is not None and _value(key, file) is not None:
            return f"conf/{group}/{file.name}" if file.is_relative_to(conf_dir()) else str(file)
        if file is None and group == GROUP and _is_of_plugin(key, chosen.get(group)):
            return f"the plug-in {chosen[group]}"
    return "its default"


def _is_of_plugin(key: str, name: str | None) -> bool:
    """Return True if the plug-in `prompt=NAME` sets this key."""
    from metatrain.config.plugin_prompts import GROUP, values_of

    return name in plugins.names(plugins.PROMPTS) and key in (f"{GROUP}.{each}" for each in values_of(name))


def _uses(key: str, group: str) -> list[tuple[str, str]]:
    """The options of a group that set a key, with the value."""
    from metatrain.config.user_folder import folders

    files = {path.stem: path for folder in reversed(folders()) for path in (folder / group).glob("*.yaml")}
    found = [(name, _value(key, path)) for name, path in sorted(files.items())]
    return [(name, _plain(value)) for name, value in found if value is not None]


def _value(key: str, path: Path) -> Any:
    """Return the value that a file of a config group sets for a key, or None."""
    from omegaconf import OmegaConf

    from metatrain.config.user_folder import current_settings

    if not path.is_file():
        return None
    text, group = path.read_text(encoding="utf-8"), ""
    if "# @package _global_" not in text:
        group = path.parent.name
        if not key.startswith(f"{group}."):
            return None
        key = key[len(group) + 1 :]
    return OmegaConf.select(current_settings(OmegaConf.create(text), group)[0], key, throw_on_resolution_failure=False)


def _plain(value: Any) -> str:
    if value == _MISSING:
        return "must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
