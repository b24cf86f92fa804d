"""Cost of a training run, measured on one real meta-update and one evaluation episode, for `metatrain plan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from metatrain.checkpoints.building import build_learner, build_leave_one_out, build_lora, make_learner
from metatrain.checkpoints.recipe import Recipe
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.evaluation.arms import Learners, make_arms
from metatrain.evaluation.chosen_arms import chosen_arms
from metatrain.evaluation.config import LoraConfig
from metatrain.evaluation.protocol import EpisodeSet, check_evaluation, episode_settings, is_large_enough, num_unlabelled, of_file, run_arms
from metatrain.evaluation.temperature_episodes import PER_VALIDATION_EPISODE
from metatrain.gradient.meta_gradient import mode_of
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.meta.learner import Learner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.adapted import number_of_layers
from metatrain.run import hardware
from metatrain.run.ranks import Ranks
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import EncodedEpisode, encode_episode
from metatrain.tasks.episode_file import EpisodeFile, read_episodes
from metatrain.tasks.episodes import Episode, training_episode
from metatrain.tasks.task import TaskDistribution
from metatrain.tasks.tokens import Tokens
from metatrain.training.check import check_needs, check_training, validation_settings
from metatrain.training.memory_limit import fit_memory

# Name of a cheaper alternative -> settings of `algorithm` that replace the run's own.
ALTERNATIVES: dict[str, dict[str, Any]] = {
    "exact, recomputed activations": {"meta_gradient": "exact_recomputed", "proximal": 0.0},
    "first order": {"meta_gradient": "first_order", "proximal": 0.0},
    "adapt the last two layers": {"adapt": "last_layers", "last_layers": 2, "pattern": None},
    "adapt the head": {"adapt": "head", "pattern": None},
}


@dataclass(frozen=True)
class PreparedRun:
    """A training run before its first meta-update."""

    config: TrainConfig
    recipe: Recipe
    tasks: TaskDistribution
    learner: Learner
    tokens: Tokens
    episodes: list[EncodedEpisode]  # the first meta-batch
    device: torch.device
    file: EpisodeFile | None  # episodes of the meta-test; None: they are drawn


@dataclass(frozen=True)
class Cost:
    """Cost of one meta-update."""

    name: str  # `as configured`, or of the alternative
    seconds: float
    memory: int  # peak increase in bytes


def prepared(config: TrainConfig, say: Callable[[str], None]) -> PreparedRun:
    """Check the settings, load the tasks and the model, and draw the first meta-batch.

    Raises:
        UserError: `metatrain train` would refuse the settings.
    """
    check_algorithm(config.algorithm, config.inner, config.model)
    check_needs(config)
    ranks = Ranks(local_size=config.hardware.processes)
    device, dtype, notes = hardware.apply(config.hardware, ranks)
    tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
    check_training(config, tasks)
    file = read_episodes(config.episode.file)
    if file is not None:
        config, tasks = replace(config, evaluation=of_file(config.evaluation, file)), replace(tasks, meta_test=file.tasks)
    check_evaluation(config.evaluation, tasks.meta_test, config.episode, config.algorithm, file, config.seed)
    for note in notes:
        say(note)
    recipe = Recipe.of_run(config, tasks.meta_train)
    learner = build_learner(recipe, device, dtype, say, tasks.training_texts())
    tokens = learner.model.tokens()
    tokens.check((*tasks.meta_train, *tasks.meta_validation, *tasks.meta_test))
    plan, line = fit_memory(config, learner, tasks, tokens, device, ranks)
    say(line)
    drawn = [training_episode(tasks, config.episode, config.seed, index) for index in range(config.outer.meta_batch)]
    return PreparedRun(config, recipe, tasks, learner.with_plan(plan), tokens, [encode_episode(episode, tokens) for episode in drawn], device, file)


def costs(run: PreparedRun) -> list[Cost]:
    """Measure the run as configured, and each alternative that differs from it and is compatible with its head and inner rule."""
    config, plan = run.config, run.learner.plan
    found = [Cost("as configured", *measured(run.learner, run.episodes, run.device))]
    for name, settings in _alternatives(run.learner).items():
        other = replace(config.algorithm, **settings)
        if other == config.algorithm:
            continue
        try:
            check_algorithm(other, config.inner, config.model)
            learner = make_learner(run.learner.model, replace(run.recipe, algorithm=other))
        except UserError:  # the alternative does not go with the method or the model
            continue
        own = ExecutionPlan(vectorised=plan.vectorised, cuda_graphs=CudaGraphs() if plan.cuda_graphs else None)
        found.append(Cost(name, *measured(learner.with_plan(own), run.episodes, run.device)))
    return found


def _alternatives(learner: Learner) -> dict[str, dict[str, Any]]:
    """Return the entries of `ALTERNATIVES` that differ from the settings of the run."""
    if learner.steps(evaluation=False) == 0:
        return {}  # without inner steps, all of them are the same
    mode = learner.algorithm.meta_gradient
    # Without second derivatives it is not cheaper, and the model may have been loaded with attention that has none.
    recomputes = not mode_of(mode).is_second_order or (mode == "exact" and learner.plan.graph_tokens == 0)
    layers = number_of_layers([name for name, _ in learner.model.named_parameters()])

    def is_another(settings: dict[str, Any]) -> bool:
        return not (recomputes and settings.get("meta_gradient") == "exact_recomputed") and settings.get("last_layers", 0) <= layers

    return {name: settings for name, settings in ALTERNATIVES.items() if is_another(settings)}


def measured(learner: Learner, episodes: list[EncodedEpisode], device: torch.device) -> tuple[float, int]:
    """Return the seconds of a meta-update after warm-up, and its peak increase of memory in bytes."""
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


def evaluation_seconds(run: PreparedRun) -> float:
    """Return the seconds of all validations and of the meta-test, estimated from one episode of each."""
    config, tasks = run.config, run.tasks
    total = 0.0
    if config.validation.every:
        validations = -(-config.outer.steps // config.validation.every)
        episodes = validations * len(tasks.meta_validation) * (config.validation.episodes + 1)  # and one with shuffled labels
        total += episodes * _seconds_of_episode(run, ["meta_trained"], validation_settings(config), "meta_validation")
        few = replace(config.episode, shots=2, queries=10)
        if run.learner.takes_temperature and all(is_large_enough(task, few) for task in tasks.meta_validation):
            total += PER_VALIDATION_EPISODE * config.validation.episodes * _seconds_of_episode(run, ["meta_trained"], few, "meta_validation")
    for shots in config.evaluation.shots:
        settings = episode_settings(config.episode, config.evaluation, shots)
        names = chosen_arms(config.evaluation, config.algorithm, tasks.meta_test)
        total += (
            len(tasks.meta_test)
            * config.evaluation.episodes
            * _seconds_of_episode(run, names, settings, "meta_test", None if run.file is None else run.file.episodes[shots])
        )
    return total


def _seconds_of_episode(run: PreparedRun, names: list[str], settings: EpisodeConfig, split: str, given: Mapping[str, Sequence[Episode]] | None = None) -> float:
    """Return the seconds that these arms take for one episode of a split, drawn or given."""
    evaluation = run.config.evaluation
    dtype = next(run.learner.model.parameters()).dtype

    def leave_one_out() -> Learner:
        return build_leave_one_out(run.recipe, run.device, dtype, run.tasks.training_texts())

    def lora(settings: LoraConfig) -> Learner:
        return build_lora(run.recipe, settings, run.device, dtype, run.tasks.training_texts())

    arms = make_arms(names, Learners(run.learner, run.learner, evaluation, run.learner, leave_one_out, lora))
    begin = time.perf_counter()
    seed, unlabelled = evaluation.seed_of(run.config.seed), num_unlabelled(evaluation)
    run_arms(arms, EpisodeSet(run.tasks.split(split)[:1], run.tokens, settings, 1, seed, split, given, unlabelled))
    return time.perf_counter() - begin


def bytes_on_disk(config: TrainConfig, learner: Learner) -> int:
    """Return the bytes of the checkpoints that are kept (parameters with two moments each), of the best one, and of the exported model."""
    trained = sum(value.numel() * value.element_size() for value in learner.parameters.values())
    model = sum(value.numel() * value.element_size() for value in learner.model.parameters())
    return 3 * trained * (config.checkpoint.keep + (1 if config.validation.every else 0)) + model
