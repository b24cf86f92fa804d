"""Evaluation protocol: the same episodes for all arms, means with intervals, paired differences, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from metatrain.errors import UserError
from metatrain.evaluation import statistics
from metatrain.evaluation.arms import row_of
from metatrain.evaluation.chosen_arms import check_settings, chosen_arms
from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.full_finetune import VALIDATION_EPISODES, VALIDATION_TASKS, FullFinetuned
from metatrain.evaluation.label_sets import episode_scores
from metatrain.evaluation.metrics import Metric, check_metrics, metric_of
from metatrain.evaluation.prediction import Arm, Prediction
from metatrain.evaluation.sharing import SingleProcess, Workers
from metatrain.evaluation.text_scores import SCORES, check_score
from metatrain.meta.algorithm import reads_label_names
from metatrain.meta.config import AlgorithmConfig
from metatrain.models.heads import head_facts
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode, raw_texts
from metatrain.tasks.episode_file import EpisodeFile
from metatrain.tasks.episodes import Episode, check_tasks, task_episode, unlabelled_rows
from metatrain.tasks.label_names import unread_note
from metatrain.tasks.ranges import read_range
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens

FORMAT = 1
SUBJECT = "meta_trained"  # the arm that the others are compared with

T = TypeVar("T")


@dataclass
class Scores:
    """Scores of one arm: for each task, a list with one entry per episode.

    For a text-to-text task, `accuracy` and `balanced` are both the task's own score (for example chrF); for a multi-label task, they are micro and
    macro F1.
    """

    accuracy: dict[str, list[float]] = field(default_factory=dict)
    balanced: dict[str, list[float]] = field(default_factory=dict)
    confidence: dict[str, list[np.ndarray]] = field(default_factory=dict)  # probabilities of the predicted classes, if there are any
    correct: dict[str, list[np.ndarray]] = field(default_factory=dict)  # whether each prediction with a confidence is correct
    predicted: dict[str, list[list[int]]] = field(default_factory=dict)  # predicted labels as positions in the classes of the episode, if it has labels
    loss: dict[str, list[float]] = field(default_factory=dict)  # log loss, or for generated texts the target loss
    seconds: list[float] = field(default_factory=list)  # adaptation time
    metrics: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by metric: its values, as those of accuracy
    diverged: int = 0  # number of episodes in which adaptation gave non-finite values
    left_out: int = 0  # number of support examples, over all episodes, that a language model has no positions for

    def add(
        self,
        task: str,
        accuracy: float,
        balanced: float,
        loss: float | None,
        seconds: float,
        confidence: list[float] | None,
        correct: list[bool] | None,
        predicted: list[int] | None,
        diverged: bool = False,
        metrics: Mapping[str, float] | None = None,
        left_out: int = 0,
    ) -> None:
        """Add the scores of one episode."""
        for name, value in (metrics or {}).items():
            self.metrics.setdefault(name, {}).setdefault(task, []).append(value)
        self.diverged += diverged
        self.left_out += left_out
        self.accuracy.setdefault(task, []).append(accuracy)
        self.balanced.setdefault(task, []).append(balanced)
        self.seconds.append(seconds)
        if loss is not None:
            self.loss.setdefault(task, []).append(loss)
        if confidence is not None:
            self.confidence.setdefault(task, []).append(np.array(confidence))
            self.correct.setdefault(task, []).append(np.array(correct))
        if predicted is not None:
            self.predicted.setdefault(task, []).append(predicted)

    def calibration_error(self) -> float | None:
        """Return the expected calibration error over all predictions of a task, averaged over tasks; None without probabilities."""
        tasks = [(np.concatenate(self.confidence[task]), np.concatenate(self.correct[task])) for task in self.confidence]
        return float(np.mean([statistics.calibration_error(*task) for task in tasks])) if tasks else None


@dataclass(frozen=True)
class EpisodeSet:
    """Evaluation episodes. Each is a function of its task, the settings, the seed, the split and its index, or comes from a file."""

    tasks: Sequence[Task]
    tokens: Tokens
    settings: EpisodeConfig
    per_task: int  # number of episodes per task
    seed: int
    split: str
    given: Mapping[str, Sequence[Episode]] | None = None  # episodes of each task from a file; None: they are drawn
    unlabelled: int = 0  # texts without labels of each episode, at most

    def episode(self, task: Task, index: int) -> Episode:
        """Return episode `index` of a task."""
        if self.given is not None:
            return self.given[task.name][index]
        return task_episode(task, self.settings, self.seed, self.split, index)


def run_arms(
    arms: Mapping[str, Arm],
    episodes: EpisodeSet,
    on_progress: Callable[[int], None] = lambda done: None,
    workers: Workers | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Scores]:
    """Return the scores of every arm on the same episodes, with further `metrics`.

    on_progress: called with the number of episodes that all workers have done since its last call; it may raise.
    workers: processes that share the episodes; each receives all scores.
    """

    def outcomes(episode: Episode) -> dict[str, dict[str, Any]]:
        texts = replace(encode_episode(episode, episodes.tokens), raw=raw_texts(episode))
        if episodes.unlabelled:
            texts = replace(texts, unlabelled=episodes.tokens.of(episode.task, unlabelled_rows(episode, episodes.unlabelled)))
        return {name: _outcome(episode, texts, arm.predict(texts), metrics or {}) for name, arm in arms.items()}

    scores = {name: Scores() for name in arms}
    for task, found in each_episode(episodes, outcomes, on_progress, workers):
        for name, outcome in found.items():
            scores[name].add(task.name, **outcome)
    return scores


def each_episode(episodes: EpisodeSet, evaluate: Callable[[Episode], T], on_progress: Callable[[int], None], workers: Workers | None) -> list[tuple[Task, T]]:
    """Return the task and the result of `evaluate` for every episode, in order; `on_progress` and `workers` as in `run_arms`."""
    workers = workers or SingleProcess()
    places = [(task, index) for task in episodes.tasks for index in range(episodes.per_task)]
    mine = []
    for begin in range(0, len(places), workers.size):
        of_round = places[begin : begin + workers.size]
        if workers.rank < len(of_round):
            task, index = of_round[workers.rank]
            mine.append(evaluate(episodes.episode(task, index)))
        on_progress(len(of_round))
    found = workers.gather(mine)
    return [(task, found[place % workers.size][place // workers.size]) for place, (task, _) in enumerate(places)]


def _outcome(episode: Episode, texts: EncodedEpisode, prediction: Prediction, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return the arguments of `Scores.add` as JSON-serialisable values."""
    accuracy, balanced = scored(episode, prediction.predicted, texts.query_labels)
    found: dict[str, Any] = {"accuracy": accuracy, "balanced": balanced, "loss": prediction.target_loss, "seconds": prediction.seconds}
    found |= {"confidence": None, "correct": None, "predicted": None}
    found["left_out"] = prediction.left_out
    if texts.is_multi_label:
        assert prediction.probabilities is not None  # `chosen_arms` refuses others
        found["metrics"] = {"subset_accuracy": episode_scores(np.asarray(prediction.predicted), texts.query_labels)["subset_accuracy"]}
        found["diverged"] = not bool(np.isfinite(prediction.probabilities).all())
        found["loss"] = statistics.log_loss(prediction.probabilities, texts.query_labels)
        return found
    if episode.task.targets is None:
        found["predicted"] = [int(label) for label in prediction.predicted]
        found["metrics"] = {
            name: float(metric.of_episode(np.asarray(prediction.predicted), texts.query_labels, prediction.probabilities)) for name, metric in metrics.items()
        }
    if prediction.probabilities is not None:
        # If the probabilities are not finite, the first class is predicted, with confidence 0.
        found["diverged"] = not bool(np.isfinite(prediction.probabilities).all())
        found["confidence"] = np.nan_to_num(prediction.probabilities.max(1)).tolist()
        found["loss"] = statistics.log_loss(prediction.probabilities, texts.query_labels)
        found["correct"] = (np.asarray(prediction.predicted) == texts.query_labels).tolist()
    return found


