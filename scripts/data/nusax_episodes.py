"""Write the sentiment task of NusaX (Winata et al. 2023) as episodes: METATRAIN_DATA=FOLDER python scripts/data/nusax_episodes.py FILE

One episode for each of the 12 languages: all 500 texts of the training file are the support set, all 400 of the test file the queries, which is the
protocol of the paper. Texts of the test file that are in the training file of the language too are left out. Results:

    metatrain evaluate checkpoint=minilm algorithm=recommended episode.file=FILE evaluation.metrics=[macro_f1] \\
        evaluation.arms=[meta_trained,logistic_regression] report=false

Prints the macro F1 of the paper's logistic regression: word counts, C chosen on the validation file, then fitted to the training and validation files.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from metatrain.run.atomic import write_text

LABELS = ["negative", "neutral", "positive"]
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # candidate values of C

Part = dict[str, int]  # label of each text, as a position in LABELS


def read(path: Path) -> dict[str, Part]:
    """Return the texts of each language."""
    found: dict[str, Part] = {}
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        row = json.loads(line)
        found.setdefault(row["lang"], {})[row["text"]] = LABELS.index(row["label"])
    return found


def on_word_counts(train: Part, valid: Part, test: Part) -> float:
    """Return the macro F1 of logistic regression on word counts."""
    words = CountVectorizer().fit(train)
    counts = [words.transform(part) for part in (train, valid, {**train, **valid}, test)]
    labels = [np.array(list(part.values())) for part in (train, valid, {**train, **valid}, test)]

    def fitted(part: int, strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=1000).fit(counts[part], labels[part])

    best = max(STRENGTHS, key=lambda strength: fitted(0, strength).score(counts[1], labels[1]))
    return float(f1_score(labels[3], fitted(2, best).predict(counts[3]), average="macro"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    target = parser.parse_args().file
    folder = Path(os.environ.get("METATRAIN_DATA", "data")) / "nusax_senti"
    train, valid, test = (read(folder / f"{split}.jsonl") for split in ("train", "valid", "test"))
    lines, scores = [], []
    for language, support in train.items():
        query = {text: label for text, label in test[language].items() if text not in support}
        parts = {name: {"texts": list(part), "labels": list(part.values())} for name, part in (("support", support), ("query", query))}
        lines.append({"task": language, "shots": min(map(len, train.values())) // len(LABELS), "label_names": LABELS, **parts})
        scores.append(on_word_counts(support, valid[language], test[language]))
        print(f"{language}: {len(support)} texts for training, {len(query)} for the test; logistic regression on word counts {100 * scores[-1]:.1f}")
    write_text(target, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(f"mean: logistic regression on word counts {100 * np.mean(scores):.1f}")


if __name__ == "__main__":
    main()
