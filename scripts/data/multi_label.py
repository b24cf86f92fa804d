"""Create multi-label tasks from data sets of requests and questions: one or two texts of different classes, joined.

    python scripts/data/multi_label.py FOLDER [--rows 1500] [--seed 0]

Writes FOLDER/TASK.jsonl with the fields text and label (a list): a task for each domain of CLINC150 (Larson et al. 2019), and the tasks snips and
stackoverflow_tags, from $METATRAIN_DATA. Half of the texts are one text with its class, half are two texts of different classes joined by "and", as in
MixSNIPS (Qin et al. 2020). No text is in two rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

SETS = {
    "clinc150": ("train.jsonl", "valid.jsonl", "test.jsonl"),
    "snips": ("train.jsonl", "test.jsonl"),
    "stackoverflow_tags": ("train.jsonl", "test.jsonl"),
}


def tasks(data: Path) -> dict[str, list[tuple[str, str]]]:
    """Return (text, class) of each task: a domain of CLINC150, or a set."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, files in SETS.items():
        for file in files:
            for line in (data / name / file).read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                found[row.get("domain", name)].append((row["text"], row["label"]))
    return found


def joined(texts: list[tuple[str, str]], rows: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return at most `rows` rows of one text, or of two with different classes; no text is in two rows."""
    left = iter([texts[place] for place in rng.permutation(len(texts))])
    found: list[dict[str, Any]] = []
    for text, label in left:
        second, other = next(left, (text, label)) if rng.random() < 0.5 else (text, label)
        found.append({"text": text, "label": [label]} if label == other else {"text": f"{text} and {second}", "label": [label, other]})
    return found[:rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("METATRAIN_DATA", "data")))
    parser.add_argument("--rows", type=int, default=1500, help="of a task")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    for name, texts in sorted(tasks(arguments.data).items()):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in joined(texts, arguments.rows, rng))
        (arguments.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
