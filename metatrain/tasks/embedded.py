"""The embedded collections: texts written for this project, under `metatrain:NAME` in `tasks.path`.

`reviews`: short product and service reviews, 16 domains of 60, half of them positive. Some words change sides with the domain (an
unpredictable plot, an unpredictable brake), and some reviews are mixed or ironic.

`everyday`: 75 small tasks in six families (a file each) that differ in what they ask: polarity, emotion, complaints, intents, tone, topics,
and routing by rules that the label names ("team a", "shelf 2") do not give away, so that examples are needed.
"""

from __future__ import annotations

from pathlib import Path

from metatrain.errors import UserError

EMBEDDED = "metatrain:"  # how `tasks.path` begins for them
_CORPUS = Path(__file__).parent / "corpus"


def embedded_path(path: str) -> Path:
    """The file or folder of a `tasks.path` like `metatrain:reviews`; JSON Lines with the fields text, label and domain or task.

    Raises:
        UserError: there is no such collection.
    """
    found = {each.stem: each for each in sorted(_CORPUS.iterdir()) if not each.name.startswith(".")}
    name = path.removeprefix(EMBEDDED)
    if name not in found:
        raise UserError(f"tasks.path={path}: no such embedded collection; there are {', '.join(EMBEDDED + each for each in found)}")
    return found[name]
