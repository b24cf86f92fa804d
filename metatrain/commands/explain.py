"""`metatrain explain KEY`: what a setting means, what it is, and who has set it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.config.settings import Setting

USAGE = """\
usage: metatrain explain KEY [SETTING=VALUE ...]

Says of a setting of `metatrain train` or `sweep` what it means, its type and default, its value with these settings and who has set it, and the
presets and experiments that set it. KEY may be a group, whose settings are listed. Without a KEY: all groups.

examples:
  metatrain explain outer.lr
  metatrain explain outer.blend +experiment=clinc150_cross_domain
  metatrain explain inner
"""


def main(arguments: list[str]) -> None:
    """Entry point; the first argument without '=' names the setting."""
    from metatrain.config.schema import SweepConfig
    from metatrain.config.settings import settings_of

    settings = {setting.key: setting for setting in settings_of(SweepConfig)}
    names = [item for item in arguments if "=" not in item and not item.startswith("-")]
    key = names[0].rstrip(".") if names else None
    if key is None or (key in settings and settings[key].type == "group"):
        _list(settings, key)
    elif key in settings:
        _explain(settings[key], [item for item in arguments if item not in names[:1]])
    else:
        from metatrain.config.explain import suggestion

        same = [each for each in settings if each.rsplit(".", 1)[-1] == key]
        hint = f"; there are {', '.join(same)}" if same else suggestion(key, settings) or "; metatrain explain lists the groups"
        raise UserError(f"no setting named '{key}'{hint}")


def _list(settings: dict[str, Setting], group: str | None) -> None:
    """The settings of a group, or the groups."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("setting", "type", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for key, setting in settings.items():
        parent = key.rpartition(".")[0]
        if parent == (group or "") and (group or setting.type == "group" or "." not in key):
            shown = "" if setting.type == "group" else _plain(setting.default)
            table.add_row(key, setting.type, shown, setting.meaning)
    Console(highlight=False, markup=False).print(table)


def _explain(setting: Setting, overrides: list[str]) -> None:
    from metatrain.config.compose import run_under_hydra
    from metatrain.config.schema import SCHEMAS, TrainConfig

    command = "sweep" if setting.key.startswith("search.") else "train"

    def show(config: TrainConfig, path: Path, given: list[str]) -> None:
        from hydra.core.hydra_config import HydraConfig

        value: Any = config
        for part in setting.key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        chosen = {str(group): str(option) for group, option in HydraConfig.get().runtime.choices.items() if option and not str(group).startswith("hydra")}
        print(setting.key)
        print(f"  {setting.meaning}" if setting.meaning else "  (no more is said of it than its name)")
        print(f"  type     {setting.type}, default {_plain(setting.default)}")
        print(f"  value    {_plain(value)}, set by {_set_by(setting.key, given, chosen)}")
        for kind in ("algorithm", "experiment"):
            if uses := _uses(setting.key, kind):
                print(f"  {kind:<10} {', '.join(f'{name} ({value})' for name, value in uses)}")
        print(f"  defined in {setting.where}")

    run_under_hydra(command, [*overrides, "hydra.run.dir=.", "hydra.output_subdir=null"], SCHEMAS[command], show, program="metatrain explain")


def _set_by(key: str, given: list[str], chosen: dict[str, str]) -> str:
    """The last that sets a key: the command line, a file of conf/, or nobody."""
    from metatrain.config.compose import conf_dir

    if any(item.lstrip("+").partition("=")[0] == key for item in given):
        return "the command line"
    # Later ones win, as in conf/train.yaml: debug over experiment over method over the rest.
    order = ["debug", "experiment", "algorithm", *(group for group in chosen if group not in ("debug", "experiment", "algorithm"))]
    for group in order:
        option = chosen.get(group)
        if option and _value(key, conf_dir() / group / f"{option}.yaml") is not None:
            return f"conf/{group}/{option}.yaml"
    return "its default"


def _uses(key: str, group: str) -> list[tuple[str, str]]:
    """The options of a group that set a key, with the value."""
    from metatrain.config.compose import conf_dir

    found = [(path.stem, _value(key, path)) for path in sorted((conf_dir() / group).glob("*.yaml"))]
    return [(name, _plain(value)) for name, value in found if value is not None]


def _value(key: str, path: Path) -> Any:
    """What a file of a config group itself sets a key to; None: nothing."""
    from omegaconf import OmegaConf

    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    if "# @package _global_" not in text:
        group = path.parent.name
        if not key.startswith(f"{group}."):
            return None
        key = key[len(group) + 1 :]
    return OmegaConf.select(OmegaConf.create(text), key, throw_on_resolution_failure=False)


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
