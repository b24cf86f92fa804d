"""Which rows belong to which split."""

import numpy as np

from metatrain.tasks import names
from metatrain.tasks.config import SplitConfig
from metatrain.tasks.files import Table
from metatrain.tasks.splits import claim


def matches(files: int, monkeypatch) -> int:
    """Return the number of names that are compared with a pattern when a split claims the rows of `files` files, each with one task."""
    compared = []
    monkeypatch.setattr(names, "fnmatchcase", lambda name, pattern: compared.append(name) or True)
    tables = {f"file{each}": Table(f"file{each}", ["a", "b"], ["x", "y"], [f"task{each}"] * 2) for each in range(files)}
    rows = {f"file{each}": {f"task{each}": np.arange(2)} for each in range(files)}
    parts = claim("meta_train", SplitConfig(tasks=["*"]), tables, rows, {}, claim_support=True, check=True)
    assert list(parts) == [f"task{each}" for each in range(files)]
    return len(compared)


def test_a_split_compares_names_in_linear_time(monkeypatch):
    assert matches(400, monkeypatch) == 10 * matches(40, monkeypatch)
