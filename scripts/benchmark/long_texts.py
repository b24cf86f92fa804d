"""Measure `model.long_texts=windows`: python scripts/benchmark/long_texts.py SET[:TASK] ... [--draws 10]

Each SET is a folder of METATRAIN_DATA with train.jsonl and test.jsonl (or .jsonl.gz); TASK: only rows of this `task` or `domain`. Texts are encoded by
MiniLM (`checkpoint=minilm algorithm=recommended`), one thread: cut at 128 tokens, cut at 256, and in windows of 128 tokens. 16 examples of each class
are drawn from the training rows, at most 200 test rows are predicted. Prints the table of docs/probabilities.md: mean accuracy over draws, the 95%
interval of the gain of windows over the cut at 128, and the time to encode a text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from labelling import Rows, half_width

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, ModelOverrides, Overrides
from metatrain.meta.progress import Silent
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode

SHOTS, POOL, TEST = 16, 40, 200  # examples of a class in a draw, training rows of a class to draw from, test rows
ARMS: dict[str, dict[str, Any]] = {
    "cut at 128": {"max_length": 128},
    "cut at 256": {"max_length": 256},
    "windows of 128": {"max_length": 128, "long_texts": "windows"},
}


def read(name: str) -> tuple[Rows, Rows]:
    """Return training rows, at most `POOL` of a class, and test rows."""
    folder, _, task = name.partition(":")
    parts = []
    for part in ("train", "test"):
        path = next((Path(os.environ.get("METATRAIN_DATA", "data")) / folder).glob(f"{part}.jsonl*"))
        opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as lines:
            rows = [row for row in map(json.loads, lines) if not task or task in (row.get("task"), row.get("domain"))]
        parts.append(Rows([row["text"] for row in rows], [str(row["label"]) for row in rows]).drawn(np.random.default_rng(0), len(rows)))
    train, test = parts
    kept = [row for label in sorted(set(train.labels)) for row in [row for row, each in enumerate(train.labels) if each == label][:POOL]]
    return train.at(kept), test.at(range(min(TEST, len(test.texts))))


def accuracies(settings: dict[str, Any], train: Rows, test: Rows, draws: int) -> tuple[np.ndarray, float, float]:
    """Return the accuracy of each draw, seconds to encode a text, and the share of texts that are longer than the cut."""
    overrides = Overrides(AlgorithmOverrides(name="recommended"), InnerOverrides(fit_head=True), ModelOverrides(**settings))
    learner: Any = open_checkpoint("minilm", overrides, torch.device("cpu"), torch.float32, lambda line: None).learner
    ids = learner.model.tokens().encode([*train.texts, *test.texts])
    begin = time.perf_counter()
    encoded = learner.features(ids)
    seconds = (time.perf_counter() - begin) / len(ids)
    known = {each.tobytes(): value for each, value in zip(ids, encoded)}
    encode = learner.functional.features
    learner.functional.features = lambda parameters, texts, on_progress=lambda number: None: torch.stack(
        [known[np.asarray(text).tobytes()] if np.asarray(text).tobytes() in known else encode(parameters, [text])[0] for text in texts]
    )
    found = []
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        rows = [row for label in sorted(set(train.labels)) for row in rng.permutation([row for row, each in enumerate(train.labels) if each == label])[:SHOTS]]
        examples = train.at(rows)
        episode = given_episode([*examples.texts, *test.texts], [*examples.labels, *test.labels], len(rows), seed=draw)
        parameters, _, _ = learner.fit(encode_episode(episode, learner.model.tokens()), Silent())
        logits = encoded[len(train.texts) :] @ parameters["head.weight"].T + parameters["head.bias"]
        found.append(float((logits.argmax(1).numpy() == episode.query_labels).mean()))
    return np.array(found), seconds, float(np.mean([len(each) > settings["max_length"] for each in ids]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--draws", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| data set | classes | texts over 128 tokens | {' | '.join(ARMS)} | windows - cut at 128 | ms per text: {' / '.join(ARMS)} |")
    print(f"|---|---|---|{'---|' * len(ARMS)}---|---|")
    for name in arguments.sets:
        train, test = read(name)
        found = [accuracies(settings, train, test, arguments.draws) for settings in ARMS.values()]
        gain = 100 * (found[2][0] - found[0][0])
        half = half_width(gain)
        cells = [f"{100 * accuracy.mean():.1f}" for accuracy, _, _ in found]
        times = " / ".join(f"{1000 * seconds:.0f}" for _, seconds, _ in found)
        shown = f"{gain.mean():+.1f} [{gain.mean() - half:+.1f}, {gain.mean() + half:+.1f}]"
        print(f"| {name} | {len(set(train.labels))} | {found[2][2]:.0%} | {' | '.join(cells)} | {shown} | {times} |", flush=True)


if __name__ == "__main__":
    main()
