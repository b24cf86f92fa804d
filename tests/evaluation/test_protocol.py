"""Arms see the same episodes; results.json has the promised shape."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from metatrain.errors import UserError
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.prediction import Prediction
from metatrain.evaluation.protocol import EpisodeSet, Scores, Setup, check_evaluation, evaluate, run_arms, summarise
from metatrain.meta.config import AlgorithmConfig
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episode_file import EpisodeFile
from metatrain.tasks.episodes import task_episode
from metatrain.tasks.task import Task


class Words:
    """A tokenizer of one token a text."""

    def __call__(self, texts, **_):
        return {"input_ids": [[int(text, 36)] for text in texts]}


class Recorder:
    """An arm with a fixed fraction of correct predictions, which records the episodes it was given."""

    def __init__(self, wrong: int):
        self.wrong, self.seen = wrong, []

    def predict(self, episode):
        self.seen.append([ids.tolist() for ids in (*episode.support, *episode.query)])
        answers = episode.query_labels.copy()
        answers[: self.wrong] = 1 - answers[: self.wrong]
        probabilities = np.where(answers[:, None] == np.arange(2), 0.9, 0.1)
        return Prediction(answers, probabilities, 0.25)


def task(name: str, start: int) -> Task:
    pool = np.ones(20, dtype=bool)
    return Task(name, tuple(np.base_repr(start + i, 36) for i in range(20)), np.arange(20) % 2, ("a", "b"), pool, pool)


TASKS = [task("x", 0), task("y", 100)]


def tokens():
    from metatrain.tasks.tokens import Tokens

    return Tokens(Words(), 4)


def test_every_arm_sees_the_same_episodes():
    arms = {"one": Recorder(0), "two": Recorder(1)}
    scores = run_arms(arms, EpisodeSet(TASKS, tokens(), EpisodeConfig(shots=2, queries=3), 4, seed=0, split="meta_test"))
    assert arms["one"].seen == arms["two"].seen
    assert len(arms["one"].seen) == 8
    assert scores["one"].accuracy == {"x": [1.0] * 4, "y": [1.0] * 4}
    assert scores["two"].accuracy["x"] == pytest.approx([5 / 6] * 4)


def test_results_have_the_promised_shape():
    arms = {"meta_trained": Recorder(0), "prototypes": Recorder(2)}
    config = EvaluationConfig(episodes=3, shots=[2, 1], queries=4, arms=list(arms))
    results, scores = evaluate(arms, Setup(TASKS, tokens(), EpisodeConfig(), config, seed=0))
    assert results["format"] == 1
    arm = results["arms"]["prototypes"]
    assert arm["mean"] == pytest.approx(0.75) and arm["ci95"] == 0.0 and arm["balanced"] == pytest.approx(0.75)
    assert arm["per_task"]["x"] == {"mean": 0.75, "ci95": 0.0, "balanced": 0.75, "loss": arm["loss"], "episodes": 3, "scores": [0.75] * 3}
    assert arm["loss"] == pytest.approx(-(3 * np.log(0.9) + np.log(0.1)) / 4)
    assert arm["calibration_error"] == pytest.approx(0.9 - 0.75)
    assert results["arms"]["meta_trained"]["calibration_error"] == pytest.approx(0.1)
    assert arm["adapt_seconds_per_episode"] == 0.25
    (comparison,) = results["comparisons"]
    assert (comparison["arm"], comparison["against"], comparison["verdict"]) == ("meta_trained", "prototypes", "better")
    assert comparison["difference"] == pytest.approx(0.25) and comparison["ci95"] == pytest.approx([0.25, 0.25])
    assert comparison["balanced"]["difference"] == pytest.approx(0.25)
    assert set(results["by_shots"]) == {"2", "1"}
    assert results["arms"] == results["by_shots"]["2"]["arms"]
    assert list(scores) == ["2", "1"] and scores["1"]["prototypes"].accuracy["y"] == results["by_shots"]["1"]["arms"]["prototypes"]["per_task"]["y"]["scores"]


def scores_with(*differences: list[float]) -> dict[str, Scores]:
    """meta_trained at 0.5, and an arm for each list of differences, which are by task, two episodes each."""
    arms = [[0.0] * len(differences[0]), *differences]
    found = {}
    for name, values in zip(("meta_trained", "a", "b", "c"), arms):
        by_task = {f"t{place}": [0.5 - value] * 2 for place, value in enumerate(values)}
        found[name] = Scores(accuracy=by_task, balanced=by_task, seconds=[0.1])
    return found


def test_the_verdict_follows_the_adjusted_p_and_the_interval_stays_plain():
    """Against a, p is 0.03 of its own and 0.06 as one of two: its interval leaves zero out."""
    spread = [0.02, 0.05, 0.09, 0.04]
    comparisons = {item["against"]: item for item in summarise(scores_with(spread, [0.0, 0.01, -0.01, 0.0]))["comparisons"]}
    found = comparisons["a"]
    assert found["p"] == pytest.approx(ttest_1samp(spread, 0).pvalue) and 0.025 < found["p"] < 0.05
    assert found["p_adjusted"] == pytest.approx(2 * found["p"]) and found["ci95"][0] > 0
    assert (found["verdict"], found["about"]) == ("not distinguishable", "tasks like these")
    (alone,) = summarise(scores_with(spread))["comparisons"]
    assert (alone["ci95"], alone["verdict"]) == (found["ci95"], "better")


def test_one_task_with_one_episode_gets_no_verdict():
    arms = {name: Scores({"t": [score]}, {"t": [score]}, seconds=[0.1]) for name, score in (("meta_trained", 0.9), ("a", 0.1))}
    (found,) = summarise(arms)["comparisons"]
    assert (found["verdict"], found["about"], found["ci95"]) == ("not distinguishable", "these tasks, not others", [-1.0, 1.0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shots": []}, "evaluation.shots"),
        ({"shots": [0]}, "evaluation.shots"),
        ({"episodes": 0}, "evaluation.episodes"),
        ({"seed": -1}, "evaluation.seed"),
        ({"arms": ["x"]}, "no arm 'x'"),
        ({"shots": [50]}, "50 shots"),
        ({"arms": ["meta_trained_with_unlabelled"]}, "task 'x' has an episode that leaves no rows for texts without labels"),
    ],
)
def test_evaluations_that_cannot_be_done(wrong, words):
    with pytest.raises(UserError, match=words):
        check_evaluation(EvaluationConfig(**wrong), TASKS, EpisodeConfig(), AlgorithmConfig())


def test_episodes_that_leave_rows_for_texts_without_labels_are_accepted_and_others_of_a_file_refused_before_any_work():
    config = EvaluationConfig(arms=["meta_trained_with_unlabelled"], queries=3, episodes=2)
    check_evaluation(config, TASKS, EpisodeConfig(), AlgorithmConfig(), seed=5)
    full = [task_episode(TASKS[0], EpisodeConfig(way=2, shots=5, queries=None), 0, "meta_test", 0)]
    file = EpisodeFile("episodes.jsonl", "", (TASKS[0],), {5: {TASKS[0].name: full}})
    with pytest.raises(UserError, match="leaves no rows for texts without labels"):
        check_evaluation(config, TASKS, EpisodeConfig(), AlgorithmConfig(), file)
