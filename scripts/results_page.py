"""What the scripts that write docs/results.md share: runs that are made once, numbers in words, and the page's sections."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"


def run_once(folder: Path, command: str, settings: Sequence[str]) -> None:
    """`metatrain COMMAND SETTINGS` into this run directory, unless its results are there."""
    if (folder / "results.json").exists():
        return
    print(folder.name, flush=True)
    subprocess.run([sys.executable, "-m", "metatrain", command, *settings, f"hydra.run.dir={folder}"], cwd=ROOT, check=True)


def read_results(folder: Path) -> dict[str, Any] | None:
    """results.json of a run; None if it was not made."""
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def percent(arm: dict) -> str:
    return f"{100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f}"


def difference(comparison: dict) -> str:
    low, high = (100 * bound for bound in comparison["ci95"])
    return f"{100 * comparison['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def put_section(heading: str, text: str) -> None:
    """Put a section (`## ...` and what is below it) in the place of the one with its heading, or at the end."""
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(f"{heading}\n")
    _, mark, after = rest.partition("\n## ")
    parts = [before.rstrip(), text.strip(), *([f"## {after}".strip()] if mark else [])]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
