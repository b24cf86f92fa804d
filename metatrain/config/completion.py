"""Shell completion: command names for the first word, then Hydra's completion of settings, or the command's own completer."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Container, Iterable
from contextlib import redirect_stdout, suppress

SHELLS = ("bash", "zsh", "fish")
_ALSO_OWN = ("doctor",)  # commands that take settings and more
Completer = Callable[[list[str]], list[str]]  # from the preceding words to candidates for the next word


def complete(arguments: list[str], commands: Iterable[str], own: Callable[[str], Completer | None]) -> int:
    """Answer `metatrain -sc install=SHELL`, `uninstall=SHELL` or (called by the shell) `query=SHELL`.

    own: returns the completer of a command whose settings Hydra does not compose, or None if only file names can follow.
    """
    action, _, shell = (arguments[0] if arguments else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        print(f"usage: metatrain -sc install={'|'.join(SHELLS)}", file=sys.stderr)
        return 2
    if action != "query":
        sys.stdout.write(_from_hydra("train", f"{action}={shell}"))  # any command: the script that Hydra prints is the same
        return 0
    line = os.environ.get("COMP_LINE", "")
    words = line.split()[1:]
    current = words.pop() if words and not line.endswith(" ") else ""
    found = [name for name in commands if name.startswith(current)] if not words else _next(words[0], words[1:], current, shell, own)
    print("\n".join(found), end="\n" if found else "")
    return 0


def _next(command: str, before: list[str], current: str, shell: str, own: Callable[[str], Completer | None]) -> list[str]:
    """Return the completions of a command line that begin with the current word."""
    from metatrain.config.compose import groups_of
    from metatrain.config.overrides import SHORTHANDS, normalise, split_flags
    from metatrain.config.schema import SCHEMAS
    from metatrain.config.settings import settings_of

    if command not in (*SCHEMAS, "resume"):
        completer = own(command)
        return [] if completer is None else [word for word in completer(before) if word.startswith(current)]
    # resume takes the settings of train, but no config groups.
    groups: Container[str] = () if command == "resume" else groups_of(command)
    schema_of = "train" if command == "resume" else command
    settings = {setting.key for setting in settings_of(SCHEMAS[schema_of])} | SHORTHANDS.get(command, {}).keys()
    # Hydra knows neither commands nor shorthands, and takes the last setting as the current word.
    given, flags = split_flags(normalise(command, before))
    os.environ["COMP_LINE"] = " ".join(["metatrain", *given, *([current] if current else []), *flags]) + ("" if current else " ")
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    found = [word for word in _from_hydra(schema_of, f"query={shell}").split() if _is_taken(word, groups, settings)]
    completer = own(command) if command in _ALSO_OWN else None
    return [*found, *([] if completer is None else [word for word in completer(before) if word.startswith(current)])]


def _is_taken(word: str, groups: Container[str], settings: Container[str]) -> bool:
    """Return True if the command accepts a completion of Hydra, which also proposes groups of other commands and its own settings."""
    from metatrain.config.compose import conf_dir

    key, _, value = word.lstrip("+~").partition("=")
    if (conf_dir() / key).is_dir():  # also of a group with subgroups, which is proposed without "="
        return key in groups or (key in settings and not value)
    return not key.startswith("hydra") and word != "task="


def _from_hydra(command: str, action: str) -> str:
    """Return the output of Hydra's completion."""
    from metatrain.config.compose import run_under_hydra
    from metatrain.config.schema import SCHEMAS
    from metatrain.errors import UserError

    printed = io.StringIO()
    # A half-typed line that cannot be parsed has no completions.
    with redirect_stdout(printed), suppress(SystemExit, UserError):
        run_under_hydra(command, ["-sc", action], SCHEMAS[command], lambda *_: None, program="metatrain")
    return printed.getvalue()
