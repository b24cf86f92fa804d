"""Shell completion: the first word is a command, the rest is Hydra's own completion for that command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

SHELLS = ("bash", "zsh", "fish")


def complete(arguments: list[str], commands: Iterable[str]) -> int:
    """Answer `metatrain -sc install=SHELL`, `uninstall=SHELL` or (called by the shell) `query=SHELL`."""
    action, _, shell = (arguments[0] if arguments else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in SHELLS:
        print(f"usage: metatrain -sc install={'|'.join(SHELLS)}", file=sys.stderr)
        return 2
    if action == "query":
        line = os.environ.get("COMP_LINE", "")
        words = line.split()
        if len(words) < 2 or (len(words) == 2 and not line.endswith(" ")):
            prefix = words[1] if len(words) == 2 else ""
            print("\n".join(name for name in commands if name.startswith(prefix)))
            return 0
        command = words[1]
        if command not in commands:
            return 0
        rest = line.split(command, 1)[1]
        os.environ["COMP_LINE"] = f"{words[0]}{rest}"
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    else:
        command = "train"  # any command: the script Hydra prints is the same
    _hydra(command, ["-sc", f"{action}={shell}"])
    return 0


def _hydra(command: str, arguments: list[str]) -> None:
    from metatrain.config.compose import run_under_hydra
    from metatrain.config.schema import SCHEMAS

    if command not in SCHEMAS:  # resume: its settings are those of train
        command = "train"
    with suppress(SystemExit):
        run_under_hydra(command, arguments, SCHEMAS[command], lambda *_: None, program="metatrain")
