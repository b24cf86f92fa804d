"""Writes docs/methods.md from conf/algorithm/ and the registries of the axes: python scripts/methods_page.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metatrain.meta import inner, meta_gradient, noise
from metatrain.models import adapted, heads

ROOT = Path(__file__).parents[1]

HEAD = """\
# Methods

A method is a choice on four axes. Each row below is a file of `conf/algorithm/`, chosen with `algorithm=NAME`; any choice can be
replaced on the command line, for example `algorithm=maml algorithm.head=shared inner.rule=lslr`. What does not go together is
refused with a line that says why. This page is written by `python scripts/methods_page.py`.
"""

NOTATION = """\
In the equations S is the support loss, Q the query loss, phi_k what adapts after k of K inner steps, theta the meta-parameters, H
a Hessian of S, h(x) an encoding, mean_c the mean of class c's support encodings. "theta gets" is followed by the meta-gradient of an
episode; the outer loop hands the mean over the meta-batch to AdamW. Every preset is also run, exported and evaluated
again by `tests/commands/test_train.py`, and lowers its training loss there.\
"""

NOISE = """\
## Against over-fitting to the training tasks

Each is of meta-training alone; what is drawn is a function of the episode and of the inner step, so that every pass over
a step sees the same. Checked by `tests/meta/test_learner.py::test_exact_modes_agree_with_noise`.

- **`episode.permute_labels`** (on): a new order of the classes in each episode.
- **`episode.mix`**: a share of the episodes has classes of several tasks, which makes tasks that no file has (Rajendran et al. 2020).
- **`algorithm.dropout`**, with `dropout_in` support, query or both: the model's own dropout, at this rate. There are four places
  for it, and adaptation for use and predictions never have any: they are to be repeatable.
"""


def preset(path: Path) -> tuple[str, str, str]:
    """What the comments of a preset say: in words, its equation, its check."""
    comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    found = re.fullmatch(r"(.*) Equation: (.*) Check: (.*)", " ".join(comments))
    if not found:
        raise SystemExit(f"{path}: its comments want words, then 'Equation: ...', then 'Check: ...'")
    return found[1], found[2], found[3]


def methods() -> str:
    """A table of the presets' choices, then each in words, with its equation and its check."""
    lines = ["| method | head | adapts | inner rule | meta-gradient |", "|---|---|---|---|---|"]
    entries = []
    for path in sorted((ROOT / "conf" / "algorithm").glob("*.yaml")):
        config: Any = OmegaConf.load(path)
        for base in config.pop("defaults", []):
            config = OmegaConf.merge(OmegaConf.load(path.with_name(f"{base}.yaml")), config)
        words, equation, check = preset(path)
        steps = OmegaConf.select(config, "inner.steps")
        rule = "none" if steps == 0 else OmegaConf.select(config, "inner.rule") or "sgd"
        choices = config.algorithm
        lines.append(f"| `{path.stem}` | {choices.head} | {choices.adapt} | {rule} | {choices.meta_gradient} |")
        entries.append(f"- **`{path.stem}`**: {words}\n  `{equation}`.\n  Checked by `{check}`.")
    return "\n".join([*lines, "", NOTATION, "", *entries])


def docstring(made: object) -> str:
    found = inspect.getdoc(made)
    assert found, f"{made} has no docstring"
    return found


def registry(setting: str, choices: Mapping[str, object], check: str) -> str:
    """A section for one axis: each choice with its docstring."""
    lines = [f"## `{setting}`", "", f"Checked by `{check}`.", ""]
    for name, made in choices.items():
        lines.append(f"- **`{name}`**: {' '.join(docstring(made).split())}")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    rules = {name: type(make(1.0, ())) for name, make in heads.RULES.items()}
    modes = docstring(meta_gradient.meta_gradient)
    modes = re.sub(r"\n  +", " ", modes[modes.index("- `exact`") :])
    where = "tests/meta/test_meta_gradient.py` (closed forms and unrolled graphs) and `tests/meta/test_learner.py` (a small BERT)"
    kinds = {
        "all": "the whole encoder and the head",
        "head": "the head",
        "body": "the whole encoder, not the head",
        "last_layers": "the last `last_layers` layers and the head",
        "layer_norm": "layer norms and the head",
        "pattern": "parameters whose name matches `pattern`, and the head",
        "lora": "low-rank matrices of rank `rank` beside the linear layers `targets` (Hu et al. 2022), through `peft`, and the head",
        "ia3": "learned scales of activations (Liu et al. 2022), through `peft`, and the head",
        "context": "a vector that every token has as further inputs (Zintgraf et al. 2019), zero at first, not the head",
    }
    assert list(kinds) == list(adapted.CHOICES)
    choices = [f"- **`{name}`**: {what}." for name, what in kinds.items()]
    noises = {"algorithm.meta_dropout": noise.Noise.perturbed, "algorithm.information_penalty": noise.Noise.bottleneck}
    sections = [
        HEAD,
        methods(),
        "",
        registry("algorithm.head", rules, "tests/models/test_heads.py"),
        "",
        "## `algorithm.adapt`\n\nChecked by `tests/models/test_adapted.py` and `tests/models/test_adapters.py`.\n",
        *choices,
        "",
        "What lies below the lowest layer that adapts runs once an episode. `algorithm.train=adapted` meta-trains nothing else of the",
        "encoder. In what is exported, adapters are folded into the weights, so that it is a plain model.",
        "",
        registry("inner.rule", inner.RULES, "tests/meta/test_inner.py"),
        "",
        f"## `algorithm.meta_gradient`\n\nChecked by `{where}.\n\n{modes}",
        "",
        NOISE + "\n".join(f"- **`{name}`**: {' '.join(docstring(made).split())}" for name, made in noises.items()),
    ]
    return "\n".join(sections) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "methods.md").write_text(page(), encoding="utf-8")
