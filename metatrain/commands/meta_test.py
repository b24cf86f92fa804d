"""The last step of `train`, and the whole of `evaluate`: arms on meta-test episodes, results.json, and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metatrain.evaluation.config import EvaluationConfig
from metatrain.evaluation.prediction import Arm
from metatrain.evaluation.protocol import evaluate
from metatrain.evaluation.sharing import Workers
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.console import Display, results_table, verdict_lines
from metatrain.training.run_directory import RunDirectory
from metatrain.training.whole_files import write_json


def meta_test(
    arms: Mapping[str, Arm],
    tasks: Sequence[Task],
    tokens: Tokens,
    episode: EpisodeConfig,
    config: EvaluationConfig,
    seed: int,
    run: RunDirectory,
    display: Display,
    give_way: Callable[[], None],
    workers: Workers | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Run the arms, write results.json with `facts` beside the results, show them, and return them.

    `give_way` is called between episodes and may raise. Of workers that share the episodes, the first one writes.
    """
    display.start("meta-test", len(config.shots) * len(tasks) * config.episodes)

    def between(done: int) -> None:
        display.advance(by=done)
        give_way()

    results = evaluate(arms, tasks, tokens, episode, config, seed, between, workers)
    if workers is None or workers.rank == 0:
        write_json(run.results, {**results, **facts})
    show(results, display)
    return results


def show(results: Mapping[str, Any], display: Display) -> None:
    """Tables and verdicts of every number of shots."""
    for shots in results["by_shots"]:
        display.table(results_table(results, shots))
        for line in verdict_lines(results, shots):
            display.say(line)
