"""Write the sentiment task of NusaX (Winata et al. 2023) as episodes: METATRAIN_DATA=FOLDER python scripts/data/nusax_episodes.py FILE

One episode for each of the 12 languages: all 500 texts of the training file are the support set, all 400 of the test file the queries, which is the
protocol of the paper. Texts of the test file that are in the training file of the language too are left out. Results:

    metatrain evaluate checkpoint=minilm algorithm=recommended episode.file=FILE evaluation.metrics=[macro_f1] \\
        evaluation.arms=[meta_trained,logistic_regression] report=false
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from metatrain.run.atomic import write_text

LABELS = ["negative", "neutral", "positive"]


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return the label of each text, by language."""
    found: dict[str, dict[str, str]] = {}
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        row = json.loads(line)
        found.setdefault(row["lang"], {})[row["text"]] = row["label"]
    return found


def part(labels: dict[str, str]) -> dict[str, list[str] | list[int]]:
    return {"texts": list(labels), "labels": [LABELS.index(label) for label in labels.values()]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    target = parser.parse_args().file
    folder = Path(os.environ.get("METATRAIN_DATA", "data")) / "nusax_senti"
    train, test = (read(folder / f"{split}.jsonl") for split in ("train", "test"))
    lines = []
    for language, support in train.items():
        query = {text: label for text, label in test[language].items() if text not in support}
        lines.append({"task": language, "shots": len(support) // len(LABELS), "label_names": LABELS, "support": part(support), "query": part(query)})
        print(f"{language}: {len(support)} texts for training, {len(query)} for the test")
    shots = min(int(line["shots"]) for line in lines)
    write_text(target, "".join(json.dumps({**line, "shots": shots}, ensure_ascii=False) + "\n" for line in lines))


if __name__ == "__main__":
    main()
