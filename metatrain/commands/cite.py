"""`metatrain cite [RUN]`: BibTeX of the method, the model and the data of a run, and of this software."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from metatrain.errors import UserError
from metatrain.version import __version__

USAGE = """\
usage: metatrain cite [RUN|latest]

Print BibTeX of the method, the model and the tasks of a run of train, and of this software. What has no recorded reference is named in a comment.

examples:
  metatrain cite latest
"""
_PARTS = ("algorithm", "model", "tasks")
_SOFTWARE = """\
@software{{metatrain,
  author = {{{{The metatrain developers}}}},
  title = {{metatrain: meta-pre-training of {{Hugging Face}} models for few-shot {{NLP}}}},
  version = {{{version}}},
}}
"""
_FOR = "% for: "


def main(arguments: list[str]) -> None:
    """Entry point; `arguments`: a run, or nothing for the newest."""
    from metatrain.config.schema import TrainConfig
    from metatrain.run.directory import RunDirectory

    if len(arguments) > 1:
        raise UserError("metatrain cite takes one run: metatrain cite [RUN|latest]")
    run = RunDirectory.find(*arguments[:1] or ["latest"])
    if run.read_record().get("command", "train") != "train":
        raise UserError(f"{run.path} is a run of {run.read_record()['command']}; metatrain cite takes a run of train")
    config = run.load_config(TrainConfig)
    print("\n".join(references([f"{part}={getattr(config, part).name}" for part in _PARTS])), end="")


def references(presets: Sequence[str]) -> list[str]:
    """Return the BibTeX entries of presets (`algorithm=maml`), each once, a comment for each that has none, and the entry of this software."""
    known = entries()
    found = list(dict.fromkeys(entry for preset in presets for entry in known.get(preset, [f"% {preset}: no reference is recorded\n"])))
    return [*found, _SOFTWARE.format(version=__version__)]


def entries() -> dict[str, list[str]]:
    """Return the entries of `citations.bib` by preset."""
    content = (Path(__file__).parents[1] / "citations.bib").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for presets, entry in re.findall(rf"^{_FOR}([^\n]*)\n(@.*?^}}\n)", content, re.MULTILINE | re.DOTALL):
        for preset in presets.split():
            found.setdefault(preset, []).append(entry)
    return found
