"""Search for the recommended recipe, on meta-validation tasks only: python scripts/recipe_search.py [SETTING=VALUE ...]

Meta-trains each candidate below (runs that are there, below outputs/results/search, are not repeated), then measures cosine prototypes
with and without the names of the classes, at several blends of the initial and the trained encoder, on one set of episodes for all.
Writes outputs/results/search/found.json, which scripts/recommended.py puts into docs/results.md; --measure makes no run. Data sets are
read from the folder METATRAIN_DATA.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_page import ROOT, run_once

from metatrain.config.schema import TrainConfig
from metatrain.meta.head_fit import fit_head
from metatrain.models.batches import chunks
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.heads import Head
from metatrain.run.directory import RunDirectory
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episodes import Episode, task_episode
from metatrain.tasks.task import Task, plain_name

RUNS = ROOT / "outputs" / "results" / "search"
FOUND = RUNS / "found.json"
SCALE = 12.0  # of the cosines, where a head is fitted


@dataclass(frozen=True)
class Search:
    """Candidates on one task distribution."""

    settings: Sequence[str]
    candidates: dict[str, Sequence[str]]
    blends: Sequence[float]
    way: int | None
    shots: Sequence[int]
    episodes: int  # of each task and number of shots
    queries: int | None
    rows: int | None  # of each task that are looked at; None: all
    length: int  # of texts, in tokens


NEITHER = ["tasks.meta_validation.tasks=[]", "validation.every=0", "outer.lr=1e-4", "tracking=none", "evaluation.episodes=2", "evaluation.arms=[meta_trained]"]
COSINE, NAMED = ["algorithm=protonet_cosine"], ["algorithm=protonet_cosine", "algorithm.label_names=true"]
FILES = ["tasks.meta_test.files=[train.jsonl.gz]", "tasks.meta_test.support_files=[]", "tasks.meta_test.tasks=[baby,camera_photo]"]
SEARCHES = {
    "clinc150": Search(
        [
            "tasks=clinc150",
            "tasks.meta_test.tasks=[small_talk,work]",
            *NEITHER,
            "episode.shots=1",
            "outer.meta_batch=4",
            "evaluation.way=5",
            "evaluation.shots=[1]",
        ],
        {
            "15 way, 150 updates": [*COSINE, "episode.way=15", "outer.steps=150"],
            "5 way, 150 updates": [*COSINE, "episode.way=5", "outer.steps=150"],
            "15 way, 100 updates, names": [*NAMED, "episode.way=15", "outer.steps=100"],
            "15 way, 100 updates, names, lr 3e-4": [*NAMED, "episode.way=15", "outer.steps=100", "outer.lr=3e-4"],
            "15 way, 100 updates, names, mix 0.5": [*NAMED, "episode.way=15", "outer.steps=100", "episode.mix=0.5"],
        },
        (0.25, 0.5, 0.75, 1.0),
        way=5,
        shots=(1, 2),
        episodes=200,
        queries=15,
        rows=None,
        length=128,
    ),
    "fdu_mtl": Search(
        ["tasks=fdu_mtl", *FILES, *NEITHER, "episode.queries=10", "outer.meta_batch=3", "model.max_length=96", "evaluation.queries=10"],
        {
            "200 updates": [*COSINE, "outer.steps=200"],
            "150 updates, names": [*NAMED, "outer.steps=150"],
            "150 updates, joint training": ["algorithm=multitask", "outer.steps=150"],
        },
        (0.5, 0.75, 1.0),
        way=None,
        shots=(1, 5),
        episodes=40,
        queries=None,
        rows=500,
        length=96,
    ),
}
FITTED = ("15 way, 100 updates, names, mix 0.5", 0.6, (2, 3, 5, 10, 40), 40)  # where fitted heads are measured: candidate, blend, shots, episodes


def folder(search: str, candidate: str) -> Path:
    return RUNS / search / candidate.replace(", ", "_").replace(" ", "_")


class Measure:
    """Episodes of a search's meta-validation tasks, and what an encoder makes of them."""

    def __init__(self, search: Search, name: str):
        first = next(iter(search.candidates))
        config: TrainConfig = RunDirectory(folder(name, first)).load_config(TrainConfig)
        rng = np.random.default_rng(0)
        self.search = search
        self.tasks = [self._some(task, rng) for task in load_tasks(config.tasks, config.seed).meta_test]
        self.encoder, _ = load_encoder(ModelConfig(name="minilm", normalize=True, max_length=search.length), second_order=False)
        self.start = {key: value.clone() for key, value in self.encoder.state_dict().items()}

    def _some(self, task: Task, rng: np.random.Generator) -> Task:
        rows = np.sort(rng.permutation(len(task.texts))[: self.search.rows])
        return Task(task.name, [task.texts[row] for row in rows], task.labels[rows], task.label_names, task.support_pool[rows], task.query_pool[rows])

    def blend(self, run: Path | None, share: float) -> None:
        """Make the encoder a share of the way from where it began to a run's model."""
        trained = load_encoder(ModelConfig(name=str(run / "model"), normalize=True), second_order=False)[0].state_dict() if run else self.start
        mixed = {key: torch.lerp(value, trained[key], share) if value.is_floating_point() else value for key, value in self.start.items()}
        self.encoder.load_state_dict(mixed)

    def encodings(self) -> list[tuple[Task, torch.Tensor, torch.Tensor]]:
        """(task, encodings of its texts, encodings of the names of its labels)."""
        return [(task, _encode(self.encoder, task.texts), _encode(self.encoder, [plain_name(name) for name in task.label_names])) for task in self.tasks]

    def episodes(self, task: Task, shots: int, number: int) -> list[Episode]:
        settings = EpisodeConfig(way=self.search.way, shots=shots, queries=self.search.queries)
        return [task_episode(task, settings, 0, "meta_test", index) for index in range(number)]

    def prototypes(self) -> dict[str, dict[str, float]]:
        """By number of shots, the accuracy from examples, from examples and names, and from names."""
        encoded, found = self.encodings(), {}
        for shots in self.search.shots:
            correct: dict[str, list[float]] = {"examples": [], "with names": [], "names": []}
            for task, texts, names in encoded:
                for episode in self.episodes(task, shots, self.search.episodes):
                    examples, words = texts[episode.support].view(episode.way, shots, -1).sum(1), names[list(episode.classes)]
                    for kind, centres in (("examples", examples), ("with names", examples + words), ("names", words)):
                        correct[kind].append(_accuracy(_head(centres), texts, episode))
            found[str(shots)] = {kind: 100 * float(np.mean(values)) for kind, values in correct.items()}
        return found

    def fitted(self, shots: Sequence[int], number: int) -> dict[str, dict[str, float]]:
        """By number of shots, the accuracy of prototypes with names and of the head fitted from there."""
        encoded, found = self.encodings(), {}
        for count in shots:
            correct: dict[str, list[float]] = {"prototypes": [], "fitted": []}
            for task, texts, names in encoded:
                for episode in self.episodes(task, count, number):
                    features = torch.cat([texts[episode.support], names[list(episode.classes)]])
                    labels = torch.from_numpy(np.concatenate([episode.support_labels, np.arange(episode.way)]))

                    def start(rows: np.ndarray, features: torch.Tensor = features, labels: torch.Tensor = labels, way: int = episode.way) -> Head:
                        own = torch.from_numpy(rows)
                        return _head(torch.zeros(way, features.shape[1]).index_add_(0, labels[own], features[own]))

                    fit = fit_head(start, features, labels, np.arange(len(labels)) >= len(episode.support), 0)
                    correct["prototypes"].append(_accuracy(start(np.arange(len(labels))), texts, episode))
                    correct["fitted"].append(_accuracy(fit.head, texts, episode))
            found[str(count)] = {kind: 100 * float(np.mean(values)) for kind, values in correct.items()}
        return found


