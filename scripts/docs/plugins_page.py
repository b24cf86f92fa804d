"""Write docs/plugins.md: a page that shows a plug-in of each kind, from the templates of `metatrain init plugin`.

python scripts/docs/plugins_page.py
"""

from __future__ import annotations

import ast
from pathlib import Path

from metatrain import plugins

ROOT = Path(__file__).parents[2]
# By template: what the entry point is, and where its protocol stands.
_PROTOCOLS = {
    "head": ("is called with `algorithm.head_scale` and the label names; returns a `HeadRule`", "models/head_rule.py"),
    "inner_rule": ("is called with the `inner` settings; returns an `InnerRule`", "gradient/inner_rules.py"),
    "inner_loss": ("is a subclass of `TextLosses`; `head_after = True` if the head is made after the inner steps", "meta/text_losses.py"),
    "adapted": ("is an `AdaptedRow`", "models/adapters.py"),
    "meta_gradient": ("is a `Mode`", "gradient/meta_gradient.py"),
    "outer_loss": ("is an `OuterLoss`, a term over the encodings of a meta-batch, added with `algorithm.contrastive_weight`", "meta/contrastive.py"),
    "outer_optimizer": ("is called with parameter groups; returns a `torch.optim.Optimizer`, whose state must be tensors", "training/outer.py"),
    "schedule": ("is called with the share of meta-updates after warm-up that are done; returns a factor of the learning rates", "training/outer.py"),
    "sampler": ("is called with the `Sampler` and the meta-update; returns the logarithm of a factor per task, or None", "tasks/sampler.py"),
    "prompt": ("is a `PromptConfig`: values of `prompt.*`, no code; `prompt=NAME prompt.scoring=pmi` replaces one of them", "models/config.py"),
    "metric": ("is a `Metric`; results.json and the table of arms have its mean", "evaluation/metrics.py"),
    "arm": ("is an `ArmRow`", "evaluation/arms.py"),
    "source": ("is called with the part after the colon in `tasks.path=NAME:WHERE`, and the columns; returns a `Source`", "tasks/sources.py"),
    "self_supervised": ("is a `Generator`", "tasks/self_supervised.py"),
}
_TOP = """\
# Write a plug-in

A method of your own is a package beside metatrain; nothing in metatrain changes. This writes a package with a plug-in, installs it, and checks it:

```bash
metatrain init plugin head mine
pip install -e mine
metatrain doctor plugin=mine
metatrain train algorithm.head=mine
```

```text
written: mine/mine.py, mine/pyproject.toml, mine/test_mine.py
...
ok  shapes: probabilities of 3 queries of 3 classes: [3, 3]
ok  gradient: relative error 2.3e-09 against a central difference in float64
ok  vectorised: relative error 6.0e-16 against sequential episodes
ok  resume: a resumed run is bit-identical
ok  ranks: the weights of two processes are bit-identical to those of one
ok  export: the exported model has the scores of the run
```

The `pyproject.toml` of the package registers the plug-in as an entry point; `test_mine.py` runs the same checks. A check that fails ends the command with
exit code 2. `metatrain ls plugins` lists what is installed, and `metatrain explain SETTING` the plug-ins that a setting can choose. An unknown name is
answered with all names, those of plug-ins included. Settings that a plug-in needs are added to the checks: `metatrain doctor plugin=mine inner.steps=3`.

A head, an inner rule, adapted parameters (`AdaptedRow`) or an arm may declare `reads`, the settings that it reads. Other settings are then refused on the
command line, because they have no effect. Without `reads`, nothing is refused. What else a head may read (queries, label
encodings): [howto.md](howto.md#write-a-plug-in-inner-rule-head-or-task-source).

| kind | setting | entry-point group | the entry point | protocol |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    rows, parts = [], []
    for group, kind in plugins.KINDS.items():
        what, where = _PROTOCOLS[kind.template]
        rows.append(f"| [{kind.name}](#{kind.name.replace(' ', '-')}) | `{kind.setting}` | `{group}` | {what} | `metatrain/{where}` |")
        code = (ROOT / "metatrain" / "templates" / f"{kind.template}.py").read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(code)) or "").partition(": ")[2]
        body = code.partition('"""\n')[2].strip()
        registered = f'[project.entry-points."{group}"]\nNAME = "MODULE:{kind.example}"'
        name = kind.name[0].upper() + kind.name[1:]
        parts.append(f"## {name}\n\n{title[0].upper()}{title[1:]}\n\n```python\n{body}\n```\n\n```toml\n{registered}\n```\n")
    return _TOP + "\n".join(rows) + "\n\n" + "\n".join(parts)


if __name__ == "__main__":
    (ROOT / "docs" / "plugins.md").write_text(page(), encoding="utf-8")
