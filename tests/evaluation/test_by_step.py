"""Scores by inner step are those of the same arm with that number of steps, on the queries and on the support set."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.by_step import scores_by_step, step_counts, takes_steps
from metatrain.evaluation.protocol import EpisodeSet, run_arms
from metatrain.evaluation.statistics import accuracy, log_loss, mean_over_tasks
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode


def learner(steps: int = 3, loss: str = "support", **algorithm) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)
    return EncoderLearner(encoder, AlgorithmConfig(**{"head": "prototype", **algorithm}), InnerConfig(lr=0.05, head_lr=0.5, steps=steps, loss=loss), way=None)


@pytest.fixture(scope="module")
def tasks():
    chosen = SplitConfig(tasks=["gym_memberships", "hostel_verdicts"])
    return load_tasks(TasksConfig(path="metatrain:everyday", task="task", holdout=0, meta_test=chosen), 0, splits=("meta_test",)).meta_test


@pytest.mark.parametrize("algorithm", [{"adapt": "head"}, {"adapt": "all"}, {"adapt": "last_layers", "last_layers": 1}, {"adapt": "head", "label_names": True}])
def test_each_step_is_the_arm_with_that_number_of_steps(tasks, algorithm):
    arm = Adapted(learner(**algorithm))
    episodes = EpisodeSet(tasks, arm.learner.model.tokens(), EpisodeConfig(shots=2, queries=4), 2, 0, "meta_validation")
    done = []
    found = scores_by_step(arm, [0, 1, 3], episodes, done.append)
    assert sum(done) == 4
    for place, steps in enumerate((0, 1, 3)):
        scores = run_arms({"arm": arm.after(steps)}, episodes)["arm"]
        assert found["query_accuracy"][place] == pytest.approx(mean_over_tasks(scores.accuracy.values()), abs=1e-12)
        assert found["query_loss"][place] == pytest.approx(mean_over_tasks(scores.loss.values()), abs=1e-12)
    for place, steps in enumerate((0, 1, 3)):
        rows = []
        for task in tasks:
            for index in range(2):
                texts = encode_episode(task_episode(task, episodes.settings, 0, "meta_validation", index), episodes.tokens)
                own = replace(texts, query=texts.support, query_labels=texts.support_labels)
                probabilities = arm.after(steps).predict(own).probabilities
                rows.append((accuracy(probabilities.argmax(1), texts.support_labels), log_loss(probabilities, texts.support_labels)))
        expected = np.mean(rows, 0)
        assert (found["support_accuracy"][place], found["support_loss"][place]) == pytest.approx(tuple(expected), abs=1e-6)


def test_the_last_of_the_trajectory_is_what_adaptation_gives(tasks):
    subject = learner(adapt="all")
    texts = encode_episode(task_episode(tasks[0], EpisodeConfig(shots=2, queries=2), 0, "meta_test", 0), subject.model.tokens())
    *_, last = subject.trajectory(texts, 3)
    adapted, _ = subject.adapt(texts)
    assert all(torch.equal(last[name], value) for name, value in adapted.items()) and last.keys() == adapted.keys()


@pytest.mark.parametrize("shots", [1, 2])
def test_a_head_made_after_the_steps_is_made_after_each_of_them(tasks, shots):
    """With one example per class, leave_one_out makes no step: every number of steps gives the same."""
    subject = learner(adapt="last_layers", loss="leave_one_out")
    texts = encode_episode(task_episode(tasks[0], EpisodeConfig(shots=shots, queries=2), 0, "meta_test", 0), subject.model.tokens())
    for steps, found in enumerate(subject.trajectory(texts, 2)):
        expected, _ = subject.adapt(texts, steps)
        assert found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


class OneOfTwo:
    """A process that has half of the episodes, and knows what the other one found."""

    size = 2

    def __init__(self, rank: int, found: list):
        self.rank, self.found = rank, found

    def gather(self, value):
        self.found[self.rank] = value
        return self.found


def test_processes_share_the_episodes(tasks):
    arm = Adapted(learner(steps=1, adapt="head"))
    episodes = EpisodeSet(tasks, arm.learner.model.tokens(), EpisodeConfig(shots=1, queries=2), 2, 0, "meta_test")
    whole, found = scores_by_step(arm, [0, 1], episodes), [None, None]
    with pytest.raises(TypeError):  # the other half is not there yet
        scores_by_step(arm, [0, 1], episodes, workers=OneOfTwo(1, found))
    assert scores_by_step(arm, [0, 1], episodes, workers=OneOfTwo(0, found)) == whole


def test_which_steps_are_scored():
    assert [step_counts(steps) for steps in (1, 3, 6)] == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]
    assert step_counts(30) == [0, 5, 10, 15, 20, 25, 30] and len(step_counts(7)) == 7
    assert takes_steps(learner(steps=1)) and not takes_steps(learner(steps=0))
