"""Packaged corpora: texts written for this project, selected with `tasks.path=metatrain:NAME`.

`reviews`: short product and service reviews, 16 domains of 60 reviews, half of them positive. The polarity of some words depends on the domain
(an unpredictable plot, an unpredictable brake), and some reviews are mixed or ironic.

`everyday`: 75 small tasks in six families (one file each): polarity, emotion, complaints, intents, tone, topics, and routing by rules that
cannot be inferred from the label names ("team a", "shelf 2"), only from examples.
"""

from __future__ import annotations

from pathlib import Path

from metatrain.errors import UserError

EMBEDDED = "metatrain:"  # prefix of `tasks.path`
_CORPUS = Path(__file__).parent / "corpus"


def embedded_path(path: str) -> Path:
    """Return the file or folder of a `tasks.path` such as `metatrain:reviews`: JSON Lines with the fields text, label, and domain or task.

    Raises:
        UserError: there is no such corpus.
    """
    found = {each.stem: each for each in sorted(_CORPUS.iterdir()) if not each.name.startswith(".")}
    name = path.removeprefix(EMBEDDED)
    if name not in found:
        raise UserError(f"tasks.path={path}: no such packaged corpus; there are {', '.join(EMBEDDED + each for each in found)}")
    return found[name]
