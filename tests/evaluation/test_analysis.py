"""The closer look at a meta-test: what it counts, and that it agrees with the scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metatrain.evaluation.adapted_arms import Adapted
from metatrain.evaluation.analysis import accuracy_by_steps, analysed_steps, learned_rates, mistakes, mistakes_in, task_map
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.protocol import EpisodeSet, Setup, evaluate, run_arms
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episodes import given_episode
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.texts import IMAGE, MASK, PAIR


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(
        TasksConfig(path="metatrain:reviews", task="domain", holdout=0, meta_test=SplitConfig(tasks=["books", "hotels"])), 0, splits=("meta_test",)
    ).meta_test


def learner(rule: str = "sgd", **inner) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)
    return EncoderLearner(encoder, AlgorithmConfig(head="prototype", adapt="head"), InnerConfig(rule=rule, lr=0.1, head_lr=0.5, **inner), way=None)


def test_after_as_many_steps_as_are_taken_the_accuracy_is_that_of_the_arm(tasks):
    trained = Adapted(learner(steps=4))
    episode, config = EpisodeConfig(), EvaluationConfig(episodes=7, shots=[2, 1], queries=5)
    assert analysed_steps(trained.learner) == [0, 1, 2, 3, 4, 8]
    setup = Setup(tasks, trained.learner.model.tokens(), episode, config, seed=0)
    _, scores = evaluate({"meta_trained": trained}, setup)
    of_trained = {shots: by_arm["meta_trained"] for shots, by_arm in scores.items()}
    done = []
    found = accuracy_by_steps(trained, of_trained, setup, done.append)
    assert found["episodes_per_task"] == 6 and found["steps_used"] == 4 and sum(done) == 6 * len(tasks) * 2  # 12 episodes of two tasks
    for shots, part in found["by_shots"].items():
        assert list(part["steps"]) == ["0", "1", "2", "3", "4", "8"]
        expected = np.mean([np.mean(values[:6]) for values in of_trained[shots].accuracy.values()])
        assert part["steps"]["4"] == part["as_used"] == pytest.approx(expected)
        assert list(part["losses"]) == list(part["steps"]) == list(part["support_steps"]) == list(part["support_losses"])
        assert part["losses"]["4"] == pytest.approx(np.mean([np.mean(values[:6]) for values in of_trained[shots].loss.values()]))


def test_a_method_without_inner_steps_has_no_such_curve():
    assert analysed_steps(learner(steps=0)) == []


def test_errors_are_counted_by_label_and_prediction_and_the_most_confident_come_first():
    texts = ["s1", "s2", "s3", "q1", "q2", "q3", "q4" + "x" * 400]
    episode = given_episode(texts, ["a", "b", "c", "a", "b", "b", "c"], 3)
    found = mistakes_in([episode], [[0, 0, 2, 1]], [np.array([0.9, 0.6, 0.8, 0.7])])
    assert found["labels"] == ["a", "b", "c"]
    assert sorted(found["pairs"]) == [["a", "a", 1], ["b", "a", 1], ["b", "c", 1], ["c", "b", 1]]
    first, second, third = found["examples"]
    assert first == {"text": "q3", "label": "b", "answer": "c", "probability": 0.8}
    assert second["label"] == "c" and len(second["text"]) == 300 and second["text"].endswith("...")
    assert third == {"text": "q2", "label": "b", "answer": "a", "probability": 0.6}


def test_mistakes_of_answers_without_probabilities():
    episode = given_episode(["s1", "s2", "q"], ["a", "b", "a"], 2)
    assert mistakes_in([episode], [[1]], None)["examples"] == [{"text": "q", "label": "a", "answer": "b", "probability": None}]


def test_pairs_images_and_masked_words_can_be_read():
    texts = ["s1", "s2", f"a{PAIR}b", f"{IMAGE}folder/x.png", f"a {MASK} word"]
    found = mistakes_in([given_episode(texts, ["a", "b", "a", "a", "a"], 2)], [[1, 1, 1]], None)
    assert [example["text"] for example in found["examples"]] == ["a | b", "folder/x.png", "a [masked] word"]


def test_mistakes_agree_with_the_accuracy_and_begin_with_the_worst_task(tasks):
    model = learner(steps=1)
    setup = Setup(tasks, model.model.tokens(), EpisodeConfig(), EvaluationConfig(queries=6), seed=3)
    scores = run_arms({"arm": Adapted(model)}, EpisodeSet(tasks, setup.tokens, setup.settings(2), 4, seed=3, split="meta_test"))["arm"]
    found = mistakes(scores, setup, 2)
    means = {task.name: np.mean(scores.accuracy[task.name]) for task in tasks}
    assert [each["task"] for each in found] == sorted(means, key=means.get)
    for each in found:
        right = sum(count for label, answer, count in each["pairs"] if label == answer)
        assert right / sum(count for *_, count in each["pairs"]) == pytest.approx(means[each["task"]])
        (task,) = [task for task in tasks if task.name == each["task"]]
        for example in each["examples"]:
            row = next(row for row, text in enumerate(task.texts) if text[:299] == example["text"][:299])
            assert task.label_names[task.labels[row]] == example["label"] != example["answer"]


def test_learned_rates_by_tensor_and_step():
    assert learned_rates(learner()) == []
    by_step = learner("lslr", steps=2)
    with torch.no_grad():
        by_step.parameters["rule.head.weight"].copy_(torch.tensor([0.25, -1.0]))
    found = learned_rates(by_step)
    assert [(each["parameter"], each["step"], each["mean"], each["began"]) for each in found] == [
        ("head.weight", 0, 0.25, 0.5), ("head.weight", 1, -1.0, 0.5), ("head.bias", 0, 0.5, 0.5), ("head.bias", 1, 0.5, 0.5),
    ]  # fmt: skip
    elementwise = learner("meta_sgd", steps=2)
    size = elementwise.parameters["rule.head.weight"].numel()
    with torch.no_grad():
        elementwise.parameters["rule.head.weight"].copy_(torch.linspace(0, 1, size)[None])
    weight = learned_rates(elementwise)[0]
    assert weight["step"] is None and [weight["low"], weight["mean"], weight["high"]] == pytest.approx([0.05, 0.5, 0.95])


def test_the_map_has_every_task_and_the_training_task_that_it_is_most_like(tasks):
    rows = np.arange(len(tasks[0].texts))
    halves = [replace(task.subset(rows % 2 == half), name=f"{task.name} {half}") for task in tasks for half in (0, 1)]
    every = TaskDistribution("halves", meta_train=(halves[0], halves[2]), meta_validation=(), meta_test=(halves[1], halves[3]))
    found = {each["task"]: each for each in task_map(learner().model, every)}
    assert {name: each["split"] for name, each in found.items()} == {
        "books 0": "meta_train", "hotels 0": "meta_train", "books 1": "meta_test", "hotels 1": "meta_test",
    }  # fmt: skip
    assert found["books 1"]["nearest"] == "books 0" and found["hotels 1"]["nearest"] == "hotels 0"
    assert len({(each["x"], each["y"]) for each in found.values()}) == 4


def test_two_tasks_make_no_map(tasks):
    assert task_map(learner().model, TaskDistribution("two", meta_train=tasks[:1], meta_validation=(), meta_test=tasks[1:])) == []
