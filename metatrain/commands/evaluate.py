"""`metatrain evaluate`: a checkpoint and the baseline arms on the same meta-test episodes."""

from __future__ import annotations

from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import EvaluateConfig


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("evaluate", arguments, EvaluateConfig, start)


def start(config: EvaluateConfig, path: Path, overrides: list[str]) -> None:
    """One evaluation, in a run directory of its own."""
    from dataclasses import replace

    from metatrain.commands.building import open_checkpoint
    from metatrain.commands.train import show
    from metatrain.errors import Stopped, UserError
    from metatrain.evaluation.arms import make_arms
    from metatrain.evaluation.protocol import check_evaluation, evaluate
    from metatrain.tasks.config import EpisodeConfig
    from metatrain.tasks.sources import load_tasks
    from metatrain.tasks.tokens import Tokens
    from metatrain.tracking.console import Display
    from metatrain.training import hardware
    from metatrain.training.run_directory import RunDirectory, recorded, write_json
    from metatrain.training.signals import StopRequest

    device, dtype, notes = hardware.apply(config.hardware)
    with Display() as early:
        opened = open_checkpoint(config.checkpoint, config.inner, config.model, device, dtype, early.say)
    tasks_config = config.tasks or (opened.config.tasks if opened.config else None)
    if tasks_config is None:
        raise UserError(f"checkpoint={config.checkpoint} is no run and brings no tasks; add tasks=reviews, or tasks=files tasks.path=...")
    episode = opened.config.episode if opened.config else EpisodeConfig()
    tasks = load_tasks(tasks_config, opened.config.seed if opened.config else config.seed, splits=("meta_test",))
    if not tasks.meta_test and opened.config is None:
        tasks = replace(tasks, meta_test=load_tasks(tasks_config, config.seed).meta_test)
    check_evaluation(config.evaluation, tasks.meta_test, episode)

    run = RunDirectory.create(path, config, overrides, "evaluate")
    with recorded(run), StopRequest() as stop, Display(run.log) as display:
        for note in (*notes, *tasks.notes):
            display.say(note)
        arms = make_arms(config.evaluation.arms, opened.learner, opened.untrained())
        tokens = Tokens(opened.learner.encoder.tokenizer, opened.learner.encoder.max_length)
        display.start("meta-test", len(config.evaluation.shots) * len(tasks.meta_test) * config.evaluation.episodes)

        def between() -> None:
            display.advance()
            if stop:
                raise Stopped(stop.signal_number, "stopped; evaluations are short and start anew")

        results = evaluate(arms, tasks.meta_test, tokens, episode, config.evaluation, config.seed, between)
        write_json(run.results, {**results, "checkpoint": opened.name})
        show(results, display)
        display.say(f"results: {run.results}")
