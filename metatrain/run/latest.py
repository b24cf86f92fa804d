"""Links below outputs/ to runs: the newest run, the newest run of each command, and runs outside outputs/."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metatrain.config.overrides import override
from metatrain.paths import local_path
from metatrain.run.hints import shown

_OUTPUTS = Path("outputs")
_ELSEWHERE = _OUTPUTS / ".elsewhere"  # links to runs outside outputs/
DEBUG = "debug"  # key in run.json of a debug run (debug=fast, for example)


def latest(command: str) -> Path:
    """Return the link to the newest run of one command; it points to a debug run only if there is no other run."""
    return _OUTPUTS / f".latest-{command}"


def make_latest(path: Path, command: str, debug: bool = False) -> None:
    """Point `outputs/latest`, and the link of the command, to a new run."""
    point(_OUTPUTS / "latest", path)
    if not (debug and latest(command).exists() and not _is_debug(latest(command))):
        point(latest(command), path)


def link_elsewhere(path: Path) -> None:
    """Link a run that is not below outputs/, so that `metatrain ls runs` lists it."""
    if not path.is_relative_to(_OUTPUTS.resolve()):
        point(_ELSEWHERE / hashlib.sha256(os.fsencode(path)).hexdigest()[:16], path)


def pinned(reference: str) -> str:
    """Return the path of the run that `latest` or another link points to now; other references are returned unchanged."""
    path = latest("train") if reference == "latest" else local_path(reference)
    found = path.resolve()
    is_link = path.is_dir() and str(found) != os.path.abspath(path)
    return shown(found) if is_link and any((folder / "run.json").is_file() for folder in (found, *found.parents)) else reference


def pin(config: Any, overrides: list[str], *keys: str) -> list[str]:
    """Replace links to runs in these settings by the paths of the runs; return the overrides with the same replacements."""
    said = list(overrides)
    for key in keys:
        *groups, name = key.split(".")
        owner = functools.reduce(getattr, groups, config)
        if (before := getattr(owner, name)) is None or (now := pinned(before)) == before:
            continue
        setattr(owner, name, now)
        said = [override(key, now) if item.lstrip("+").partition("=")[0] == key else item for item in said]
    return said


def run_records() -> Iterator[Path]:
    """Yield the run.json of all runs below outputs/, and of those that were started here with hydra.run.dir=DIR."""
    yield from _OUTPUTS.glob("**/run.json")
    yield from (path.resolve() for path in _ELSEWHERE.glob("*/run.json"))


def point(link: Path, path: Path) -> None:
    """Point `link` to the run at `path`, by a relative path if the run is below outputs/."""
    root = link.parent.resolve()
    root.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
    temporary = root / f".{link.name}-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _is_debug(run: Path) -> bool:
    try:
        return bool(json.loads((run / "run.json").read_text(encoding="utf-8")).get(DEBUG))
    except (OSError, ValueError):
        return False
