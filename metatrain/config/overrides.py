"""Overrides as users type them, translated to Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import create_functions

OPTIONAL_GROUPS = ("experiment", "debug")  # of training; not in any defaults list, so that `+experiment=x` works
# Alone, these would choose from the config group of that name, which these commands do not have. `algorithm` is the name of one of its options.
SHORTHANDS = {
    "predict": {"model": "model.path"},
    "push": {"model": "model.path"},
    "finetune": {"algorithm": "algorithm.name"},
    "evaluate": {"algorithm": "algorithm.name"},
}
_VERBATIM = {"predict": ("text",)}  # running text, in which commas and brackets have no meaning
_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i")

_PLAIN = re.compile(r"(?:\.{0,2}/|[a-z_])[\w./-]*", re.ASCII | re.IGNORECASE)
_VALUES = ("null", "true", "false", "nan", "inf")  # what Hydra reads as no text
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_FUNCTIONS = "|".join(create_functions().functions)
_OPENING = re.compile(rf"\s*(?:\[|\{{|(?:{_FUNCTIONS})\s*\()", re.ASCII)
_NAME = {"}": re.compile(r"[^:{}\[\],]*:"), ")": re.compile(r"\s*\w+\s*=", re.ASCII)}  # of an entry, by the bracket that ends the dictionary or call
_QUOTED = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*""", re.DOTALL)
_ESCAPE = re.compile(r"\\([()\[\]{}:=, \t])")
# What Hydra's grammar takes without quotes.
_UNQUOTED = re.compile(rf"(?:[\w \t/\-\\+.$%*@?|:]|{_ESCAPE.pattern}|\$\{{[^}}]*\}})*", re.ASCII)


def normalise(command: str, overrides: list[str]) -> list[str]:
    """Return the overrides as Hydra expects them.

    `experiment=x` and `debug=x` become `+experiment=x` and `+debug=x`; debug goes last, so that it wins over an experiment
    (explicit settings win over both wherever they stand). Shorthands are written out. Running text, and values with characters that
    Hydra's grammar does not know, are quoted. Flags go behind all settings: Hydra's parser takes no settings on both sides of one.
    """
    settings, flags = split_flags(overrides)
    plain = []
    for item in settings:
        key, sign, value = item.partition("=")
        value = quoted(value) if sign and key in _VERBATIM.get(command, ()) else readable(value)
        if key in OPTIONAL_GROUPS and sign:
            key = f"+{key}"
        plain.append(SHORTHANDS.get(command, {}).get(key, key) + sign + value)
    return [*sorted(plain, key=lambda item: item.startswith("+debug=")), *flags]


def verbatim(command: str, overrides: list[str]) -> dict[str, str]:
    """Return the settings that are running text, as typed."""
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
    return f"{key}={_text(value)}"


def override_of_list(key: str, values: Sequence[str]) -> str:
    """Return KEY=[VALUE,...] for texts."""
    return f"{key}=[{','.join(map(_text, values))}]"


def _text(value: str) -> str:
    """Return a text as Hydra reads it, in quotes only where it would be another value without them."""
    return value if _PLAIN.fullmatch(value) and value.lower() not in _VALUES else quoted(value)


def readable(value: str) -> str:
    """Return a value of an override in which each string that Hydra's grammar cannot read is quoted.

    Letters outside ASCII, `#`, `'` and the like can only stand in quotes. Lists, dictionaries, functions and commas keep their
    meaning; a bracket inside a string, as in `p[1].csv`, has none.
    """
    parts: list[str] = []
    place, closing, begins = 0, "", True  # closing: brackets that are open, the innermost last; begins: a value may begin here
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
        else:  # text behind a quoted string or a bracket: Hydra says what is wrong
            return value
        parts.append(value[place:end])
        place = end
    return "".join(parts)


def _until(ends: str) -> re.Pattern[str]:
    """A string without quotes, up to one of these characters; interpolations and escaped characters are parts of it."""
    return re.compile(rf"(?:\$\{{[^}}]*\}}|\\.|[^{re.escape(ends)}])*", re.DOTALL)


def _behind_name(value: str, place: int, closing: str) -> int:
    """The place behind the name of a dictionary's entry or of a function's argument, if one begins at `place`."""
    name = _NAME[closing].match(value, place) if closing in _NAME else None
    return place if name is None else name.end()


def _quoted_if_needed(text: str) -> str:
    if _UNQUOTED.fullmatch(text) or text.lstrip()[:1] in ("'", '"'):
        return text
    return _in_quotes(_ESCAPE.sub(r"\1", text.strip()))
