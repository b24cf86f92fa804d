"""Tasks that are alike are found to be so, and a selection is what its weights say."""

import numpy as np
import pytest
import torch

from metatrain.errors import UserError
from metatrain.evaluation.task_similarity import Similarity, draw_map, select, similarity
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)[0]


@pytest.fixture(scope="module")
def halves():
    """Two domains, each cut into two tasks."""
    everything = TasksConfig(path="metatrain:reviews", task="domain", holdout=0, meta_train=SplitConfig(tasks=["books", "hotels"]))
    tasks = load_tasks(everything, 0, splits=("meta_train",)).meta_train
    rows = np.arange(len(tasks[0].texts))
    return [task.subset(rows % 2 == half) for task in tasks for half in (0, 1)]


def test_halves_of_one_domain_are_more_similar_than_two_domains(encoder, halves):
    found = similarity(halves, encoder, "embedding")
    assert np.allclose(np.diag(found.matrix), 1) and np.allclose(found.matrix, found.matrix.T)
    assert [found.nearest(row, range(4)) for row in range(4)] == [1, 0, 3, 2]
    assert found.diversity([0, 2]) > found.diversity([0, 1])


def test_task2vec_sees_the_labels(encoder, halves):
    from dataclasses import replace

    task = halves[0]
    other = replace(task, labels=np.arange(len(task.labels)) % 2)  # the same texts, told apart by nothing that they say
    same, changed = (similarity([task, each], encoder, "task2vec").matrix[0, 1] for each in (task, other))
    assert same == pytest.approx(1)
    assert changed < 0.99
    embedded = similarity([task, other, halves[2]], encoder, "embedding").matrix
    assert embedded[0, 1] == pytest.approx(1)


def test_the_fisher_information_is_the_mean_squared_gradient(encoder, halves):
    # Twice the scale of a layer's input means four times its Fisher information: here, of the number of texts nothing depends.
    one, again = (similarity([halves[0]], encoder, "task2vec").vectors for _ in range(2))
    assert np.array_equal(one, again) and (one >= 0).all() and one.any()


def _similarity() -> Similarity:
    """Four candidates and a target: 0 and 1 are the same and like the target, 2 is less, 3 is unlike all."""
    matrix = np.array([[1, 1, 0.5, 0, 0.9], [1, 1, 0.5, 0, 0.8], [0.5, 0.5, 1, 0, 0.5], [0, 0, 0, 1, 0.1], [0.9, 0.8, 0.5, 0.1, 1]])
    return Similarity(list("abcdt"), matrix, matrix)


def test_a_selection_weighs_similarity_against_diversity():
    found = _similarity()
    assert select(found, [0, 1, 2, 3], 4, 2, similarity_weight=1.0) == [0, 1]
    assert select(found, [0, 1, 2, 3], 4, 2, similarity_weight=0.5) == [0, 3]  # 0.5 * 0.1 - 0 > 0.5 * 0.5 - 0.5 * 0.5 = 0
    assert select(found, [0, 1, 2, 3], 4, 2, similarity_weight=0.7) == [0, 1]  # 0.7 * 0.8 - 0.3 * 1 = 0.26 beats 0.2 and 0.07
    assert sorted(select(found, [0, 1, 2, 3], None, 3, similarity_weight=0.5))[1:] == [2, 3]
    assert select(found, [0, 1], 4, 9, similarity_weight=1.0) == [0, 1]


def test_a_map_shows_every_task(tmp_path):
    draw_map(_similarity(), ["meta_train"] * 4 + ["meta_test"], tmp_path / "map.svg")
    assert "<svg" in (tmp_path / "map.svg").read_text()


def test_a_comparison_that_cannot_be(encoder, halves):
    with pytest.raises(UserError, match="compare=smell is unknown"):
        similarity(halves, encoder, "smell")
