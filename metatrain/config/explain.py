"""From Hydra's and OmegaConf's errors to one line that says what is wrong and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def explain(error: Exception, overrides: list[str], folder: Path | None) -> str:
    """One line for an error raised while a configuration was composed."""
    text = str(error).strip()
    chain = [error, error.__cause__, error.__context__]
    cause = next((item for item in chain if isinstance(item, OmegaConfBaseException)), None)
    found = re.search(r"Could not find '([^']+)'", text) or re.search(r"In '[^']*': Could not find '([^']+)'", text)
    if found:
        return _unknown_option(found[1], folder)
    found = re.search(r"Could not override '([^']+)'", text)
    if found:
        group = found[1]
        if folder is not None and "No match in the defaults list" in text:
            return f"no config group '{group}'" + suggestion(group, _groups(folder))
        return _unknown_key(group, cause)
    if "Multiple values for" in text:
        found = re.search(r"Multiple values for ([\w/@]+)", text)
        name = found[1] if found else "a group"
        return f"{name} is chosen twice; write {name}=... without the '+'"
    if cause is not None and getattr(cause, "msg", None) and "is not in struct" in str(cause):
        return _unknown_key(str(cause.full_key), cause)
    if cause is not None:
        key = getattr(cause, "full_key", None) or ""
        message = str(cause).splitlines()[0]
        found = re.search(r"Key '([^']+)' (?:is )?not in", message)
        if found:
            return _unknown_key(key or found[1], cause)
        return f"{key}: {message}" if key else message
    first = text.splitlines()[0] if text else type(error).__name__
    if overrides and ("mismatched input" in text or "no viable alternative" in text or "token recognition" in text or "extraneous" in text):
        return f"cannot read the override: {first}; write KEY=VALUE, and quote special characters: 'KEY=\"a, b\"'"
    return first


def _unknown_option(path: str, folder: Path | None) -> str:
    group, _, name = path.rpartition("/")
    if folder is None:
        return f"could not find '{path}'"
    options = sorted(file.stem for file in (folder / group).glob("*.yaml"))
    if not options:
        return f"no config group '{group}'" + suggestion(group, _groups(folder))
    return f"no {group} named '{name}'" + (suggestion(name, options) or f"; choose one of {', '.join(options)}")


def _unknown_key(key: str, cause: Exception | None) -> str:
    node = getattr(cause, "parent_node", None)
    parent, _, last = key.rpartition(".")
    known: list[str] = []
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
        known = [str(name) for name in node]
    near = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
    if near:
        return f"no setting named '{key}'; did you mean '{parent + '.' if parent else ''}{near[0]}'?"
    return f"no setting named '{key}'" + (f"; there are {', '.join(sorted(known))}" if known and len(known) < 20 else "")


def _groups(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())
