"""`metatrain plan`: what a training run costs in time, memory and disk, from one real meta-update, and what would be cheaper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig

if TYPE_CHECKING:
    import torch

    from metatrain.meta.learner import Learner
    from metatrain.tasks.config import EpisodeConfig
    from metatrain.tasks.encoded_episode import EncodedEpisode
    from metatrain.tasks.task import TaskDistribution
    from metatrain.tasks.tokens import Tokens

# Settings of `algorithm` in place of the run's own, each with what it is called.
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "exact, recomputed activations": {"meta_gradient": "exact_recomputed", "proximal": 0.0},
    "first order": {"meta_gradient": "first_order", "proximal": 0.0},
    "adapt the last two layers": {"adapt": "last_layers", "last_layers": 2, "pattern": None},
    "adapt the head": {"adapt": "head", "pattern": None},
}


USAGE = """\
usage: metatrain plan [SETTING=VALUE ...]

Estimate the time, memory and disk of `metatrain train` with these settings from one real meta-update, and compare cheaper alternatives.
Writes nothing.

examples:
  metatrain plan +experiment=sentiment_fewshot
  metatrain plan model=minilm algorithm=maml inner.steps=8
"""
SHOWN = (
    "algorithm.adapt",
    "algorithm.meta_gradient",
    "inner.steps",
    "outer.steps",
    "outer.meta_batch",
    "episode.shots",
    "episode.queries",
    "model.name",
    "model.max_length",
    "hardware.max_memory",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("plan", arguments, TrainConfig, start)


def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
    """Measure one meta-update and one evaluation episode, and print what the whole run adds up to."""
    from dataclasses import replace

    from rich.table import Table

    from metatrain.checkpoints.building import build_learner, make_learner
    from metatrain.checkpoints.recipe import Recipe
    from metatrain.errors import UserError
    from metatrain.evaluation.protocol import check_evaluation
    from metatrain.meta.algorithm import check_algorithm
    from metatrain.meta.cuda_graphs import CudaGraphs
    from metatrain.meta.plan import ExecutionPlan
    from metatrain.run import hardware
    from metatrain.run.ranks import Ranks
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tasks.encoded_episode import encode_episode
    from metatrain.tasks.episodes import training_episode
    from metatrain.tracking.console import Display
    from metatrain.tracking.durations import duration
    from metatrain.training.check import check_needs, check_training
    from metatrain.training.memory_limit import fit_memory

    with Display() as display:
        check_algorithm(config.algorithm, config.inner, config.model)
        check_needs(config)
        ranks = Ranks(local_size=config.hardware.processes)
        device, dtype, notes = hardware.apply(config.hardware, ranks)
        tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
        check_training(config, tasks)
        check_evaluation(config.evaluation, tasks.meta_test, config.episode, config.algorithm)
        for note in notes:
            display.say(note)
        recipe = Recipe.of_run(config, tasks.meta_train)
        learner = build_learner(recipe, device, dtype, display.say, tasks.training_texts())
        plan, line = fit_memory(config, learner, tasks.meta_train, device, ranks)
        display.say(line)
        learner = learner.with_plan(plan)
        tokens = learner.model.tokens()
        tokens.check((*tasks.meta_train, *tasks.meta_validation, *tasks.meta_test))
        drawn = [training_episode(tasks, config.episode, config.seed, index) for index in range(config.outer.meta_batch)]
        episodes = [encode_episode(episode, tokens) for episode in drawn]

        rows = [("as configured", *_measured(learner, episodes, device))]
        for name, settings in _alternatives(learner).items():
            other = replace(config.algorithm, **settings)
            try:
                check_algorithm(other, config.inner, config.model)
            except UserError:
                continue  # incompatible with the head or inner rule of the run
            if other != config.algorithm:
                alternative = make_learner(learner.model, replace(recipe, algorithm=other))
                own = ExecutionPlan(vectorised=plan.vectorised, cuda_graphs=CudaGraphs() if plan.cuda_graphs else None)
                rows.append((name, *_measured(alternative.with_plan(own), episodes, device)))
        table = Table(title=f"Cost of one meta-update of {len(episodes)} episodes, and of {config.outer.steps} meta-updates", title_justify="left")
        for column in ("", "seconds", "total", "memory MB"):
            table.add_column(column, justify="right" if column else "left")
        for name, seconds, memory in rows:
            table.add_row(name, f"{seconds:.2f}", duration(seconds * config.outer.steps), f"{memory / 1e6:,.0f}")
        display.table(table)
        if learner.steps(evaluation=False) == 0:
            display.say("no cheaper alternative: nothing adapts in meta-training (inner.steps=0)")

        seconds = _evaluation(config, learner, tasks, tokens)
        training, processes = rows[0][1] * config.outer.steps, config.hardware.processes
        if processes > 1:
            parts = len(learner.groups(episodes)) if config.hardware.reduce == "ordered" else len(episodes)
            training, seconds = training * math.ceil(parts / processes) / parts, seconds / processes
        each = f" with {processes} processes" if processes > 1 else ""
        display.say(f"total: {duration(training + seconds)}{each}, of which {duration(seconds)} for validation and the meta-test")
        display.say(f"peak memory: about {hardware.peak_memory(device) / 1e9:.1f} GB")
        display.say(f"disk: {_disk(config, learner) / 1e6:,.0f} MB for checkpoints and the model")


def _alternatives(learner: Learner) -> dict[str, dict[str, Any]]:
    """Return the entries of `ALTERNATIVES` that differ from the settings of the run."""
    if learner.steps(evaluation=False) == 0:
        return {}  # without inner steps, all of them are the same
    recomputes = learner.algorithm.meta_gradient == "exact" and learner.plan.graph_tokens == 0
    return {name: settings for name, settings in ALTERNATIVES.items() if not (recomputes and settings.get("meta_gradient") == "exact_recomputed")}


def _measured(learner: Learner, episodes: list[EncodedEpisode], device: torch.device) -> tuple[float, int]:
    """Return the seconds of a meta-update after warm-up, and its peak increase of memory in bytes."""
    import time

    from metatrain.run import hardware

    step = max(learner.algorithm.first_order_until, learner.algorithm.multi_step_until)  # the mode of most of the run
    if learner.plan.cuda_graphs is None:
        learner.outer_gradient(episodes[0], step)
    with hardware.measured_memory(device) as memory:
        if learner.plan.cuda_graphs is not None:
            for _ in range(2):  # the second one is captured as a CUDA graph
                learner.mean_gradient(episodes, step)
        hardware.wait(device)
        begin = time.perf_counter()
        learner.mean_gradient(episodes, step)
        hardware.wait(device)
        seconds = time.perf_counter() - begin
    return seconds, memory()


def _evaluation(config: TrainConfig, learner: Learner, tasks: TaskDistribution, tokens: Tokens) -> float:
    """Return the seconds of all validations and of the meta-test, estimated from one episode of each."""
    import time

    from metatrain.evaluation.arms import Learners, make_arms
    from metatrain.evaluation.chosen_arms import chosen_arms
    from metatrain.evaluation.protocol import EpisodeSet, episode_settings, run_arms
    from metatrain.training.check import validation_settings

    def seconds_of(names: list[str], settings: EpisodeConfig, split: str) -> float:
        arms = make_arms(names, Learners(learner, learner, config.evaluation, learner))
        begin = time.perf_counter()
        run_arms(arms, EpisodeSet(tasks.split(split)[:1], tokens, settings, 1, config.evaluation.seed_of(config.seed), split))
        return time.perf_counter() - begin

    total = 0.0
    if config.validation.every:
        validations = -(-config.outer.steps // config.validation.every)
        episodes = validations * len(tasks.meta_validation) * (config.validation.episodes + 1)  # and one with shuffled labels
        total += episodes * seconds_of(["meta_trained"], validation_settings(config), "meta_validation")
    for shots in config.evaluation.shots:
        episodes = len(tasks.meta_test) * config.evaluation.episodes
        settings = episode_settings(config.episode, config.evaluation, shots)
        total += episodes * seconds_of(chosen_arms(config.evaluation, config.algorithm), settings, "meta_test")
    return total


def _disk(config: TrainConfig, learner: Learner) -> int:
    """Bytes of the checkpoints that are kept (parameters and two moments of each), the best one and the exported model."""
    trained = sum(value.numel() * value.element_size() for value in learner.parameters.values())
    model = sum(value.numel() * value.element_size() for value in learner.model.parameters())
    return 3 * trained * (config.checkpoint.keep + (1 if config.validation.every else 0)) + model
