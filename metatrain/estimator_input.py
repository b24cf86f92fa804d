"""Input of the scikit-learn estimator: texts, labels and the random state, as finetuning takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from metatrain.checkpoints.adaptation import check_no_label_is_none
from metatrain.errors import UserError
from metatrain.inputs import read_text
from metatrain.tasks.labels import as_text, clean_label, is_blank
from metatrain.tasks.texts import has_lone_surrogate


def rows_of(X: Any) -> Sequence[Any]:
    """Return the rows of a list, an array, a column or a table: texts, or tuples of two. Raises: UserError: it has another shape."""
    if isinstance(X, (str, bytes)):
        raise UserError("X must be a list of strings, not a string; use [text]")
    if hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if not isinstance(X, np.ndarray):
        try:
            return list(X)
        except TypeError as error:
            raise UserError(f"X must be a list of strings, not {type(X).__name__}: {error}") from error
    if X.ndim == 1:
        return X.tolist()
    if X.ndim == 2 and X.shape[1] in (1, 2):
        return X[:, 0].tolist() if X.shape[1] == 1 else [tuple(row) for row in X.tolist()]
    raise UserError(f"X must be a column of texts, or two columns of text pairs; its shape is {X.shape}. Reshape your data")


def training_texts(X: Any) -> list[str]:
    """Return the texts as the tokenizer is given them. Raises: UserError: there is none, or one cannot be read or is empty."""
    texts = [read_text(text, f"X[{row}]") for row, text in enumerate(rows_of(X))]
    if not texts:
        raise UserError("X has 0 texts; a classifier needs examples of at least two classes")
    if (empty := next((row for row, text in enumerate(texts) if is_blank(text)), None)) is not None:
        raise UserError(f"X[{empty}] is empty; remove it, or give it a text")
    return texts


def classes_of(y: Any) -> tuple[np.ndarray, list[str], list[str]]:
    """Return (classes, sorted; their names as in a file; the name of each label).

    Raises:
        UserError: a label cannot be read, there are fewer than two classes, or two have the same name.
        ValueError: y is no column of labels.
    """
    if y is None:
        raise UserError("FewShotClassifier requires y to be passed, but the target y is None")
    may_hold_lists = isinstance(y, (list, tuple)) or (getattr(getattr(y, "dtype", None), "kind", "") == "O" and y.ndim == 1)
    if may_hold_lists and any(isinstance(each, (list, tuple, set)) and len(each) != 1 for each in y):
        raise UserError("y has several labels for a text, and FewShotClassifier predicts one; use metatrain.finetune(data={'kind': 'labels', 'train': FILE})")
    labels = column_or_1d(y, warn=True)
    try:
        classes, places = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise UserError(f"y has labels of several types, such as numbers beside strings: {error}") from error
    check_classification_targets(labels)
    names = names_of(classes)
    for value, name in zip(classes.tolist(), names):
        if value is None or is_blank(name) or has_lone_surrogate(name):
            raise UserError(f"y has the label {value!r}, which cannot be read; remove its examples")
        if names.count(name) > 1:
            raise UserError(f"y has two labels that are read as {name!r}; spell them the same way")
    if len(classes) < 2:
        raise UserError(f"y has only one class ({names[0]!r}); a classifier needs examples of at least two")
    return classes, names, [names[place] for place in places]


def names_of(classes: np.ndarray) -> list[str]:
    """Return the label names of classes, as they would be read from a file."""
    return [clean_label(as_text(value)) for value in classes.tolist()]


def check_labels_beside_none(classes: np.ndarray, names: Sequence[str]) -> None:
    """Raises: UserError: `none_of_these` cannot be predicted beside these labels."""
    if not all(isinstance(value, str) for value in classes.tolist()):
        raise UserError("oos_false_rejection_rate predicts none_of_these, which is a string; use labels that are strings")
    check_no_label_is_none(names, "y")


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return the seed: a number itself, one drawn from a generator, or 0."""
    if random_state is None or isinstance(random_state, (int, np.integer)):
        return int(random_state or 0)
    return int(check_random_state(random_state).randint(2**31 - 1))
