"""Evaluation of episodes with several labels per text: scores beside scikit-learn, logistic regression for each label, arms that are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics import log_loss as log_loss_of

from metatrain.errors import UserError
from metatrain.evaluation.arms import ROWS
from metatrain.evaluation.chosen_arms import chosen_arms
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.frozen_arms import FrozenFeatures, FrozenLogisticRegression
from metatrain.evaluation.label_sets import episode_scores
from metatrain.evaluation.prediction import Prediction
from metatrain.evaluation.protocol import Setup, check_evaluation, check_one_kind, evaluate
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.label_fit import fit_labels
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode
from metatrain.tasks.task import Task, numbered
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.console import result_rows, verdict_lines


class Numbers:
    """A tokenizer of one token a text, its number."""

    def __call__(self, texts, **_):
        return {"input_ids": [[int(text) if text.isdigit() else 999] for text in texts]}


def task(name: str, begin: int) -> Task:
    sets = np.random.default_rng(begin).random((80, 3)) < 0.4
    pool = np.ones(80, dtype=bool)
    return Task(name, tuple(str(begin + row) for row in range(80)), numbered(sets), ("a", "b", "c"), pool, pool, label_sets=sets)


TASKS = [task("x", 0), task("y", 100), task("z", 200)]
SETTINGS = EpisodeConfig(shots=6, queries=5)
SEVERAL = [name for name, row in ROWS.items() if row.reads_label_sets]


def tokens() -> Tokens:
    return Tokens(Numbers(), 4)


class Guess:
    """An arm that predicts at random and remembers what."""

    def __init__(self, seed: int):
        self.rng, self.found = np.random.default_rng(seed), []

    def predict(self, episode):
        assert episode.is_multi_label
        probabilities = self.rng.random(episode.query_labels.shape)
        self.found.append((probabilities, episode.query_labels))
        return Prediction(probabilities >= 0.4, probabilities, 0.1)


def test_scores_are_those_of_scikit_learn():
    arms = {"meta_trained": Guess(0), "logistic_regression": Guess(1)}
    config = EvaluationConfig(episodes=4, shots=[6], queries=5, arms=list(arms))
    results, scores = evaluate(arms, Setup(TASKS, tokens(), SETTINGS, config, seed=0))
    assert results["protocol"]["scores"] == dict.fromkeys("xyz", "micro_f1")
    for name, arm in arms.items():
        found, mine = results["arms"][name], scores["6"][name]
        expected = [f1_score(labels, probabilities >= 0.4, average="micro") for probabilities, labels in arm.found]
        assert np.concatenate(list(mine.accuracy.values())) == pytest.approx(expected) and found["mean"] == pytest.approx(np.mean(expected))
        macro = [f1_score(labels, probabilities >= 0.4, average="macro") for probabilities, labels in arm.found if labels.any(0).all()]
        assert len(macro) > 6 and set(np.round(macro, 9)) <= set(np.round(np.concatenate(list(mine.balanced.values())), 9))
        subset = [accuracy_score(labels, probabilities >= 0.4) for probabilities, labels in arm.found]
        assert found["metrics"]["subset_accuracy"]["mean"] == pytest.approx(np.mean(subset))
        losses = [log_loss_of(labels.ravel(), probabilities.ravel()) for probabilities, labels in arm.found]
        assert found["loss"] == pytest.approx(np.mean(losses)) and found["calibration_error"] is None and found["diverged_episodes"] == 0
    (comparison,) = results["comparisons"]
    difference = [
        scores["6"]["meta_trained"].accuracy[name][place] - scores["6"]["logistic_regression"].accuracy[name][place] for name in "xyz" for place in range(4)
    ]
    assert comparison["difference"] == pytest.approx(np.mean(difference)) and comparison["about"] == "tasks like these"
    _, columns, _ = result_rows(results, "6")
    assert columns[:2] == ["arm", "micro F1"] and {"macro F1", "subset accuracy"} <= set(columns)
    lines = verdict_lines(results, "6")
    assert "points of micro F1" in lines[0] and "points of macro F1" in lines[1]


def test_macro_f1_is_over_the_labels_that_occur():
    labels, predicted = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[True, False, True], [True, False, False]])
    assert episode_scores(predicted, labels) == {"micro_f1": 4 / 6, "macro_f1": 0.5, "subset_accuracy": 0.0}
    assert episode_scores(predicted, np.zeros((2, 3)))["macro_f1"] == 0.0


class Encodings:
    """Encodings that are the labels of a text, with noise of its own."""

    def features(self, texts):
        rows = [int(text[0]) for text in texts]
        return torch.from_numpy(np.stack([TASKS[0].label_sets[row] + 0.3 * np.random.default_rng(row).standard_normal(3) for row in rows]))


def test_logistic_regression_is_one_for_each_label_with_thresholds_of_its_own():
    episode = task_episode(TASKS[0], SETTINGS, 0, "meta_test", 0)
    encoded = encode_episode(episode, tokens())
    found = FrozenLogisticRegression(FrozenFeatures(Encodings())).predict(encoded)
    fit = fit_labels(Encodings().features(encoded.support), episode.support_labels == 1, None, np.zeros(3, dtype=bool), 1, episode.seed, lambda: None)
    logits = Encodings().features(encoded.query).numpy() @ fit.weight.double().numpy().T + fit.bias.double().numpy()
    assert found.probabilities == pytest.approx(1 / (1 + np.exp(-logits)))
    thresholds = [found.probabilities[:, place][found.predicted[:, place]].min() for place in range(3)]
    assert not np.allclose(thresholds, 0.5) and f1_score(episode.query_labels, found.predicted, average="micro") > 0.8
    assert all(not (found.probabilities[~found.predicted[:, place], place] >= cut).any() for place, cut in enumerate(thresholds))


def test_arms_for_one_label_are_no_default_and_are_refused():
    algorithm = AlgorithmConfig(head="prototype", label_names=True)
    assert chosen_arms(EvaluationConfig(), algorithm, TASKS) == ["meta_trained", "no_meta_training", "logistic_regression"]
    assert chosen_arms(EvaluationConfig(arms=SEVERAL), algorithm, TASKS) == SEVERAL
    for name in ("prototypes", "names_only", "full_finetune"):
        with pytest.raises(UserError, match=f"evaluation.arms: {name} predicts one label, and task 'x' has several labels per text; choose from meta_trained"):
            chosen_arms(EvaluationConfig(arms=[name]), algorithm, TASKS)
    with pytest.raises(UserError, match="macro_f1.* are metrics of one label per text, and task 'x' has several"):
        check_evaluation(EvaluationConfig(arms=["meta_trained"], metrics=["macro_f1"]), TASKS, SETTINGS, algorithm)


def test_accuracy_and_f1_are_not_averaged():
    one = replace(TASKS[0], name="one", label_sets=None, labels=np.arange(80) % 3)
    check_one_kind([one], "meta_test")
    check_one_kind(TASKS, "meta_test")
    with pytest.raises(UserError, match="tasks.meta_test: task 'x' has several labels per text and task 'one' does not"):
        check_evaluation(EvaluationConfig(), [*TASKS, one], SETTINGS, AlgorithmConfig(head="prototype"))
