"""Writes docs/methods.md from conf/algorithm/ and the registries of the axes: python scripts/methods_page.py"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from omegaconf import OmegaConf

from metatrain.meta import inner, meta_gradient
from metatrain.models import adapted, heads

ROOT = Path(__file__).parents[1]

HEAD = """\
# Methods

A method is a choice on four axes. Each row below is a file of `conf/algorithm/`, chosen with `algorithm=NAME`; any choice can be
replaced on the command line, for example `algorithm=maml algorithm.head=shared inner.rule=lslr`. What does not go together is
refused with a line that says why. This page is written by `python scripts/methods_page.py`.
"""


def methods() -> str:
    """A table of the presets, with what the first comment of each file says."""
    lines = ["| method | head | adapts | inner rule | meta-gradient | |", "|---|---|---|---|---|---|"]
    for path in sorted((ROOT / "conf" / "algorithm").glob("*.yaml")):
        config = OmegaConf.load(path)
        comment = " ".join(line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line)
        steps = OmegaConf.select(config, "inner.steps")
        rule = "none" if steps == 0 else OmegaConf.select(config, "inner.rule") or "sgd"
        choices = config.algorithm
        lines.append(f"| `{path.stem}` | {choices.head} | {choices.adapt} | {rule} | {choices.meta_gradient} | {comment} |")
    return "\n".join(lines)


def registry(setting: str, choices: dict[str, object], check: str) -> str:
    """A section for one axis: each choice with its docstring."""
    lines = [f"## `{setting}`", "", f"Checked by `{check}`.", ""]
    for name, made in choices.items():
        lines.append(f"- **`{name}`**: {' '.join(inspect.getdoc(made).split())}")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    rules = {name: type(make(1.0)) for name, make in heads.RULES.items()}
    modes = inspect.getdoc(meta_gradient.meta_gradient)
    modes = re.sub(r"\n  +", " ", modes[modes.index("- `exact`") :])
    where = "tests/meta/test_meta_gradient.py` (closed forms and unrolled graphs) and `tests/meta/test_learner.py` (a small BERT)"
    sections = [
        HEAD,
        methods(),
        "",
        registry("algorithm.head", rules, "tests/models/test_heads.py"),
        "",
        f"## `algorithm.adapt`\n\nChecked by `tests/models/test_adapted.py`. One of {', '.join(f'`{name}`' for name in adapted.CHOICES)}.",
        "What lies below the lowest layer that adapts runs once an episode.",
        "",
        registry("inner.rule", inner.RULES, "tests/meta/test_inner.py"),
        "",
        f"## `algorithm.meta_gradient`\n\nChecked by `{where}.\n\n{modes}",
    ]
    return "\n".join(sections) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "methods.md").write_text(page(), encoding="utf-8")