def scored(episode: Episode, predicted: Sequence[Any] | np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return (accuracy, balanced accuracy) of predicted labels; (micro F1, macro F1) of label sets; for generated texts, the task's own score twice."""
    task = episode.task
    if task.label_sets is not None:
        found = episode_scores(np.asarray(predicted), labels)
        return found["micro_f1"], found["macro_f1"]
    if task.targets is None or task.score is None:
        chosen = np.asarray(predicted)
        return statistics.accuracy(chosen, labels), statistics.balanced_accuracy(chosen, labels)
    score = SCORES[task.score](list(predicted), [task.targets[row] for row in episode.query])
    return score, score


def episode_settings(episode: EpisodeConfig, config: EvaluationConfig, shots: int) -> EpisodeConfig:
    """Return the episode settings of training with the way, shots and queries of evaluation."""
    return replace(episode, way=config.way or episode.way, shots=shots, queries=config.queries)


def num_unlabelled(config: EvaluationConfig) -> int:
    """Return the number of texts without labels in an episode, at most; 0 if no arm reads them."""
    return config.unlabelled if any(row_of(name).needs_unlabelled for name in config.arms or ()) else 0


def of_file(config: EvaluationConfig, file: EpisodeFile | None) -> EvaluationConfig:
    """Return the settings of an evaluation with the numbers of shots and episodes of an episode file."""
    return config if file is None else replace(config, shots=file.shots, episodes=file.per_task)


def check_evaluation(
    config: EvaluationConfig, tasks: Sequence[Task], episode: EpisodeConfig, algorithm: AlgorithmConfig, file: EpisodeFile | None = None, seed: int = 0
) -> None:
    """Check the settings of an evaluation before anything is computed; file: the episode file that it runs on; seed: of the run.

    Raises:
        UserError: a value is invalid, an arm is unknown, or tasks are too small.
    """
    names = chosen_arms(config, algorithm, tasks)
    if not names:
        return
    check_one_kind(tasks, "meta_test")
    check_settings(names, config, tasks)
    check_metrics(config.metrics, tasks)
    check_answers(tasks, algorithm)
    if file is not None:
        if head_facts(algorithm.head).fixed_way and file.ways != {episode.way}:
            ways = ", ".join(map(str, sorted(file.ways)))
            raise UserError(f"episode.file={file.name} has episodes of {ways} classes, but algorithm.head={algorithm.head} is fixed to {episode.way}")
        if num_unlabelled(config):
            _check_rows_left(given for of_task in file.episodes.values() for episodes in of_task.values() for given in episodes)
        return
    if head_facts(algorithm.head).fixed_way and config.way not in (None, episode.way):
        raise UserError(f"evaluation.way={config.way}, but algorithm.head={algorithm.head} is fixed to {episode.way} classes; set evaluation.way=null")
    if config.seed is not None and not 0 <= config.seed < 2**32:
        raise UserError(f"evaluation.seed={config.seed} must be between 0 and {2**32 - 1}, or null")
    if config.episodes < 1:
        raise UserError(f"evaluation.episodes={config.episodes} must be 1 or more")
    if config.way is not None:
        read_range("evaluation.way", config.way, least=2)
    if config.queries is not None and config.queries < 1:
        raise UserError(f"evaluation.queries={config.queries} must be 1 or more, or null")
    if not config.shots or min(config.shots) < 1:
        raise UserError(f"evaluation.shots={list(config.shots)} must be a list of numbers, each 1 or more")
    for shots in config.shots:
        settings = episode_settings(episode, config, shots)
        check_tasks(tasks, settings, "meta_test")
        if num_unlabelled(config):
            places = ((task, index) for task in tasks for index in range(config.episodes))
            _check_rows_left(task_episode(task, settings, config.seed_of(seed), "meta_test", index) for task, index in places)


def _check_rows_left(episodes: Iterable[Episode]) -> None:
    """Raises: UserError: an episode has no rows left for texts without labels."""
    for episode in episodes:
        unlabelled_rows(episode, 1)


def names_notes(tasks: Sequence[Task], algorithm: AlgorithmConfig) -> tuple[str, ...]:
    """Return at most one line about label names that a method that reads them cannot use."""
    note = unread_note([(f"task '{task.name}'", task.read_names) for task in tasks if task.is_labelled]) if reads_label_names(algorithm) else None
    return () if note is None else (note,)


def check_one_kind(tasks: Sequence[Task], split: str) -> None:
    """Raises: UserError: some tasks of a split have one label per text and others several, whose scores have no common mean."""
    several = [task.name for task in tasks if task.label_sets is not None]
    if one := [task.name for task in tasks if task.label_sets is None] if several else []:
        raise UserError(
            f"tasks.{split}: task '{several[0]}' has several labels per text and task '{one[0]}' does not, and accuracy and F1 have no common mean; "
            f"choose tasks of one kind with tasks.{split}.tasks"
        )


def check_answers(tasks: Sequence[Task], algorithm: AlgorithmConfig, scored: bool = True) -> None:
    """Check that the model can predict the targets of all tasks and, if `scored`, that their scores can be computed.

    Raises:
        UserError: a task has target texts and the model predicts labels, or a score is unknown.
    """
    for task in tasks:
        if task.targets is not None:
            if not head_facts(algorithm.head).is_language_model:
                raise UserError(
                    f"task '{task.name}' has target texts, but algorithm.head={algorithm.head} predicts labels; set algorithm.head=lm and a language model "
                    "(for example model=scratch_t5)"
                )
            check_score(str(task.score), computed=scored)


@dataclass(frozen=True)
class Setup:
    """Tasks, tokens and settings that arms are compared on."""

    tasks: Sequence[Task]
    tokens: Tokens
    episode: EpisodeConfig  # as in training
    config: EvaluationConfig
    seed: int
    validation: Sequence[Task] = ()  # tasks for choosing the learning rate of full finetuning
    file: EpisodeFile | None = None  # episode file, whose tasks are `tasks`

    def settings(self, shots: int) -> EpisodeConfig:
        """Return the settings of episodes with this number of shots."""
        return episode_settings(self.episode, self.config, shots)

    def episodes(self, shots: int, per_task: int) -> EpisodeSet:
        """Return the meta-test episodes for this number of shots."""
        given = None if self.file is None else self.file.episodes[shots]
        return EpisodeSet(self.tasks, self.tokens, self.settings(shots), per_task, self.seed, "meta_test", given, num_unlabelled(self.config))


def validation_episodes(setup: Setup) -> list[EncodedEpisode]:
    """Return a few episodes of the meta-validation tasks that have enough rows, with the settings of the meta-test at the first number of shots."""
    settings = setup.settings(setup.config.shots[0])
    tasks = [task for task in setup.validation if task.targets is None and is_large_enough(task, settings)][:VALIDATION_TASKS]
    drawn = [task_episode(task, settings, setup.seed, "meta_validation", index) for task in tasks for index in range(VALIDATION_EPISODES)]
    return [encode_episode(episode, setup.tokens) for episode in drawn]


def is_large_enough(task: Task, settings: EpisodeConfig) -> bool:
    """Return whether a task has classes and rows enough for episodes with these settings."""
    try:
        check_tasks([task], settings, "meta_validation")
    except UserError:
        return False
    return True


def evaluate(
    arms: Mapping[str, Arm], setup: Setup, on_progress: Callable[[int], None] = lambda done: None, workers: Workers | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Scores]]]:
    """Return (the content of results.json, the scores by number of shots and arm).

    results.json has `arms` and `comparisons` for the first number of shots, and those of all numbers in `by_shots`. `on_progress` and `workers`
    as in `run_arms`.
    """
    config, metrics = setup.config, {name: metric_of(name) for name in setup.config.metrics}
    scores, by_shots = {}, {}
    for shots in config.shots:
        scores[str(shots)] = run_arms(arms, setup.episodes(shots, config.episodes), on_progress, workers, metrics)
        by_shots[str(shots)] = summarise(scores[str(shots)])
    protocol: dict[str, Any] = {
        "split": "meta_test",
        "tasks": [task.name for task in setup.tasks],
        "scores": {task.name: task.main_score for task in setup.tasks},
        "way": config.way or setup.episode.way,
        "classes": {task.name: len(task.label_names) for task in setup.tasks if task.is_labelled},
        "shots": list(config.shots),
        "queries_per_class": config.queries,
        "episodes_per_task": config.episodes,
        "seed": setup.seed,
        "interval": _interval_of(len(setup.tasks)),
        "verdict": "where p, adjusted for all comparisons in a table (Holm), is below 0.05; intervals are not adjusted",
    }
    if (file := setup.file) is not None:
        way = next(iter(file.ways)) if len(file.ways) == 1 else f"{min(file.ways)}..{max(file.ways)}"
        protocol |= {"way": way, "queries_per_class": None, "seed": None, "episode_file": {"name": file.name, "sha256": file.sha256}}
    if unlabelled := num_unlabelled(config):
        protocol["unlabelled"] = unlabelled
    if rates := {name: arm.lr for name, arm in arms.items() if isinstance(arm, FullFinetuned)}:
        protocol["full_finetune"] = {"updates": config.full_finetune.steps, "learning_rates": rates}
    return {"format": FORMAT, "protocol": protocol, **by_shots[str(config.shots[0])], "by_shots": by_shots}, scores


