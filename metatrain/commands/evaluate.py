"""`metatrain evaluate`: compare a checkpoint with baselines on the same meta-test episodes."""

from __future__ import annotations

import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.effects import check_adaptation, effects_of_use
from metatrain.config.compose import is_of_grid, run_under_hydra
from metatrain.config.schema import EvaluateConfig, Overrides, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metatrain.tasks.episode_file import EpisodeFile
    from metatrain.tasks.task import Task


_UNREADABLE = "texts seen in training cannot be found, because the tasks of the run cannot be read"
USAGE = """\
usage: metatrain evaluate checkpoint=RUN|latest|MODEL [tasks=NAME] [SETTING=VALUE ...]
       metatrain evaluate model=MODEL tasks=NAME [prompt=NAME] [SETTING=VALUE ...]

Compare a meta-trained model, or any Hugging Face encoder, with baselines on few-shot episodes. The episodes are of meta-test tasks (those of the
run, or of another task distribution, without the texts that the model was trained on), or exactly those of a file (episode.file). An untrained
language model is evaluated zero-shot and with the support set in its prompt (each also with calibrated probabilities), and by logistic regression
on its hidden states.

examples:
  metatrain evaluate checkpoint=latest evaluation.shots=[1,5,10]
  metatrain evaluate checkpoint=latest evaluation.arms=[meta_trained,shuffled_labels,without_adaptation]
  metatrain evaluate checkpoint=minilm tasks=reviews evaluation.episodes=10
  metatrain evaluate model=smollm2 tasks=reviews prompt=chat evaluation.episodes=5 evaluation.queries=10
"""
SHOWN = (
    "checkpoint",
    "evaluation.episodes",
    "evaluation.shots",
    "evaluation.way",
    "evaluation.queries",
    "evaluation.arms",
    "evaluation.joint",
    "episode.file",
    "inner.steps",
    "inner.fit_head",
    "inner.fit_encoder",
    "hardware.device",
    "report",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("evaluate", arguments, EvaluateConfig, start, effects=effects_of_use)


def start(config: EvaluateConfig, path: Path, overrides: list[str], of_study: bool = False) -> None:
    """Run one evaluation in a run directory of its own. of_study: settings without effect are named and not refused."""
    from metatrain.checkpoints.opening import open_checkpoint, open_joint
    from metatrain.commands.meta_test import MetaTest
    from metatrain.errors import Stopped
    from metatrain.evaluation.arms import Learners, make_arms
    from metatrain.evaluation.chosen_arms import check_arms, check_learner, chosen_arms, untrained_arms
    from metatrain.evaluation.protocol import Setup, check_evaluation, names_notes, of_file
    from metatrain.evaluation.text_scores import check_scores
    from metatrain.meta.algorithm import check_label_sets
    from metatrain.models.heads import head_facts
    from metatrain.report.page import write_report
    from metatrain.run import hardware
    from metatrain.run.directory import RunDirectory, recorded
    from metatrain.run.hints import shown
    from metatrain.run.latest import make_latest, pin
    from metatrain.run.signals import StopRequest
    from metatrain.tasks.episode_file import read_episodes
    from metatrain.tracking.console import Display
    from metatrain.training.memory_limit import fit_adaptation

    RunDirectory.check_new(path, "evaluate")
    overrides = pin(config, overrides, "checkpoint", "evaluation.joint")
    with Display() as display:
        if config.evaluation.arms is not None:
            check_arms(config.evaluation.arms)
        if config.tasks is not None:
            check_scores(config.tasks, computed=True)
        device, dtype, notes = hardware.apply(config.hardware)
        settings = Overrides(config.algorithm, config.inner, config.model, config.prompt)
        opened = open_checkpoint(config.checkpoint, settings, device, dtype, display.say, generates=False)
        for note in check_adaptation(config, overrides, opened.learner, refuse=not (of_study or is_of_grid())):
            display.say(note)
        joint = open_joint(config.evaluation.joint, opened.config, device, dtype, display.say)
        opened = replace(opened, learner=opened.learner.with_plan(fit_adaptation(config.hardware, opened.learner, device)))
        file = read_episodes(config.episode.file)
        tasks, task_notes = _test_tasks(config, opened.config) if file is None else _tasks_of_file(file, opened.config)
        chosen = {key: value for key, value in asdict(config.episode).items() if value is not None}
        episode, evaluation = replace(opened.episode, **chosen), of_file(config.evaluation, file)
        if evaluation.arms is None and opened.is_plain and head_facts(opened.learner.algorithm.head).is_language_model:
            evaluation = replace(evaluation, arms=untrained_arms(opened.learner, tasks))
        check_evaluation(evaluation, tasks, episode, opened.learner.algorithm, file, config.seed)
        check_label_sets(tasks, opened.learner.algorithm, opened.learner.inner)
        names = chosen_arms(evaluation, opened.learner.algorithm, tasks)
        check_learner(names, opened.learner)
        tokens = opened.learner.model.tokens()
        tokens.check(tasks)
        for note in (*notes, *task_notes, *tokens.notes(tasks), *names_notes(tasks, opened.learner.algorithm)):
            display.say(note)

        run = RunDirectory.create(path, config, overrides, "evaluate", is_latest=False)
        display.log_to(run.log)
        with recorded(run), StopRequest() as stop:
            arms = make_arms(names, Learners(opened.learner, opened.untrained(), evaluation, joint, opened.leave_one_out, opened.lora))

            def give_way() -> None:
                if stop:
                    done = f"{test.done} of {test.total} episodes were done, and no results were written"
                    remedy = "to save time, reduce evaluation.episodes, evaluation.shots or evaluation.arms"
                    raise Stopped(stop.signal_number or signal.SIGTERM, f"stopped; {done}; {remedy}")

            validation = _validation_tasks(names, opened.config)
            setup = Setup(tasks, tokens, episode, evaluation, evaluation.seed_of(config.seed), validation, file)
            test = MetaTest(arms, setup, run, display, give_way)
            _, scores = test.results(checkpoint=opened.name)
            make_latest(run.path, "evaluate")  # only now: a stopped evaluation has no results
            display.say(f"results: {shown(run.results)}")
            if config.report:
                test.analyse(scores)
                write_report(run.path, run.report, at_end=True)
                display.say(f"report: {shown(run.report)}")


def _validation_tasks(arms: Sequence[str], trained: TrainConfig | None) -> tuple[Task, ...]:
    """Return the meta-validation tasks of the run, for arms that choose a setting on them."""
    from metatrain.tasks.distribution import load_tasks

    if trained is None or not any(name.startswith("full_finetune") for name in arms):
        return ()
    return load_tasks(trained.tasks, trained.seed, hold_out_seed=trained.evaluation.seed_of(trained.seed)).meta_validation


def _tasks_of_file(file: EpisodeFile, trained: TrainConfig | None) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Return the tasks of an episode file, whose texts the model was not trained on, and notes for the user."""
    from metatrain.errors import UserError
    from metatrain.tasks.audit import check_unseen
    from metatrain.tasks.distribution import load_tasks

    if trained is None:
        return file.tasks, ()
    try:
        own = load_tasks(trained.tasks, trained.seed, hold_out_seed=trained.evaluation.seed_of(trained.seed))
    except UserError as error:
        return file.tasks, (f"warning: {_UNREADABLE}: {error}",)
    return file.tasks, check_unseen(file, (*own.meta_train, *own.meta_validation), trained.tasks.overlap)


def _test_tasks(config: EvaluateConfig, trained: TrainConfig | None) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Return the meta-test tasks without texts that the model was trained on, and notes for the user."""
    from metatrain.errors import UserError
    from metatrain.tasks.audit import without_seen
    from metatrain.tasks.distribution import load_tasks

    if config.tasks is None:
        if trained is not None:
            own = load_tasks(trained.tasks, trained.seed, hold_out_seed=trained.evaluation.seed_of(trained.seed))
            return own.meta_test, own.notes
        raise UserError(f"checkpoint={config.checkpoint} is not a run, so it has no tasks; add tasks=reviews, or tasks=files tasks.path=...")
    named = config.tasks.meta_test
    if not named.tasks and not named.files:
        named.tasks = ["*"]  # without stated splits, test on all files
    tasks = load_tasks(config.tasks, config.seed, splits=("meta_test",))
    if trained is None:
        return tasks.meta_test, tasks.notes
    try:
        own = load_tasks(trained.tasks, trained.seed, hold_out_seed=trained.evaluation.seed_of(trained.seed))
    except UserError as error:
        return tasks.meta_test, (*tasks.notes, f"warning: {_UNREADABLE}: {error}")
    kept, notes = without_seen(tasks.meta_test, (*own.meta_train, *own.meta_validation), config.tasks.overlap)
    return kept, (*tasks.notes, *notes)
