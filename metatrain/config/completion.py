"""Shell completion: the first word is a command, the rest is Hydra's own completion for that command."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress

SHELLS = ("bash", "zsh", "fish")


def complete(arguments: list[str], commands: Iterable[str]) -> int:
    """Answer `metatrain -sc install=SHELL`, `uninstall=SHELL` or (called by the shell) `query=SHELL`."""
    action, _, shell = (arguments[0] if arguments else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        print(f"usage: metatrain -sc install={'|'.join(SHELLS)}", file=sys.stderr)
        return 2
    command = "train"  # for installing, any: the script that Hydra prints is the same
    if action == "query":
        line = os.environ.get("COMP_LINE", "")
        program, *words = line.split()
        if not words or (len(words) == 1 and not line.endswith(" ")):
            print("\n".join(name for name in commands if name.startswith(words[0] if words else "")))
            return 0
        command = words[0]
        if command not in commands:
            return 0
        # Hydra knows no commands: it gets the line without ours.
        rest = line.split(None, 2)[2] if len(words) > 1 else ""
        os.environ["COMP_LINE"] = f"{program} {rest}"
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    _hydra(command, f"{action}={shell}")
    return 0


def _hydra(command: str, action: str) -> None:
    from metatrain.config.compose import run_under_hydra
    from metatrain.config.schema import SCHEMAS
    from metatrain.errors import UserError

    if command not in SCHEMAS:  # resume: its settings are those of train
        command = "train"
    printed = io.StringIO()
    # A half-typed line that cannot be parsed has no completions.
    with redirect_stdout(printed), suppress(SystemExit, UserError):
        run_under_hydra(command, ["-sc", action], SCHEMAS[command], lambda *_: None, program="metatrain")
    found = printed.getvalue()
    if action.startswith("query="):  # Hydra's own settings are noise here, and not ours to name
        found = "".join(f"{word}\n" for word in found.split() if not word.startswith(("hydra", "task=")))
    sys.stdout.write(found)
