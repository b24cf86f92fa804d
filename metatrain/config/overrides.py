"""Translate overrides from the command line to Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import create_functions

from metatrain.config.renamed import NOTES, current_key, current_override, said_of
from metatrain.errors import UserError

OPTIONAL_GROUPS = ("experiment", "debug")  # config groups of training in no defaults list, so that `+experiment=x` works
# Short forms of settings. Hydra would read `model=x` as a choice from the config group of that name, which these commands do not have.
SHORTHANDS = {
    "predict": {"model": "model.path"},
    "score": {"model": "model.path"},
    "export": {"model": "model.path"},
    "check": {"model": "checkpoint"},
    "suggest": {"model": "model.path"},
    "push": {"model": "model.path"},
    "finetune": {"algorithm": "algorithm.name", "model": "checkpoint"},
    "evaluate": {"algorithm": "algorithm.name", "model": "checkpoint"},
}
_VERBATIM = {"predict": ("text",)}  # plain text, in which commas and brackets have no special meaning
_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i")

_PLAIN = re.compile(r"(?:\.{0,2}/|[a-z_])[\w./-]*", re.ASCII | re.IGNORECASE)
_VALUES = ("null", "true", "false", "nan", "inf")  # not read as text by Hydra
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_FUNCTIONS = "|".join(create_functions().functions)
_OPENING = re.compile(rf"\s*(?:\[|\{{|(?:{_FUNCTIONS})\s*\()", re.ASCII)
_NAME = {"}": re.compile(r"[^:{}\[\],]*:"), ")": re.compile(r"\s*\w+\s*=", re.ASCII)}  # key of an entry, by the closing bracket of the dictionary or call
_QUOTED = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*""", re.DOTALL)
_ESCAPE = re.compile(r"\\([()\[\]{}:=, \t])")
# Text that Hydra's grammar accepts without quotes.
_UNQUOTED = re.compile(rf"(?:[\w \t/\-\\+.$%*@?|:]|{_ESCAPE.pattern}|\$\{{[^}}]*\}})*", re.ASCII)


def normalise(command: str, overrides: list[str]) -> list[str]:
    """Return the overrides as Hydra expects them.

    `experiment=x` and `debug=x` become `+experiment=x` and `+debug=x`; debug goes last, so that it overrides an experiment
    (explicit settings override both in any order). Shorthands are expanded. Plain text, and values with characters that Hydra's grammar
    does not accept, are quoted. Flags go after all settings, because Hydra's parser does not accept settings on both sides of a flag. Former keys
    of settings are translated, with a note to show.

    Raises:
        UserError: a setting is given under its former and its present key.
    """
    settings, flags = split_flags(overrides)
    settings = _current(settings)
    plain = []
    for item in settings:
        key, sign, value = item.partition("=")
        value = quoted(value) if sign and key in _VERBATIM.get(command, ()) else readable(value)
        if key in OPTIONAL_GROUPS and sign:
            key = f"+{key}"
        plain.append(SHORTHANDS.get(command, {}).get(key, key) + sign + value)
    return [*sorted(plain, key=lambda item: item.startswith("+debug=")), *flags]


def _current(settings: Sequence[str]) -> list[str]:
    keys = {_key(item) for item in settings}
    found = []
    for item in settings:
        translated, former = current_override(item)
        if former is not None:
            if _key(item) == former and current_key(former) in keys:
                raise UserError(f"{former} is the former name of {current_key(former)}, and both are given; remove {former}")
            NOTES.add(said_of(former))
        found.append(translated)
    return found


def _key(item: str) -> str:
    return item.lstrip("+~").partition("=")[0]


def verbatim(command: str, overrides: list[str]) -> dict[str, str]:
    """Return the settings that are plain text, as typed."""
    keys = _VERBATIM.get(command, ())
    return {key: value for key, sign, value in (item.partition("=") for item in overrides) if sign and key in keys}


def split_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return (settings, Hydra's flags with their values)."""
    settings, flags = [], []
    rest = list(arguments)
    while rest:
        item = rest.pop(0)
        if not item.startswith("-"):
            settings.append(item)
            continue
        flags.append(item)
        if item in _FLAGS_WITH_VALUE and rest and "=" not in rest[0]:
            flags.append(rest.pop(0))
    return settings, flags


def quoted(text: str) -> str:
    """Return any text as a quoted string of Hydra's grammar, without interpolation."""
    return _in_quotes(re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text))


def _in_quotes(text: str) -> str:
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def override(key: str, value: str) -> str:
    """Return KEY=VALUE for a text."""
    return f"{key}={text_value(value)}"


def override_of_list(key: str, values: Sequence[str]) -> str:
    """Return KEY=[VALUE,...] for texts."""
    return f"{key}=[{','.join(map(text_value, values))}]"


def text_value(value: str) -> str:
    """Return a text for Hydra, quoted only if it would otherwise be read as another value."""
    return value if _PLAIN.fullmatch(value) and value.lower() not in _VALUES else quoted(value)


def readable(value: str) -> str:
    """Return a value of an override with quotes around each string that Hydra's grammar cannot read.

    Non-ASCII letters, `#`, `'` and similar characters must be quoted. Lists, dictionaries, functions and commas keep their meaning; a
    bracket inside a string, as in `p[1].csv`, is plain text.
    """
    parts: list[str] = []
    place, closing, begins = 0, "", True  # closing: closing brackets of the open ones, innermost last; begins: a value can begin here
    while place < len(value):
        end, innermost = place + 1, closing[-1:]
        if begins and (opening := _OPENING.match(value, place)):
            end = opening.end()
            closing += _CLOSING[re.sub(r"[^\[{(]", "", opening[0])]
            end = _behind_name(value, end, closing[-1])
        elif begins:
            found = _QUOTED.match(value, place) or _until(f",{innermost}").match(value, place)
            assert found is not None  # the second pattern matches the empty string
            parts.append(_quoted_if_needed(found[0]))
            place, begins = found.end(), False
            continue
        elif value[place] == ",":
            begins, end = True, _behind_name(value, end, innermost)
        elif value[place] == innermost:
            closing = closing[:-1]
        else:  # text after a quoted string or a bracket: Hydra reports the error
            return value
        parts.append(value[place:end])
        place = end
    return "".join(parts)


def _until(ends: str) -> re.Pattern[str]:
    """Return a pattern for an unquoted string that ends before one of these characters; it can contain interpolations and escapes."""
    return re.compile(rf"(?:\$\{{[^}}]*\}}|\\.|[^{re.escape(ends)}])*", re.DOTALL)


def _behind_name(value: str, place: int, closing: str) -> int:
    """Return the position after the key of a dictionary entry or the name of an argument that begins at `place`, or else `place`."""
    name = _NAME[closing].match(value, place) if closing in _NAME else None
    return place if name is None else name.end()


def _quoted_if_needed(text: str) -> str:
    if _UNQUOTED.fullmatch(text) or text.lstrip()[:1] in ("'", '"'):
        return text
    return _in_quotes(_ESCAPE.sub(r"\1", text.strip()))
