"""Regenerate the pages of docs/ that are made from the code, repeat the figures that take minutes, and report differences: python scripts/docs/repeat.py

All other figures take hours or another machine; each page names the command. The sinusoid's 14,000 meta-updates amplify rounding
errors, so its digits may differ on another processor.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SCRIPTS = Path(__file__).parents[1]
DOCS = SCRIPTS.parent / "docs"
SEEDS = (0, 1, 2)


def sinusoid() -> list[str]:
    """Errors after one inner step and after ten."""
    script = _script("../examples/sinusoid_vectorised.py")
    errors = [script["test_errors"](script["train"](seed), seed) for seed in SEEDS]
    one, ten = ([f"{each[steps][0]:.2f}" for each in errors] for steps in (1, 10))
    return [f"inner step {_listed(one)} for seeds 0, 1 and 2", f"after ten {_listed(ten)}"]


def second_order() -> list[str]:
    """Accuracy of exact and of first-order meta-gradients."""
    script = _script("../examples/second_order.py")
    found = {mode: [f"{100 * script['test_accuracy'](script['train'](seed, mode, script['UPDATES']), seed)[0]:.1f}" for seed in SEEDS] for mode in MODES}
    return [f"exact {_listed(found['exact'])}", f"first order {_listed(found['first_order'])}"]


def verdicts() -> list[str]:
    """The rows of the tables of false verdicts."""
    return [" ".join(row.split()) for row in _script("benchmark/verdicts.py")["tables"]().splitlines() if row.startswith("| ") and row[2].isdigit()]


MODES = ("exact", "first_order")
# The page, and what of it is computed again.
FIGURES: list[tuple[str, Callable[[], list[str]]]] = [("correctness.md", sinusoid), ("correctness.md", second_order), ("correctness.md", verdicts)]
PAGES = {
    "docs/methods_page.py": "methods.md",
    "docs/settings_page.py": "settings_reference.md",
    "docs/mistakes_page.py": "mistakes.md",
    "docs/plugins_page.py": "plugins.md",
    "docs/universal_page.py": "universal.md",
}


def _script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / name))


def _listed(values: list[str]) -> str:
    return f"{', '.join(values[:-1])} and {values[-1]}"


def main() -> None:
    """Exit with code 1 if anything differs."""
    torch.set_num_threads(1)
    wrong = 0
    for page, repeat in FIGURES:
        text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
        for found in repeat():
            there = found in text
            wrong += not there
            print(f"{'unchanged' if there else 'DIFFERENT'}: docs/{page}: {found}", flush=True)
    for script, page in PAGES.items():
        there = _script(script)["page"]() == (DOCS / page).read_text(encoding="utf-8")
        wrong += not there
        print(f"{'unchanged' if there else 'DIFFERENT'}: docs/{page}, made by scripts/{script}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