def _encode(encoder: Encoder, texts: Sequence[str]) -> torch.Tensor:
    ids = encoder.tokens().encode(texts)
    with torch.no_grad():
        return torch.cat([encoder(encoder.batch(ids[part])) for part in chunks(ids)])


def _head(centres: torch.Tensor) -> Head:
    return {"weight": SCALE * torch.nn.functional.normalize(centres, dim=1), "bias": torch.zeros(len(centres))}


def _accuracy(head: dict[str, torch.Tensor], texts: torch.Tensor, episode: Episode) -> float:
    answers = (texts[episode.query] @ head["weight"].T + head["bias"]).argmax(1).numpy()
    return float((answers == episode.query_labels).mean())


def main(more: list[str]) -> None:
    if more != ["--measure"]:
        for name, search in SEARCHES.items():
            for candidate, settings in search.candidates.items():
                run_once(folder(name, candidate), "train", [*search.settings, *settings, *more])
    found: dict[str, dict[str, Any]] = {}
    for name, search in SEARCHES.items():
        measure = Measure(search, name)
        found[name] = {"before": measure.prototypes()}
        for candidate in search.candidates:
            for share in search.blends:
                measure.blend(folder(name, candidate), share)
                found[name].setdefault(candidate, {})[str(share)] = measure.prototypes()
            print(name, candidate, json.dumps(found[name][candidate]), flush=True)
        if FITTED[0] in search.candidates:
            measure.blend(folder(name, FITTED[0]), FITTED[1])
            found[name]["fitted"] = measure.fitted(*FITTED[2:])
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
