"""Failpoints: places in the code where tests inject faults, to show that no data is lost.

METATRAIN_FAILPOINTS="save.file=kill@2,place.renamed=full": the action at each failpoint, at the n-th pass (@n), by default the first.
Without the variable, `failpoint` does nothing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path

NAMES = (
    *("save.begin", "save.file", "save.manifest", "save.flushed", "save.done"),
    *("place.aside", "place.renamed", "remove.aside", "remove.done"),
    *("episode", "update", "validated", "temperature", "exported", "results"),
)
ACTIONS = ("kill", "tear", "full", "memory", "term", "int")
_FAULTS: dict[tuple[str, int], str] = {}
_passed: Counter[str] = Counter()


def _meet(name: str, path: Path | None = None) -> None:
    _passed[name] += 1
    action = _FAULTS.get((name, _passed[name]))
    if action == "tear" and path is not None:  # a crash with half of the file written
        os.truncate(path, path.stat().st_size // 2)
    if action in ("kill", "tear"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    elif action == "memory":
        raise MemoryError("failpoint")
    elif action in ("term", "int"):
        os.kill(os.getpid(), {"term": signal.SIGTERM, "int": signal.SIGINT}[action])


def _nothing(name: str, path: Path | None = None) -> None:
    pass


def faults(text: str) -> dict[tuple[str, int], str]:
    """Return the faults in METATRAIN_FAILPOINTS, by name and number of passes.

    Raises:
        ValueError: there is no such place or action.
    """
    found = {}
    for item in filter(None, text.split(",")):
        name, _, what = item.partition("=")
        action, _, passing = what.partition("@")
        if name not in NAMES or action not in ACTIONS:
            raise ValueError(f"METATRAIN_FAILPOINTS: {item!r}; places are {', '.join(NAMES)}; actions {', '.join(ACTIONS)}")
        found[name, int(passing or 1)] = action
    return found


def arm(text: str) -> None:
    """Set the faults of this process; for forked processes, which do not read the environment again."""
    _FAULTS.clear()
    _passed.clear()
    _FAULTS.update(faults(text))


failpoint = _nothing
if "METATRAIN_FAILPOINTS" in os.environ:
    failpoint = _meet
    arm(os.environ["METATRAIN_FAILPOINTS"])
