"""Similarity of tasks (mean encodings of their texts, or task2vec), and selection of training tasks.

Both measures represent a task by a vector, computed from a sample of its texts, and compare vectors by cosine similarity.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.models.batches import chunks
from metatrain.models.encoder import Encoder
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens

TEXTS = 200  # default number of texts sampled per task
_FISHER_TEXTS = 64  # maximum number of texts per task for the Fisher information
_PART_TOKENS = 8192  # tokens per batch


@dataclass(frozen=True)
class Similarity:
    """Task vectors and their pairwise similarities; 1: equal vectors."""

    names: list[str]
    vectors: np.ndarray  # [tasks, D]
    matrix: np.ndarray  # [tasks, tasks]

    def diversity(self, rows: Sequence[int]) -> float:
        """Return 1 minus the mean pairwise similarity of these tasks."""
        part = self.matrix[np.ix_(rows, rows)]
        number = len(rows)
        return float(1 - (part.sum() - np.trace(part)) / (number * (number - 1))) if number > 1 else 0.0

    def nearest(self, row: int, rows: Sequence[int]) -> int:
        """Return the task among `rows`, other than `row`, that is most similar to task `row`."""
        return max((other for other in rows if other != row), key=lambda other: self.matrix[row, other])


def similarity(tasks: Sequence[Task], encoder: Encoder, kind: str, on_progress: Callable[[], None] = lambda: None, texts: int = TEXTS) -> Similarity:
    """Return the similarity of tasks; `texts`: number of texts sampled per task; `on_progress` is called after each task.

    - `embedding`: mean encoding of the texts, minus the mean over all tasks. Labels are not used.
    - `task2vec` (Achille et al. 2019): a logistic regression is fitted on the frozen encoder. The task vector is the diagonal of the Fisher
      information of the encoder's last layer, with labels sampled from the predictions, averaged over the weights of each unit. Two tasks
      are compared by the cosine of F1 / (F1 + F2) and F2 / (F1 + F2) (section 3 of the paper).

    Raises:
        UserError: the kind is unknown, or task2vec gets a task without labels.
    """
    if kind not in KINDS:
        raise UserError(f"compare={kind} is unknown; choose one of {', '.join(KINDS)}")
    tokens, vectors = encoder.tokens(), []
    for task in tasks:
        vectors.append(KINDS[kind](task, _sample(task, texts), encoder, tokens))
        on_progress()
    stacked = np.stack(vectors)
    if kind == "embedding":
        stacked = stacked - stacked.mean(0)
        unit = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
        matrix = unit @ unit.T
    else:
        matrix = np.array([[_fisher_cosine(one, other) for other in stacked] for one in stacked])
    return Similarity([task.name for task in tasks], stacked, matrix)


def select(similarity: Similarity, candidates: Sequence[int], target: int | None, number: int, similarity_weight: float) -> list[int]:
    """Choose `number` candidates greedily by maximal marginal relevance: similar to the target, dissimilar to each other (Carbonell and Goldstein 1998).

    similarity_weight: weight of similarity to the target, from 0 (only diversity) to 1 (only similarity); 0 without a target.
    """
    weight = similarity_weight if target is not None else 0.0
    chosen: list[int] = []
    while len(chosen) < min(number, len(candidates)):
        rest = [row for row in candidates if row not in chosen]
        gains = []
        for row in rest:
            near = similarity.matrix[row, target] if target is not None else -similarity.matrix[row, list(candidates)].mean()
            repeated = max((similarity.matrix[row, other] for other in chosen), default=0.0)
            gains.append(weight * near - (1 - weight) * repeated if chosen or target is not None else -near)
        chosen.append(rest[int(np.argmax(gains))])
    return chosen


def coordinates(similarity: Similarity) -> np.ndarray:
    """Return the first two principal components of the task vectors, [tasks, 2]."""
    components = min(2, *similarity.vectors.shape)
    points = PCA(components, random_state=0).fit_transform(similarity.vectors)
    return np.pad(points, ((0, 0), (0, 2 - components)))


def draw_map(similarity: Similarity, splits: Sequence[str], path: Path) -> None:
    """Plot the tasks on their first two principal components, coloured by split, into a file (png, svg or pdf)."""
    from matplotlib.figure import Figure

    points = coordinates(similarity)
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.add_subplot()
    for split in dict.fromkeys(splits):
        rows = [row for row, each in enumerate(splits) if each == split]
        axes.scatter(points[rows, 0], points[rows, 1], label=split.replace("_", "-"), s=36)
    for name, (x, y) in zip(similarity.names, points):
        axes.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel("first principal component of the tasks")
    axes.set_ylabel("second")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _sample(task: Task, texts: int) -> np.ndarray:
    """Return a reproducible random sample of rows."""
    rows = np.random.default_rng(zlib.crc32(task.name.encode())).permutation(len(task.texts))
    return np.sort(rows[:texts])


def _encodings(texts: Sequence[np.ndarray], encoder: Encoder) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([encoder(encoder.batch(texts[part])) for part in chunks(texts, _PART_TOKENS)]).double().cpu().numpy()


def _embedding(task: Task, rows: np.ndarray, encoder: Encoder, tokens: Tokens) -> np.ndarray:
    encodings = _encodings(tokens.of(task, rows), encoder)
    return (encodings / np.linalg.norm(encodings, axis=1, keepdims=True)).mean(0)


def _fisher(task: Task, rows: np.ndarray, encoder: Encoder, tokens: Tokens) -> np.ndarray:
    if len(task.label_names) < 2:
        raise UserError(f"compare=task2vec needs labels, but task '{task.name}' has none; choose compare=embedding")
    if task.label_sets is not None:
        raise UserError(f"compare=task2vec needs one label per text, but task '{task.name}' has several; choose compare=embedding")
    texts = tokens.of(task, rows)
    head = LogisticRegression(max_iter=1000).fit(_encodings(texts, encoder), task.labels[rows])
    weight, bias = (torch.as_tensor(each, dtype=torch.float32, device=encoder.device) for each in (head.coef_, head.intercept_))
    if len(weight) == 1:  # for two classes, scikit-learn has one row
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    last = str(encoder.layers - 1)
    probed = {name: value.detach().requires_grad_() for name, value in encoder.named_parameters() if f".{last}." in name}
    generator = torch.Generator().manual_seed(zlib.crc32(task.name.encode()))
    total = {name: torch.zeros(value.shape[0], dtype=torch.float64) for name, value in probed.items()}
    sampled = texts[:: max(1, len(texts) // _FISHER_TEXTS)][:_FISHER_TEXTS]
    for text in sampled:
        log_p = (functional_call(encoder, probed, (encoder.batch([text]),))[0] @ weight.T + bias).log_softmax(-1)
        drawn = int(torch.multinomial(log_p.exp().cpu(), 1, generator=generator))
        for name, gradient in zip(probed, torch.autograd.grad(log_p[drawn], list(probed.values()))):
            total[name] += gradient.square().flatten(1).mean(1).double().cpu() if gradient.ndim > 1 else gradient.square().double().cpu()
    return torch.cat(list(total.values())).numpy() / len(sampled)


def _fisher_cosine(one: np.ndarray, other: np.ndarray) -> float:
    both = np.maximum(one + other, 1e-30)
    a, b = one / both, other / both
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


# Functions that compute a task vector.
KINDS: dict[str, Callable[[Task, np.ndarray, Encoder, Tokens], np.ndarray]] = {"embedding": _embedding, "task2vec": _fisher}
