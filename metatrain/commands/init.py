"""`metatrain init EXPERIMENT [NAME]`: copy an experiment to the user's own configuration folder for editing."""

from __future__ import annotations

import re
from pathlib import Path

from metatrain.config.compose import conf_dir
from metatrain.config.explain import suggestion
from metatrain.errors import UserError

FOLDER = Path("conf")
USAGE = """\
usage: metatrain init EXPERIMENT [NAME]
       metatrain init plugin KIND NAME

Copy an experiment to conf/experiment/NAME.yaml in this directory for editing; NAME defaults to that of the experiment. Config groups can be
extended in the same way: conf/algorithm/x.yaml is selected with --config-dir conf algorithm=x. With plugin, write a package with a plug-in of a kind
(head, inner_rule, inner_loss, adapted, meta_gradient, outer_loss, outer_optimizer, schedule, sampler, metric, arm, source,
self_supervised) and its test.

examples:
  metatrain init sentiment_fewshot tickets
  metatrain train --config-dir conf +experiment=tickets
  metatrain init plugin head my_head
"""
SUBCOMMANDS = {"plugin": "metatrain.commands.new_plugin"}


def main(arguments: list[str]) -> None:
    """Entry point; `arguments`: the experiment, and the name of the copy."""
    if len(arguments) not in (1, 2):
        raise UserError("metatrain init takes the name of an experiment, and a name for the copy; metatrain ls experiments lists them")
    experiment, name = arguments[0], arguments[-1]
    path = copy(experiment, name)
    print(f"written: {path}")
    if (conf_dir() / "experiment" / f"{name}.yaml").is_file():
        print(f"metatrain has a built-in experiment={name}; with --config-dir, yours replaces it")
    print(f"next: metatrain train --config-dir {FOLDER} +experiment={name}")


def completions(before: list[str]) -> list[str]:
    """Return the completions: an experiment; the name of the copy is free."""
    return [] if before else sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def copy(experiment: str, name: str) -> Path:
    """Copy an experiment; returns the new file.

    Raises:
        UserError: there is no such experiment, the name is invalid, or the file exists.
    """
    known = {path.stem: path for path in (conf_dir() / "experiment").glob("*.yaml")}
    if experiment not in known:
        raise UserError(f"no experiment named '{experiment}'{suggestion(experiment, known) or '; metatrain ls experiments lists them'}")
    if not re.fullmatch(r"\w[\w-]*", name):
        raise UserError(f"'{name}' is not a valid name; use letters, digits, - and _")
    path = FOLDER / "experiment" / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path} already exists; give the copy another name: metatrain init {experiment} NAME")
    settings = known[experiment].read_text(encoding="utf-8").partition("\ndefaults:")[2]
    head = (
        f"# @package _global_\n# metatrain train --config-dir {FOLDER} +experiment={name}\n# From {experiment}, whose results were measured without changes.\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "defaults:" + re.sub(r"(?m)^name: .*$", f"name: {name}", settings), encoding="utf-8")
    return path
