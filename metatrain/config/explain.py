"""Translate errors of Hydra and OmegaConf into one line with the cause and a suggestion."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from metatrain import plugins

# Hydra has one exception class for many errors; they are distinguished by their messages, which tests check for the pinned version.
_UNKNOWN_OPTION = re.compile(r"Could not find '([^']+)'")
_UNKNOWN_KEY = re.compile(r"Could not (?:override|delete from config)\.? '([^']+)'")
_ADDED_TWICE = re.compile(r"An item is already at '([^']+)'")
_CHOSEN_TWICE = re.compile(r"Multiple values for ([\w/@]+)")
_SWEEP = re.compile(r"Ambiguous value for argument '([^']+)'")
_GROUP_IS_NO_NAME = "Config group override must be"
_NOT_A_SETTING = "is not a subclass of"
_LIST_OR_GROUP = "Cannot merge DictConfig with ListConfig"  # whichever of the two was given
_NOT_A_LIST = "is not a ListConfig"
_NUMBER_OR_RANGE = ("Union[int, str]", "Union[str, int]")  # the type, in either order, of episode.way, episode.shots and evaluation.way
_PART_OF_AN_ENTRY = "dict is not a subclass of NamedSourceConfig"
_NOT_A_NAME = re.compile(r"LexerNoViableAltException: (.*)")
_NOT_AN_OVERRIDE = ("mismatched input", "no viable alternative", "token recognition", "extraneous input", "missing EQUAL")


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or an empty string."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def explain(error: Exception, command: str = "", folders: Sequence[Path] = ()) -> str:
    """Return one line for an error raised while a configuration was composed or read; folders: those with the config groups."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}:{error.problem_mark.line + 1}: {error.problem}"
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    cause = next((item for item in (error, error.__cause__, error.__context__) if isinstance(item, OmegaConfBaseException)), None)
    if found := _UNKNOWN_OPTION.search(text):
        return _unknown_option(found[1], folders)
    if found := _ADDED_TWICE.search(text):
        return f"{found[1]} is a setting already; write {found[1]}=... without the '+'"
    if found := _CHOSEN_TWICE.search(text):
        return f"{found[1]} is chosen twice; write {found[1]}=... once, without the '+'"
    if found := _SWEEP.search(text):
        return f"{found[1]} has several values; add -m to run each of them, or quote the value"
    if _GROUP_IS_NO_NAME in text:
        return "a config group takes the name of one of its options (GROUP=OPTION); a single setting of it is GROUP.SETTING=VALUE"
    if found := _NOT_A_NAME.search(text):
        return f"cannot read the override: {found[1]}; names of settings and keys in braces must be ASCII; a YAML file in --config-dir can have any names"
    if any(words in text for words in _NOT_AN_OVERRIDE):
        return f"cannot read the override: {first}; write KEY=VALUE, with no spaces in it, or in quotes: 'KEY=\"a, b\"'"
    if found := _UNKNOWN_KEY.search(text):
        return _unknown_key(found[1], cause)
    if cause is not None:
        key = str(getattr(cause, "full_key", None) or "")
        message = str(cause).splitlines()[0]
        if _PART_OF_AN_ENTRY in message:
            return "tasks.sources: a new source must be added as one value: '+tasks.sources={NAME: {path: FILE}}'"
        if key and (_NOT_A_LIST in message or _LIST_OR_GROUP in message):
            return _other_kind(key, getattr(cause, "object_type", list) if _LIST_OR_GROUP in message else list)
        if _NOT_A_SETTING in message and key:
            parent = getattr(cause, "parent_node", None)
            group = parent._get_node(key.rpartition(".")[2]) if isinstance(parent, DictConfig) else None
            names = [str(name) for name in group] if isinstance(group, DictConfig) and not group._is_none() else []
            return _group_takes_no_value(key, names)
        if key and any(each in message for each in _NUMBER_OR_RANGE):
            return f"{key} must be a whole number, or a range such as 2..10"
        named = re.search(r"Key '([^']+)' (?:is )?not in", message)
        if named:
            return _unknown_key(key or named[1], cause)
        return f"{key}: {message}" if key else message
    return first


def _other_kind(key: str, kind: Any) -> str:
    """Return the message for a list where no list is allowed, or no list where one is required; kind: the type of the setting."""
    if is_dataclass(kind):
        return _group_takes_no_value(key, [field.name for field in fields(kind)])
    if kind is list:
        return f"{key} is a list; write {key}=[VALUE], or {key}=[VALUE,VALUE]"
    return f"{key} is a mapping, not a list; write '{key}={{NAME: VALUE}}'"


def _group_takes_no_value(key: str, names: Iterable[str]) -> str:
    return f"{key} is a group of settings and has no value of its own; set one of them: {', '.join(f'{key}.{name}' for name in names)}"


def _unknown_option(path: str, folders: Sequence[Path]) -> str:
    group, _, name = path.rpartition("/")
    if not folders:
        return f"could not find '{path}'"
    options = sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})
    if not options:
        return f"no config group '{group}'" + suggestion(group, (each.name for folder in folders for each in folder.iterdir() if each.is_dir()))
    options += plugins.of_setting(group)
    return f"no {group} named '{name}'" + (suggestion(name, options) or f"; choose one of {', '.join(options)}")


def _unknown_key(key: str, cause: Exception | None) -> str:
    """Return the message for an unknown key: the first part that does not exist is misspelt, and its siblings are the candidates."""
    node = getattr(cause, "parent_node", None)
    root = node._get_root() if isinstance(node, DictConfig) else None
    parts = key.split(".")
    parent: Any = root
    rest = list(parts)
    while len(rest) > 1 and isinstance(parent, DictConfig) and rest[0] in parent and isinstance(parent._get_node(rest[0]), DictConfig):
        parent = parent._get_node(rest.pop(0))
    known = [str(name) for name in parent if name != "hydra"] if isinstance(parent, DictConfig) and not parent._is_none() else []
    if rest[0] in known or (isinstance(parent, DictConfig) and len(rest) < len(parts) and not known):
        where = ".".join(parts[: len(parts) - len(rest) + (rest[0] in known)])
        return f"{where} has no such entry yet; add the entry as one value: '+{where}={{NAME: ...}}'"
    near = difflib.get_close_matches(rest[0], known, n=1, cutoff=0.6)
    if near:
        return f"no setting named '{key}'; did you mean '{'.'.join([*parts[: len(parts) - len(rest)], near[0], *rest[1:]])}'?"
    return f"no setting named '{key}'" + (f"; there are {', '.join(sorted(known))}" if known and len(known) < 20 else "")
