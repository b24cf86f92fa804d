"""Create text-pair tasks from a data set of intents: do two requests have the same intent?

    python scripts/data/pairs.py FOLDER [--intents $METATRAIN_DATA/clinc150] [--rows 1500] [--seed 0]

Writes FOLDER/DOMAIN.jsonl, a task for each domain of CLINC150 (Larson et al. 2019), with the fields text, pair and label. Half of the pairs
are two requests of one intent ("the same"), half of two intents of the domain ("different"); no request is in two pairs of a label.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

FILES = ("train.jsonl", "valid.jsonl", "test.jsonl")
SAME, DIFFERENT = "the same", "different"


def requests(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Texts by domain and intent."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in FILES:
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["domain"]][row["label"]].append(row["text"])
    return found


def pairs(intents: dict[str, list[str]], rows: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Return `rows` pairs of a domain's requests, alternately with the same and with different intents."""
    found: list[dict[str, str]] = []
    shuffled = {name: [texts[place] for place in rng.permutation(len(texts))] for name, texts in sorted(intents.items())}
    same = [pair for texts in shuffled.values() for pair in zip(texts[::2], texts[1::2])]
    names = list(shuffled)
    for number in rng.permutation(len(same))[: rows // 2]:
        found.append({"text": same[number][0], "pair": same[number][1], "label": SAME})
    left = {name: list(texts) for name, texts in shuffled.items()}
    while len(found) < rows and sum(bool(texts) for texts in left.values()) > 1:
        one, other = rng.choice([name for name in names if left[name]], 2, replace=False)
        found.append({"text": left[one].pop(), "pair": left[other].pop(), "label": DIFFERENT})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--intents", type=Path, default=Path(os.environ.get("METATRAIN_DATA", "data")) / "clinc150")
    parser.add_argument("--rows", type=int, default=1500, help="of a domain")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    for domain, intents in sorted(requests(arguments.intents).items()):
        rows = pairs(intents, arguments.rows, rng)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (arguments.folder / f"{domain}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{domain}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
