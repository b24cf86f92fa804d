"""The evaluation protocol: the same episodes for every arm, means with intervals, paired differences, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from metatrain.errors import UserError
from metatrain.evaluation import statistics
from metatrain.evaluation.arms import arms_of
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.full_finetune import VALIDATION_EPISODES, VALIDATION_TASKS, FullFinetuned, check_full_finetune
from metatrain.evaluation.prediction import Arm, Prediction
from metatrain.evaluation.sharing import Alone, Workers
from metatrain.evaluation.text_scores import SCORES, check_score
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.episode_texts import EpisodeTexts, Targets, Written
from metatrain.meta.label_names import unread_note
from metatrain.models.heads import LANGUAGE
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.episodes import Episode, check_tasks, task_episode
from metatrain.tasks.task import Task, plain_name
from metatrain.tasks.texts import PAIR
from metatrain.tasks.tokens import TargetEncoding, Tokens

FORMAT = 1
SUBJECT = "meta_trained"  # the arm that the others are compared with


@dataclass
class Scores:
    """What one arm scored: by task, a list with an entry per episode.

    Of a text-to-text task, `accuracy` and `balanced` are both its own score (chrF, say).
    """

    accuracy: dict[str, list[float]] = field(default_factory=dict)
    balanced: dict[str, list[float]] = field(default_factory=dict)
    confidence: dict[str, list[np.ndarray]] = field(default_factory=dict)  # by task, of each episode: the probabilities of its answers, if they have any
    right: dict[str, list[np.ndarray]] = field(default_factory=dict)  # and whether they are right
    answers: dict[str, list[list[int]]] = field(default_factory=dict)  # by task, of each episode: labels as positions in its classes, if it has labels
    loss: dict[str, list[float]] = field(default_factory=dict)  # by task: the log loss of each episode's answers, if they have one
    seconds: list[float] = field(default_factory=list)
    diverged: int = 0  # episodes in which adaptation did not stay finite

    def add(
        self,
        task: str,
        accuracy: float,
        balanced: float,
        loss: float | None,
        seconds: float,
        confidence: list[float] | None,
        right: list[bool] | None,
        answers: list[int] | None,
        diverged: bool = False,
    ) -> None:
        """Those of an episode."""
        self.diverged += diverged
        self.accuracy.setdefault(task, []).append(accuracy)
        self.balanced.setdefault(task, []).append(balanced)
        self.seconds.append(seconds)
        if loss is not None:
            self.loss.setdefault(task, []).append(loss)
        if confidence is not None:
            self.confidence.setdefault(task, []).append(np.array(confidence))
            self.right.setdefault(task, []).append(np.array(right))
        if answers is not None:
            self.answers.setdefault(task, []).append(answers)

    def calibration_error(self) -> float | None:
        """Mean over tasks of the expected calibration error over all their answers; None if these have no probabilities."""
        tasks = [(np.concatenate(self.confidence[task]), np.concatenate(self.right[task])) for task in self.confidence]
        return float(np.mean([statistics.calibration_error(*task) for task in tasks])) if tasks else None


def texts_of(episode: Episode, tokens: Tokens) -> EpisodeTexts:
    """An episode as the learner sees it."""
    names = [episode.task.label_names[label] for label in episode.classes]
    return EpisodeTexts(
        tokens.of(episode.task, episode.support),
        episode.support_labels,
        tokens.of(episode.task, episode.query),
        episode.query_labels,
        names,
        episode.seed,
        _targets_of(episode, names, tokens),
        () if tokens.encode_targets else tokens.names(names),
    )


def _written(episode: Episode) -> Written:
    support, query = ([episode.task.texts[row] for row in rows] for rows in (episode.support, episode.query))
    return Written(support, query, [plain_name(episode.task.label_names[label]) for label in episode.classes])


def _targets_of(episode: Episode, names: Sequence[str], tokens: Tokens) -> Targets | None:
    """What a language model is to write: the task's targets, or the names of the labels; None for an encoder."""
    wanted, encode = episode.task.targets, tokens.encode_targets
    if encode is None:
        return None if wanted is None else Targets((), (), None)
    if wanted is None:
        return name_targets(encode, names, episode.support_labels, episode.query_labels)
    support, query = (encode([wanted[row] for row in rows]) for rows in (episode.support, episode.query))
    return Targets(support, query, None)


