"""Write docs/everyday.md: the tasks of the collection `everyday`, and the accuracy of baselines without meta-learning.

    python scripts/docs/everyday_page.py     (about a minute on two cores)

Accuracies are of 5-fold cross-validation over all texts of a task: logistic regression on word counts, and on the encodings of the frozen
all-MiniLM-L6-v2 (mean pooling, normalised, C=10).
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.tasks.embedded import embedded_path

PAGE = Path(__file__).parents[2] / "docs" / "everyday.md"
HEAD = """\
# The `everyday` task collection

The package carries {tasks} small tasks in {families} task families, {texts:,} texts in all, written for this project (`tasks.path=metatrain:everyday`).
The families ask different questions, and many tasks cannot be solved from the label names: labels such as "box 2" or "shelf a" stand for a rule that only the
support examples reveal.

```bash
metatrain tasks tasks=everyday            # list the tasks of the training, validation and test families
metatrain train +experiment=sentiment_fewshot   # sentiment family, twelve unseen test tasks
```

Baselines without meta-learning: accuracy in percent of logistic regression on word counts and on encodings of the frozen all-MiniLM-L6-v2, 5-fold
cross-validation over all texts of a task. Chance is 100 / number of classes. `python scripts/docs/everyday_page.py` regenerates this page.
"""


def word_count_accuracy(texts: Sequence[str], labels: np.ndarray) -> float:
    """Cross-validated accuracy of logistic regression on word counts."""
    return _accuracy(make_pipeline(CountVectorizer(), LogisticRegression(max_iter=2000)), texts, labels)


def _accuracy(model: Any, inputs: Any, labels: np.ndarray) -> float:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(np.mean(cross_val_predict(model, inputs, labels, cv=folds) == labels))


def _encode(encoder: Encoder, texts: Sequence[str]) -> np.ndarray:
    """Encodings of texts, [texts, hidden]."""
    ids = [np.array(encoder.tokenizer(text, truncation=True, max_length=96)["input_ids"]) for text in texts]
    with torch.no_grad():
        return np.concatenate([encoder(encoder.batch(ids[first : first + 64])).numpy() for first in range(0, len(ids), 64)])


def rows_of_families() -> dict[str, list[dict[str, str]]]:
    """The rows of each family's file."""
    files: list[Path] = sorted(embedded_path("metatrain:everyday").glob("*.jsonl"))
    return {file.stem: [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files}


def main() -> None:
    encoder, _ = load_encoder(ModelConfig(name="minilm", normalize=True), second_order=False)
    families = rows_of_families()
    table = [
        "| family | task | labels | texts | words per text | accuracy, word counts | accuracy, frozen encoder | chance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family, rows in families.items():
        tasks = defaultdict(list)
        for row in rows:
            tasks[row["task"]].append(row)
        for task, of_task in tasks.items():
            texts, labels = [row["text"] for row in of_task], np.array([row["label"] for row in of_task])
            names = list(Counter(labels.tolist()))
            words = np.mean([len(text.split()) for text in texts])
            counted = word_count_accuracy(texts, labels)
            encoded = _accuracy(LogisticRegression(C=10, max_iter=2000), _encode(encoder, texts), labels)
            table.append(
                f"| {family} | {task} | {', '.join(names)} | {len(texts)} | {words:.0f} | {100 * counted:.0f} | {100 * encoded:.0f} | {100 / len(names):.0f} |"
            )
    head = HEAD.format(tasks=len(table) - 2, families=len(families), texts=sum(map(len, families.values())))
    PAGE.write_text(f"{head}\n{chr(10).join(table)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