def _interval_of(tasks: int) -> str:
    """Return the description of the intervals."""
    if tasks >= statistics.FEWEST_TASKS:
        return f"95%, t with {tasks - 1} degrees of freedom over {tasks} tasks; a claim about tasks like these, of one training seed"
    return "95%, t over the episodes of each task; a claim about these tasks, not about others, of one training seed"


def summarise(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return means, intervals and paired comparisons of arms on the same episodes.

    Each comparison is of accuracy and has, under `balanced`, the same comparison of balanced accuracy.
    """
    arms: dict[str, dict[str, Any]] = {}
    for name, mine in scores.items():
        found = statistics.estimate([np.array(task) for task in mine.accuracy.values()])
        arms[name] = {
            "mean": found.mean,
            "ci95": found.half_width if np.isfinite(found.half_width) else 0.0,  # as for a task with one episode
            "balanced": statistics.mean_over_tasks([np.array(task) for task in mine.balanced.values()]),
            "loss": statistics.mean_over_tasks(mine.loss.values()) if mine.loss else None,
            "per_task": {
                task: {
                    "mean": float(np.mean(values)),
                    "ci95": statistics.half_width(np.array(values)),
                    "balanced": float(np.mean(mine.balanced[task])),
                    "loss": float(np.mean(mine.loss[task])) if task in mine.loss else None,
                    "episodes": len(values),
                    "scores": [round(value, 6) for value in values],  # of each episode, for paired comparisons between runs
                }
                for task, values in mine.accuracy.items()
            },
            "calibration_error": mine.calibration_error(),
            "adapt_seconds_per_episode": float(np.mean(mine.seconds)),
            "diverged_episodes": mine.diverged,
            **({"left_out_examples": mine.left_out} if mine.left_out else {}),
        }
        if mine.metrics:
            arms[name]["metrics"] = {metric: _of_metric(values) for metric, values in mine.metrics.items()}
    others = [other for other in scores if SUBJECT in scores and other != SUBJECT]
    of_accuracy = compared([paired_difference(scores[SUBJECT].accuracy, scores[other].accuracy) for other in others])
    of_balanced = compared([paired_difference(scores[SUBJECT].balanced, scores[other].balanced) for other in others])
    comparisons = [
        {"arm": SUBJECT, "against": other, **found, "balanced": balanced} for other, found, balanced in zip(others, of_accuracy, of_balanced, strict=True)
    ]
    return {"arms": arms, "comparisons": comparisons}


def _of_metric(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the mean of a metric with its interval, and the mean of each task."""
    found = statistics.estimate([np.array(of_task) for of_task in values.values()])
    half_width = found.half_width if np.isfinite(found.half_width) else 0.0
    return {"mean": found.mean, "ci95": half_width, "per_task": {task: float(np.mean(of_task)) for task, of_task in values.items()}}


def paired_difference(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> statistics.Estimate:
    """Return the mean difference between two methods; for each task, both have the scores of the same episodes in the same order."""
    return statistics.estimate([np.array(ours[task]) - np.array(theirs[task]) for task in ours])


def compared(differences: Sequence[statistics.Estimate]) -> list[dict[str, Any]]:
    """Return the comparisons of one table as in results.json: each with its interval and p, and a verdict based on the adjusted p."""
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
