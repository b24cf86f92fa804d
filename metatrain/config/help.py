"""`metatrain COMMAND --help`: usage, examples, common settings, config groups."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from metatrain.config.compose import groups_of
from metatrain.config.schema import SCHEMAS
from metatrain.config.settings import settings_of

_WIDTH = 140
_FOOTER = """\
metatrain {command} --cfg job       all settings with their values
metatrain explain SETTING{space}the meaning of a setting, its value, and which file or override set it; all settings: docs/settings_reference.md
"""


def page(command: str, usage: str, shown: Sequence[str]) -> str:
    """Return the help of a command whose settings Hydra composes; `shown`: the settings to list."""
    settings = {setting.key: setting for setting in settings_of(SCHEMAS[command])}
    width = max(map(len, shown))
    lines = [usage, "common settings (SETTING=VALUE):"]
    for key in shown:
        meaning = textwrap.shorten(settings[key].meaning, _WIDTH - width - 6, placeholder=" ...")
        lines.append(f"  {key:<{width}}  {meaning}")
    groups = groups_of(command)
    if groups:
        lines += ["", "config groups (GROUP=OPTION replaces a whole block):"]
        lines += [f"  {name:<10} {textwrap.shorten(', '.join(options), _WIDTH - 13, placeholder=' ...')}" for name, options in groups.items()]
    return "\n".join([*lines, "", _FOOTER.format(command=command, space=" " * max(2, len(command) + 2))])