def name_targets(encode: TargetEncoding, names: Sequence[str], support: np.ndarray, query: np.ndarray) -> Targets:
    """Labels, as positions in `names`, as the texts that they are called."""
    choices = encode([plain_name(name) for name in names])
    return Targets([choices[label] for label in support], [choices[label] for label in query], choices)


def run_arms(
    arms: Mapping[str, Arm],
    tasks: Sequence[Task],
    tokens: Tokens,
    settings: EpisodeConfig,
    episodes: int,
    seed: int,
    split: str,
    between: Callable[[int], None] = lambda done: None,
    workers: Workers | None = None,
) -> dict[str, Scores]:
    """Scores of every arm on the same episodes of every task.

    With workers, each takes every so many-th episode, and all get all scores. `between` is called with the number of episodes that all
    of them have done since it was last called.
    """
    workers = workers or Alone()
    places = [(task, index) for task in tasks for index in range(episodes)]
    mine = []
    for begin in range(0, len(places), workers.size):
        of_round = places[begin : begin + workers.size]
        if workers.rank < len(of_round):
            task, index = of_round[workers.rank]
            episode = task_episode(task, settings, seed, split, index)
            texts = replace(texts_of(episode, tokens), written=_written(episode))
            mine.append({name: _outcome(episode, texts, arm.predict(texts)) for name, arm in arms.items()})
        between(len(of_round))
    found = workers.gather(mine)
    scores = {name: Scores() for name in arms}
    for place, (task, _) in enumerate(places):
        for name, outcome in found[place % workers.size][place // workers.size].items():
            scores[name].add(task.name, **outcome)
    return scores


def _outcome(episode: Episode, texts: EpisodeTexts, prediction: Prediction) -> dict[str, Any]:
    """What `Scores.add` takes, in plain values."""
    accuracy, balanced = scored(episode, prediction.answers, texts.query_labels)
    found: dict[str, Any] = {"accuracy": accuracy, "balanced": balanced, "loss": prediction.target_loss, "seconds": prediction.seconds}
    found |= {"confidence": None, "right": None, "answers": None}
    if episode.task.targets is None:
        found["answers"] = [int(answer) for answer in prediction.answers]
    if prediction.probabilities is not None:
        # Where there is no probability, the first class is answered, with no confidence.
        found["diverged"] = not bool(np.isfinite(prediction.probabilities).all())
        found["confidence"] = np.nan_to_num(prediction.probabilities.max(1)).tolist()
        found["loss"] = statistics.log_loss(prediction.probabilities, texts.query_labels)
        found["right"] = (np.asarray(prediction.answers) == texts.query_labels).tolist()
    return found


def scored(episode: Episode, answers: Sequence[Any] | np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(accuracy, balanced accuracy) of labels; of written answers the task's own score, twice."""
    task = episode.task
    if task.targets is None or task.score is None:
        predicted = np.asarray(answers)
        return statistics.accuracy(predicted, labels), statistics.balanced_accuracy(predicted, labels)
    score = SCORES[task.score](list(answers), [task.targets[row] for row in episode.query])
    return score, score


def episode_settings(episode: EpisodeConfig, config: EvaluationConfig, shots: int) -> EpisodeConfig:
    """Training's episode settings with evaluation's way, shots and queries."""
    return replace(episode, way=config.way or episode.way, shots=shots, queries=config.queries)


def check_evaluation(config: EvaluationConfig, tasks: Sequence[Task], episode: EpisodeConfig, algorithm: AlgorithmConfig) -> None:
    """Refuse, before anything is computed, an evaluation that cannot be done.

    Raises:
        UserError: a value makes no sense, an arm is unknown, or tasks are too small.
    """
    names = arms_of(config, algorithm)
    if not names:
        return
    if any(name.startswith("setfit") for name in names) and any(PAIR in task.texts[0] for task in tasks):
        raise UserError("evaluation.arms: setfit reads single texts, but the tasks have text pairs; remove it")
    if algorithm.head == "linear" and config.way not in (None, episode.way):
        raise UserError(f"evaluation.way={config.way}, but algorithm.head=linear is fixed to {episode.way} classes; set evaluation.way=null")
    if config.seed is not None and not 0 <= config.seed < 2**32:
        raise UserError(f"evaluation.seed={config.seed} must be between 0 and {2**32 - 1}, or null")
    if config.episodes < 1:
        raise UserError(f"evaluation.episodes={config.episodes} must be 1 or more")
    for key, least in (("way", 2), ("queries", 1)):
        value = getattr(config, key)
        if value is not None and value < least:
            raise UserError(f"evaluation.{key}={value} must be {least} or more, or null")
    if not config.shots or min(config.shots) < 1:
        raise UserError(f"evaluation.shots={list(config.shots)} must be a list of numbers, each 1 or more")
    for shots in config.shots:
        check_tasks(tasks, episode_settings(episode, config, shots), "meta_test")
    if any(name.startswith("full_finetune") for name in names):
        check_full_finetune(config)
    check_answers(tasks, algorithm)


def names_notes(tasks: Sequence[Task], algorithm: AlgorithmConfig) -> tuple[str, ...]:
    """What there is to say, at most one line, on label names that a method which reads them cannot use."""
    note = unread_note([(f"task '{task.name}'", task.label_names) for task in tasks if task.is_labelled]) if algorithm.label_names else None
    return () if note is None else (note,)


def check_answers(tasks: Sequence[Task], algorithm: AlgorithmConfig, scored: bool = True) -> None:
    """Refuse tasks whose answers the model cannot give or, where they are `scored`, nobody can compare.

    Raises:
        UserError: a task wants texts and the model gives labels, or a score is unknown.
    """
    for task in tasks:
        if task.targets is not None:
            if algorithm.head not in LANGUAGE:
                raise UserError(
                    f"task '{task.name}' has target texts, but algorithm.head={algorithm.head} predicts labels; set algorithm.head=lm and a language model "
                    "(for example model=scratch_t5)"
                )
            check_score(str(task.score), computed=scored)


@dataclass(frozen=True)
class Setup:
    """What arms are compared on."""

    tasks: Sequence[Task]
    tokens: Tokens
    episode: EpisodeConfig  # as in training
    config: EvaluationConfig
    seed: int
    validation: Sequence[Task] = ()  # tasks on which a baseline's learning rate is chosen

    def settings(self, shots: int) -> EpisodeConfig:
        """Of the episodes with so many shots."""
        return episode_settings(self.episode, self.config, shots)


def validation_episodes(setup: Setup) -> list[EpisodeTexts]:
    """A few episodes of meta-validation tasks, like those of the meta-test with the first number of shots; of tasks that have enough rows."""
    settings = setup.settings(setup.config.shots[0])
    tasks = [task for task in setup.validation if task.targets is None and _is_large_enough(task, settings)][:VALIDATION_TASKS]
    drawn = [task_episode(task, settings, setup.seed, "meta_validation", index) for task in tasks for index in range(VALIDATION_EPISODES)]
    return [texts_of(episode, setup.tokens) for episode in drawn]


def _is_large_enough(task: Task, settings: EpisodeConfig) -> bool:
    try:
        check_tasks([task], settings, "meta_validation")
    except UserError:
        return False
    return True


def evaluate(
    arms: Mapping[str, Arm], setup: Setup, between: Callable[[int], None] = lambda done: None, workers: Workers | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Scores]]]:
    """(the content of results.json, the scores behind it by number of shots and arm).

    results.json has `arms` and `comparisons` for the first number of shots, and all of them in `by_shots`. `between` and `workers` as in
    `run_arms`.
    """
    config, seed = setup.config, setup.seed
    scores, by_shots = {}, {}
    for shots in config.shots:
        scores[str(shots)] = run_arms(arms, setup.tasks, setup.tokens, setup.settings(shots), config.episodes, seed, "meta_test", between, workers)
        by_shots[str(shots)] = summarise(scores[str(shots)])
    protocol: dict[str, Any] = {
        "split": "meta_test",
        "tasks": [task.name for task in setup.tasks],
        "scores": {task.name: task.score or "accuracy" for task in setup.tasks},
        "way": config.way or setup.episode.way,
        "classes": {task.name: len(task.label_names) for task in setup.tasks if task.is_labelled},
        "shots": list(config.shots),
        "queries_per_class": config.queries,
        "episodes_per_task": config.episodes,
        "seed": seed,
        "interval": _interval_of(len(setup.tasks)),
        "verdict": "where p, adjusted for all comparisons in a table (Holm), is below 0.05; intervals are not adjusted",
    }
    if rates := {name: arm.lr for name, arm in arms.items() if isinstance(arm, FullFinetuned)}:
        protocol["full_finetune"] = {"updates": config.full_finetune.steps, "learning_rates": rates}
    return {"format": FORMAT, "protocol": protocol, **by_shots[str(config.shots[0])], "by_shots": by_shots}, scores


