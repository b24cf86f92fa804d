"""Examples of `metatrain finetune`: the rows of the training and test files, as one episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metatrain.checkpoints.adaptation import check_no_label_is_none
from metatrain.commands.finetune_parts import described, read_table
from metatrain.commands.labelling import read_unlabelled
from metatrain.config.schema import DataConfig
from metatrain.errors import UserError
from metatrain.evaluation.text_scores import check_score
from metatrain.tasks.audit import seen_rows
from metatrain.tasks.episodes import Episode, given_episode
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.keys import text_key
from metatrain.tasks.label_names import check_label_text, label_texts
from metatrain.tasks.labels import by_label
from metatrain.tasks.splits import few
from metatrain.tasks.task import Task

_MOST_UNLABELLED = 500  # texts without labels: each is encoded up to six times, once for each fold of cross-validation


@dataclass(frozen=True)
class Examples:
    """Examples of the training and test files."""

    episode: Episode  # the training examples as support set, the in-scope test examples as queries
    is_tested: bool  # whether there are in-scope test examples
    out_of_scope: Sequence[str]  # out-of-scope test texts; only with `oos_false_rejection_rate`
    num_seen: int  # number of test texts that also occur in training
    is_held_out: bool  # True: these are excluded from the test; False: training has all test texts
    columns: Columns  # of the training file
    unlabelled: Sequence[str] = ()  # texts without labels, none of which is in the other files


def read_examples(data: DataConfig, rejects: bool, say: Callable[[str], None], seed: int = 0) -> Examples:
    """Read the files and report remarks about them; with `rejects`, test rows with other labels are out-of-scope texts.

    seed: of the episode.

    Raises:
        UserError: a file cannot be read, training has fewer than two classes, or the labels of the files do not go together.
    """
    if data.target:
        check_score(data.score, "data.score", computed=data.test is not None)
    train, columns = read_table(data, "data.train", data.train, say)
    data = replace(data, text=columns.text, label=columns.label or data.label, pair=columns.pair)
    if data.label_descriptions:
        _check_described(data, train)
        train = described(train, data.label_descriptions)
    labels = None if data.target else sorted(set(train.labels))
    if labels is not None:
        if len(labels) < 2:
            merged = " after data.label_descriptions, which gives all labels the same description" if data.label_descriptions else ""
            raise UserError(f"{train.source}: only one class ({labels[0]!r}){merged}; a classifier needs examples of at least two")
        if rejects:
            check_no_label_is_none(labels, train.source)
    rows: list[tuple[str, str]] = []
    is_seen = np.zeros(0, dtype=bool)
    if data.test is not None:
        test = described(read_table(data, "data.test", data.test, say)[0], data.label_descriptions)
        rows, is_seen = _test_rows(train, test, None if rejects else labels, say)
    in_scope = [(text, answer) for text, answer in rows if labels is None or answer in labels]
    texts, answers = [*train.texts, *(text for text, _ in in_scope)], [*train.labels, *(answer for _, answer in in_scope)]
    episode = given_episode(texts, answers, len(train.texts), data.score if data.target else None, seed)
    return Examples(
        episode=replace(episode, task=replace(episode.task, label_texts=label_texts_of(data, episode.task.label_names))),
        is_tested=bool(in_scope),
        out_of_scope=[text for text, answer in rows if labels is not None and answer not in labels],
        num_seen=int(is_seen.sum()),
        is_held_out=not is_seen.all() or not len(is_seen),
        columns=columns,
        unlabelled=() if data.unlabelled is None else _unlabelled(data.unlabelled, columns, episode.task, seed, say),
    )


def _unlabelled(name: str, columns: Columns, examples: Task, seed: int, say: Callable[[str], None]) -> list[str]:
    """Return different texts without labels that are not among the examples, in random order and at most `_MOST_UNLABELLED`.

    Raises:
        UserError: the file cannot be read, no text is left, or the examples are images.
    """
    if examples.of_images:
        raise UserError(f"data.unlabelled={name}: images without labels are not supported; leave it out")
    rows = read_unlabelled(name, Columns(columns.text, pair=columns.pair), {"text": "data.text"}, say, "data.unlabelled")
    if rows and all(row.problem is not None for row in rows):
        raise UserError(f"data.unlabelled={name}: no text can be read; the first: {rows[0].problem}")
    known = {text_key(text) for text in examples.texts}
    texts = {text_key(row.text): row.text for row in rows if row.problem is None}
    found = [text for key, text in texts.items() if key not in known]
    if shared := len(texts) - len(found):
        say(f"{shared} of {len(texts)} texts without labels are also training or test examples, and are left out")
    if not found:
        raise UserError(f"data.unlabelled={name}: every text is also a training or test example; give other texts")
    if len(found) > _MOST_UNLABELLED:
        say(f"{_MOST_UNLABELLED} of {len(found)} texts without labels are used, drawn at random")
    return [found[place] for place in np.random.default_rng(seed).permutation(len(found))[:_MOST_UNLABELLED]]


def _check_described(data: DataConfig, train: Table) -> None:
    """Raises: UserError: a label with a description has no example."""
    if unknown := by_label(data.label_descriptions).keys() - set(train.labels):
        raise UserError(f"data.label_descriptions: no example has the label {min(unknown)!r}; there are {few(sorted(set(train.labels)))}")


def label_texts_of(data: DataConfig, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the texts of the labels for methods that read label names; None: the names.

    Raises:
        UserError: a label that is defined has no example, or `data.label_text` is unknown.
    """
    check_label_text("data.label_text", data.label_text)
    definitions = by_label(data.label_definitions)
    if unknown := definitions.keys() - set(names):
        raise UserError(f"data.label_definitions: no example has the label {min(unknown)!r}; there are {few(names)}")
    return label_texts(names, definitions, data.label_text)


def _test_rows(train: Table, test: Table, labels: Sequence[str] | None, say: Callable[[str], None]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the test rows (text, label or target) that training does not have, and which rows it has, boolean, [test rows].

    If training has all test rows, all are returned. labels: labels of the training file; None: a test row may have any other.

    Raises:
        UserError: a row has another label.
    """
    for row, label in enumerate(test.labels):
        if labels is not None and label not in labels:
            remedy = "use the same labels in both files, or set oos_false_rejection_rate=0.05 to treat texts with other labels as out of scope"
            raise UserError(f"{test.places([row])[row]}: label {label!r} is not in the training examples; their labels are {', '.join(labels)}; {remedy}")
    is_seen, warnings = seen_rows(train, test)
    for warning in warnings:
        say(warning)
    keeps_all = bool(is_seen.all())
    return [(text, answer) for text, answer, seen in zip(test.texts, test.labels, is_seen) if keeps_all or not seen], is_seen
