"""Episodes from which a temperature is learned: their sizes, their logits, and processes that share them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metatrain.evaluation.temperature_episodes import SHOTS, WAYS, TemperatureEpisodes
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.head_fit import ENOUGH, best_temperature
from metatrain.meta.temperature import LearnedTemperature, LogTemperature
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.config import EpisodeConfig, SplitConfig, TasksConfig
from metatrain.tasks.distribution import capped, load_tasks
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import task_episode

LEARNED = LearnedTemperature(LogTemperature(0.4, 0.1, -0.5), LogTemperature(0.2, 0.3, 0.4))


def learner(head: str = "cosine", fit_head: bool = True, **algorithm) -> EncoderLearner:
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32, normalize=True), second_order=False)
    settings = AlgorithmConfig(head=head, head_scale=10.0, adapt="head", **algorithm)
    return EncoderLearner(encoder, settings, InnerConfig(steps=0, fit_head=fit_head), way=4 if head == "linear" else None)


@pytest.fixture(scope="module")
def tasks():
    chosen = SplitConfig(tasks=["gym_memberships", "hostel_verdicts"])
    return load_tasks(TasksConfig(path="metatrain:everyday", task="task", holdout=0, meta_test=chosen), 0, splits=("meta_test",)).meta_test


def episodes_of(subject, tasks, number=1, **settings):
    return TemperatureEpisodes.of(subject, tasks, subject.model.tokens(), EpisodeConfig(**settings), 0, number)


def test_their_sizes_are_all_below_the_number_of_examples_that_choose_a_temperature(tasks):
    subject = learner()
    found = episodes_of(subject, tasks)
    most = max(len(task.label_names) for task in tasks)
    expected = {(way, shots) for way in WAYS for shots in SHOTS if way <= most and way * shots < ENOUGH}
    assert {(each.settings.way, each.settings.shots) for each in found.sets} == expected and len(found) == len(expected)
    assert len(episodes_of(subject, tasks, number=3 * len(expected))) >= 3 * len(expected)
    assert len(episodes_of(subject, [])) == 0


def test_whole_tasks_have_all_classes_that_fewer_than_20_examples_allow(tasks):
    subject = learner()
    for shots in (1, 8):
        found = TemperatureEpisodes.of_whole_tasks(tasks, subject.model.tokens(), shots, 2, 0, "meta_test")
        assert [each.settings.way for each in found.sets] == [min(len(task.label_names), 19 // shots) for task in tasks] and len(found) == 2 * len(tasks)
    few = [capped(task, 4) for task in tasks]
    assert len(TemperatureEpisodes.of_whole_tasks(few, subject.model.tokens(), 9, 1, 0, "meta_test").sets) == 0


def test_methods_without_a_linear_head_have_none(tasks):
    assert len(episodes_of(learner("relation", fit_head=False), tasks)) == 0
    fixed = episodes_of(learner("linear", fit_head=False), tasks, way=3)
    assert {each.settings.way for each in fixed.sets} == {3}


def test_the_logits_are_those_before_any_temperature(tasks):
    """Softmax of the logits of a case over its temperature is what the learner predicts; a temperature of the learner has no part in the cases."""
    subject = learner()
    found = episodes_of(subject, tasks)
    cases = found.cases(subject)
    again = found.cases(subject.with_temperature(LEARNED))
    assert len(cases) == len(found) and all(np.array_equal(one.logits, other.logits) for one, other in zip(cases, again))
    for each, case in zip(found.sets, cases):
        texts = encode_episode(task_episode(each.tasks[0], each.settings, 0, "meta_validation", 0), each.tokens)
        parameters, _, fit = subject.fit(texts)
        assert (case.way, case.shots, case.is_fitted) == (each.settings.way, each.settings.shots, each.settings.shots > 1)
        expected = subject.probabilities(parameters, texts)
        np.testing.assert_allclose(torch.from_numpy(case.logits / fit.temperature).softmax(1).numpy(), expected, atol=1e-5)
        assert case.task == each.tasks[0].name and len(case.held_out) == len(case.held_out_labels) == (len(texts.support) if case.is_fitted else 0)
        if case.is_fitted:
            held_out = fit.held_out[: len(texts.support)].double().numpy() * fit.temperature
            np.testing.assert_allclose(case.held_out, held_out, rtol=1e-5)
            assert case.held_out_labels.tolist() == texts.support_labels.tolist()
            assert best_temperature(torch.from_numpy(case.held_out), torch.from_numpy(case.held_out_labels)) == pytest.approx(fit.temperature, rel=1e-4)


@pytest.mark.parametrize("fit_head", [False, True])
def test_a_learned_temperature_divides_logits_and_changes_no_prediction(tasks, fit_head):
    subject = learner(fit_head=fit_head)
    for shots in (1, 2):
        texts = encode_episode(task_episode(tasks[0], EpisodeConfig(shots=shots, queries=4), 0, "meta_test", 0), subject.model.tokens())
        (before, _, fit), (after, _, tempered) = (each.fit(texts) for each in (subject, subject.with_temperature(LEARNED)))
        expected = LEARNED.made.at(len(texts.names), shots) if not fit_head or shots == 1 else tempered.temperature / fit.temperature
        assert expected != 1
        logits = [subject.query_logits(each, texts) for each in (before, after)]
        torch.testing.assert_close(logits[1] * expected, logits[0])
        assert torch.equal(logits[1].argmax(1), logits[0].argmax(1))
        steps = subject.with_temperature(LEARNED).adapt(texts, 0)[0]  # a number of steps is asked for: no head for use
        assert torch.equal(steps["head.weight"], subject.adapt(texts, 0)[0]["head.weight"])


def test_texts_without_labels_leave_it_out(tasks):
    subject = learner()
    texts = encode_episode(task_episode(tasks[0], EpisodeConfig(shots=1, queries=4), 0, "meta_test", 0), subject.model.tokens())
    texts = replace(texts, unlabelled=texts.query, reads_unlabelled=True)
    heads = [each.fit(texts)[2].head["weight"] for each in (subject, subject.with_temperature(LEARNED))]
    assert torch.equal(*heads)
