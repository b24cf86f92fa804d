"""A self-supervised task: is a text shorter or longer than the median?"""

from collections.abc import Sequence

import numpy as np

from metatrain.tasks.config import SelfSupervisedConfig
from metatrain.tasks.self_supervised import Generator
from metatrain.tasks.task import Task


def by_length(texts: Sequence[str], settings: SelfSupervisedConfig, seed: int) -> list[Task]:
    ordered = sorted(dict.fromkeys(texts), key=len)
    everywhere = np.ones(len(ordered), dtype=bool)
    labels = (np.arange(len(ordered)) >= len(ordered) // 2).astype(np.int64)
    return [Task("short or long", tuple(ordered), labels, ("short", "long"), everywhere, everywhere, way=2)]


lengths = Generator(by_length, "lengths")
