"""Writes docs/settings_reference.md, every setting with type, default and meaning: python scripts/settings_page.py"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from metatrain.config.schema import SCHEMAS, TrainConfig
from metatrain.config.settings import settings_of

PAGE = Path(__file__).parents[1] / "docs" / "settings_reference.md"
HEAD = """\
# Every setting

Made from the code by `python scripts/settings_page.py`; `metatrain explain SETTING` says the same, and who has set it. The defaults are
those of the types: a config group (`algorithm=maml`, `outer=adamw`, ...) sets some of them, `metatrain train --cfg job` shows the outcome.

"""


def page() -> str:
    """The page."""
    parts = [HEAD, "## train, resume, plan, doctor\n\n", *_table(TrainConfig, set())]
    known = {setting.key for setting in settings_of(TrainConfig)}
    for command, schema in SCHEMAS.items():
        if schema is not TrainConfig:
            parts += [f"\n## {command}\n\n", f"{_first_line(schema)}\n\n", *_table(schema, known)]
    return "".join(parts)


def _table(schema: Any, known: set[str]) -> Iterator[str]:
    """A row for each setting that is not among those known, which `train` has too."""
    rows = [setting for setting in settings_of(schema) if setting.key not in known and setting.type != "group"]
    if len(rows) < len([setting for setting in settings_of(schema) if setting.type != "group"]):
        yield "Beside those of `train` with the same names:\n\n"
    yield "| setting | type | default | meaning |\n|---|---|---|---|\n"
    for setting in rows:
        yield f"| `{setting.key}` | {_cell(setting.type)} | {_cell(_shown(setting.default))} | {_cell(setting.meaning)} |\n"


def _shown(value: Any) -> str:
    if value is MISSING:
        return "must be given"
    if dataclasses.is_dataclass(value):
        return ""
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool | None) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _first_line(schema: Any) -> str:
    return (schema.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