def _interval_of(tasks: int) -> str:
    """How the intervals came about."""
    if tasks >= statistics.FEWEST_TASKS:
        return f"95%, t with {tasks - 1} degrees of freedom over {tasks} tasks; a claim about tasks like these, of one training seed"
    return "95%, t over the episodes of each task; a claim about these tasks, not about others, of one training seed"


def summarise(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Means, intervals and paired comparisons of arms that were run on the same episodes.

    Comparisons are of accuracy, and again, under `balanced`, of balanced accuracy.
    """
    arms = {}
    for name, mine in scores.items():
        found = statistics.estimate([np.array(task) for task in mine.accuracy.values()])
        arms[name] = {
            "mean": found.mean,
            "ci95": found.half_width if np.isfinite(found.half_width) else 0.0,  # as of a task with one episode
            "balanced": statistics.mean_over_tasks([np.array(task) for task in mine.balanced.values()]),
            "loss": statistics.mean_over_tasks(mine.loss.values()) if mine.loss else None,
            "per_task": {
                task: {
                    "mean": float(np.mean(values)),
                    "ci95": statistics.half_width(np.array(values)),
                    "balanced": float(np.mean(mine.balanced[task])),
                    "loss": float(np.mean(mine.loss[task])) if task in mine.loss else None,
                    "episodes": len(values),
                    "scores": [round(value, 6) for value in values],  # by episode, to compare runs by
                }
                for task, values in mine.accuracy.items()
            },
            "calibration_error": mine.calibration_error(),
            "adapt_seconds_per_episode": float(np.mean(mine.seconds)),
            "diverged_episodes": mine.diverged,
        }
    others = [other for other in scores if SUBJECT in scores and other != SUBJECT]
    of_accuracy = compared([paired_difference(scores[SUBJECT].accuracy, scores[other].accuracy) for other in others])
    of_balanced = compared([paired_difference(scores[SUBJECT].balanced, scores[other].balanced) for other in others])
    comparisons = [
        {"arm": SUBJECT, "against": other, **found, "balanced": balanced} for other, found, balanced in zip(others, of_accuracy, of_balanced, strict=True)
    ]
    return {"arms": arms, "comparisons": comparisons}


def paired_difference(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> statistics.Estimate:
    """The mean difference between two methods; both by task, the scores of the same episodes in the same order."""
    return statistics.estimate([np.array(ours[task]) - np.array(theirs[task]) for task in ours])


def compared(differences: Sequence[statistics.Estimate]) -> list[dict[str, Any]]:
    """The differences in one table, as results.json has them: each with its own interval and p, and a verdict that follows the adjusted p."""
    adjusted = statistics.holm([found.p for found in differences])
    return [
        {
            "difference": found.mean,
            "ci95": list(found.interval),
            "p": found.p,
            "p_adjusted": p,
            "verdict": statistics.verdict(found.mean, p),
            "about": found.about,
        }
        for found, p in zip(differences, adjusted, strict=True)
    ]
