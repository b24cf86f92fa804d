"""Writes docs/methods.md from conf/algorithm/ and the registries of the axes: python scripts/docs/methods_page.py"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from metatrain.gradient import inner_rules as inner
from metatrain.gradient import meta_gradient
from metatrain.meta import noise
from metatrain.models import adapted, heads

ROOT = Path(__file__).parents[2]

HEAD = """\
# Methods

A method is a combination of four choices: head, adapted parameters, inner rule and meta-gradient. Each row below is a preset in
`conf/algorithm/`; select it with `algorithm=NAME`. Override single choices on the command line, for example
`algorithm=maml algorithm.head=shared inner.rule=lslr`. metatrain rejects incompatible choices with one line that gives the reason.
`python scripts/docs/methods_page.py` generates this page.
"""

NOTATION = """\
## Notation of the equations

| symbol | meaning |
|---|---|
| S, Q | support loss and query loss of an episode |
| theta, phi_k | meta-parameters; adapted parameters after k of K inner steps |
| g, g_x | meta-gradient of one episode, in theta or in the single meta-parameter x; AdamW gets its mean over the meta-batch |
| v_k | gradient of Q in phi_k, which the recursion computes from the last inner step to the first |
| H_k | Hessian of S at phi_k |
| lr, alpha | fixed and learned inner learning rate |
| lambda | strength of the proximal term of iMAML (`algorithm.proximal`) |
| rho | learned strength of ridge regression |
| beta_k | weight of the query loss after inner step k (multi-step loss) |
| h(x) | encoding of the text x; h_i: of support text i, with label y_i |
| mean_c | prototype of class c: mean encoding of its support texts |
| w_c, b_c | row of class c in the head, and its bias |
| v_c, E[v], b[v] | label word of class c; output embedding and bias of word v in a masked language model |
| s | learned scale of the logits, above 0 |
| X, Y | encodings of the support texts, and their one-hot labels |
| d | size of an encoding (the hidden size) |
| ^T | transpose |

## Presets

`tests/commands/test_train.py` trains every preset, checks that its training loss falls, exports the model and evaluates the export.\
"""

NOISE = """\
## Regularisation against meta-overfitting

All of these apply during meta-training only; adaptation at test time and predictions are deterministic. Random numbers are a function of the
episode and the inner step, so every pass over a step draws the same ones. Checked by
`tests/meta/test_learner.py::test_exact_modes_agree_with_noise`.

- **`episode.permute_labels`** (default: on): permute the class indices in each episode.
- **`episode.cross_task_fraction`**: the share of episodes that combine classes of several tasks into new tasks (Rajendran et al. 2020).
- **`algorithm.dropout`**: the rate of the model's own dropout layers; `algorithm.dropout_in` applies it to the support pass, the query
  pass or both.
"""


def preset(path: Path) -> tuple[str, str, str]:
    """Return the description, the equation and the check from the comments of a preset."""
    comments = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
    found = re.fullmatch(r"(.*) Equation: (.*) Check: (.*)", " ".join(comments))
    if not found:
        raise SystemExit(f"{path}: its comments must be a description, then 'Equation: ...', then 'Check: ...'")
    return found[1], found[2], found[3]


def methods() -> str:
    """Return the table of the presets' choices, then the description, equation and check of each."""
    lines = ["| preset | head | adapted parameters | inner rule | meta-gradient |", "|---|---|---|---|---|"]
    entries = []
    for path in sorted((ROOT / "conf" / "algorithm").glob("*.yaml")):
        config: Any = OmegaConf.load(path)
        for base in config.pop("defaults", []):
            if not isinstance(base, str):  # an option of another group
                continue
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
    where = "tests/gradient/test_meta_gradient.py` (closed forms and unrolled graphs) and `tests/meta/test_learner.py` (a small BERT)"
    kinds = {
        "all": "the whole encoder and the head",
        "head": "the head",
        "body": "the whole encoder; the head stays fixed",
        "last_layers": "the last `last_layers` layers and the head",
        "layer_norm": "LayerNorm parameters and the head",
        "pattern": "parameters whose name matches the regular expression `pattern`, and the head",
        "lora": "LoRA matrices of rank `rank` on the linear layers `targets` (Hu et al. 2022, through `peft`), and the head",
        "ia3": "IA3 scaling vectors of activations (Liu et al. 2022, through `peft`), and the head",
        "context": "a context vector added to every token embedding by a learned projection (CAVIA, Zintgraf et al. 2019), initially zero; the head is fixed",
    }
    assert list(kinds) == list(adapted.ROWS)
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
        "Layers below the first adapted layer run once per episode. With `algorithm.train=adapted`, meta-training updates only the adapted",
        "parameters of the encoder. An exported model has its adapters merged into the weights and loads as a plain Hugging Face model.",
        "",
        registry("inner.rule", inner.RULES, "tests/gradient/test_inner_rules.py"),
        "",
        f"## `algorithm.meta_gradient`\n\nChecked by `{where}.\n\n{modes}",
        "",
        NOISE + "\n".join(f"- **`{name}`**: {' '.join(docstring(made).split())}" for name, made in noises.items()),
    ]
    return "\n".join(sections) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "methods.md").write_text(page(), encoding="utf-8")
