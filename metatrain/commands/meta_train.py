"""One process's share of a training job: prepare, meta-train, meta-test, write the model and the report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from metatrain.checkpoints.building import build_learner, build_leave_one_out, build_lora
from metatrain.checkpoints.opening import open_joint
from metatrain.checkpoints.recipe import Recipe
from metatrain.checkpoints.saving import check_export, save_model
from metatrain.commands.job import Job
from metatrain.commands.meta_test import MetaTest
from metatrain.commands.trackers import open_tracker
from metatrain.config.schema import TrainConfig
from metatrain.evaluation.arms import Learners, is_diagnostic, make_arms
from metatrain.evaluation.chosen_arms import check_learner, chosen_arms
from metatrain.evaluation.config import EvaluationConfig, LoraConfig
from metatrain.evaluation.protocol import Setup, check_evaluation, names_notes, of_file
from metatrain.evaluation.temperature_episodes import PER_VALIDATION_EPISODE, TemperatureEpisodes
from metatrain.meta.algorithm import check_algorithm, check_label_sets
from metatrain.meta.learner import Learner
from metatrain.meta.sets_across_tasks import described_sets, with_sets
from metatrain.meta.temperature import described, learned_temperature
from metatrain.models.pretrained import commit_of, save_tokenizer
from metatrain.models.windows import check_cut
from metatrain.run import hardware
from metatrain.run.atomic import atomic_directory, write_text
from metatrain.run.directory import RunDirectory, recorded
from metatrain.run.failpoints import failpoint
from metatrain.run.hints import shown, typed_setting
from metatrain.run.latest import latest
from metatrain.run.ranks import Ranks, join
from metatrain.run.signals import StopRequest
from metatrain.tasks.audit import check_unseen
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.episode_file import EpisodeFile, read_episodes
from metatrain.tasks.episodes import SPLITS
from metatrain.tasks.task import Task, TaskDistribution
from metatrain.tasks.texts import PAIR
from metatrain.tasks.tokens import Tokens
from metatrain.tracking.console import Display, gain_line
from metatrain.tracking.metrics import read_metrics
from metatrain.tracking.model_card import DataSet, meta_trained_card
from metatrain.tracking.score_names import common_score
from metatrain.tracking.weights_and_biases import Tracker, check_tracking
from metatrain.training.check import check_needs, check_training
from metatrain.training.context import RunContext
from metatrain.training.memory_limit import fit_memory
from metatrain.training.trainer import Trainer
from metatrain.version import __version__

_LARGE_TASK = 5_000  # number of texts above which a task is tokenised before meta-training; others are tokenised when they are first sampled


@dataclass(frozen=True)
class Prepared:
    """The checked inputs of a run."""

    config: TrainConfig
    device: torch.device
    dtype: torch.dtype
    tasks: TaskDistribution
    tokens: Tokens
    learner: Learner
    arms: Sequence[str]
    joint: Learner | None  # of joint training, for comparison
    evaluation: EvaluationConfig
    file: EpisodeFile | None  # episodes of the meta-test; None: they are drawn

    @property
    def evaluated(self) -> TaskDistribution:
        """Return the tasks with those of the episode file, if there is one, as meta-test tasks."""
        return self.tasks if self.file is None else replace(self.tasks, meta_test=self.file.tasks)


def meta_train(job: Job) -> None:
    """Run this process's share of a job, from the beginning or from the newest checkpoint.

    The run directory is written only after the settings, the tasks and the model have passed every check.
    """
    ranks = join(job.config.hardware)
    with Display(quiet=not ranks.first) as display, ExitStack() as work:
        prepared = _prepare(_reserved(job, ranks, work), ranks, display)
        config, learner, tasks = prepared.config, prepared.learner, prepared.tasks
        run = _opened(job, config, ranks, display, work)
        with StopRequest() as stop:
            if ranks.first and learner.model.new_tokenizer:
                with atomic_directory(run.tokenizer) as folder:
                    save_tokenizer(learner.model.tokenizer, folder)
            ranks.wait()
            context = RunContext(run, display, stop, ranks)
            trainer = Trainer(config, learner, tasks, prepared.tokens, context)
            if job.changes is not None:
                trainer.restore(job.changed)
                if ranks.first:
                    work.enter_context(recorded(run))
                    run.record_resumption(job.config, job.overrides, job.changes, display.say)
            if ranks.first:
                speed = round(hardware.product_speed(prepared.device))
                run.update(scores=_scores(tasks))
                run.update(hardware={"device": str(prepared.device), "processes": ranks.size, "float32_gflops": speed, **hardware.describe()})
                display.say(f"matrix products: {speed} GFLOP/s in float32")
            tracker = open_tracker(config, run, display.say, trainer.state.step, trainer.last_logged(), ranks.first)
            work.callback(tracker.close)
            trainer.train(tracker)
            recipe = Recipe.of_run(run.with_own_model(config), tasks.meta_train)
            learner = _with_temperature(prepared, trainer, context)
            if ranks.first:
                save_model(run.model, learner, recipe, config.checkpoint.export)
            failpoint("exported")
            if prepared.arms:
                _meta_test(prepared, recipe, learner, trainer, context, tracker)
                return
            if ranks.first:
                write_text(run.model / "README.md", _card(prepared, None, trainer, context))
                _report(config, run, tracker, {})
            display.say("meta-test skipped: evaluation.arms is empty")


def _reserved(job: Job, ranks: Ranks, work: ExitStack) -> TrainConfig:
    """Lock the directory of a resumed run, or check that a new run can be created; return the settings with the run's own tokenizer and model commit."""
    if job.is_resumed:
        held = RunDirectory(job.path.resolve())
        if ranks.first:
            held.lock()
            work.callback(held.unlock)
        return held.with_own_model(job.config)
    if ranks.first:
        RunDirectory.check_new(job.path, "train")
    return job.config


def _prepare(config: TrainConfig, ranks: Ranks, display: Display) -> Prepared:
    """Check the settings, load the tasks, build the learner, fit it into memory, and tokenise."""
    check_algorithm(config.algorithm, config.inner, config.model)
    check_needs(config)
    check_cut(config.model.long_texts)
    check_export(config.checkpoint.export, config.algorithm, config.model)
    check_tracking(config.tracking)
    if config.tasks.trains_on_all_folds and config.episode.file is None:
        display.say("tasks.fold=null: the tasks of all folds are meta-train, so there is no meta-test; tasks.fold=K holds out fold K")
        config = replace(config, evaluation=replace(config.evaluation, arms=[]))
    device, dtype, notes = hardware.apply(config.hardware, ranks)
    tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
    check_training(config, tasks)
    file = read_episodes(config.episode.file)
    tested, evaluation = tasks.meta_test if file is None else file.tasks, of_file(config.evaluation, file)
    check_evaluation(evaluation, tested, config.episode, config.algorithm, file, config.seed)
    check_label_sets(tested, config.algorithm, config.inner)
    unseen = () if file is None else check_unseen(file, (*tasks.meta_train, *tasks.meta_validation), config.tasks.overlap)
    for note in (*notes, *tasks.notes, *unseen):
        display.say(note)
    sizes = [f"{len(tasks.split(name))} {name.replace('_', '-')}" for name in SPLITS]
    display.say(f"tasks: {tasks.name}, {', '.join(sizes)}")
    learner = build_learner(Recipe.of_run(config, tasks.meta_train), device, dtype, display.say, tasks.training_texts())
    arms = chosen_arms(config.evaluation, config.algorithm, tested)
    check_learner(arms, learner)
    joint = open_joint(config.evaluation.joint, config, device, dtype, display.say)
    tokens = learner.model.tokens()
    every = (*tasks.meta_train, *tasks.meta_validation, *tested)
    tokens.check(every)
    for note in (*tokens.notes(tasks.meta_train), *names_notes(every, config.algorithm)):
        display.say(note)
    if large := [task for task in every if len(task.texts) > _LARGE_TASK]:
        display.start("tokenising tasks", len(large))
        tokens.prepare(large, display.advance)
        display.stop()
    plan, line = fit_memory(config, learner, tasks, tokens, device, ranks)
    display.say(line)
    return Prepared(config, device, dtype, tasks, tokens, learner.with_plan(plan), arms, joint, evaluation, file)


def _opened(job: Job, config: TrainConfig, ranks: Ranks, display: Display, work: ExitStack) -> RunDirectory:
    """Create the directory of a new run, or return that of the resumed one, and log to it."""
    run = RunDirectory(job.path.resolve())
    if ranks.first:
        if not job.is_resumed:
            run = RunDirectory.create(job.path, config, job.overrides, "train", job.of_search)
            work.enter_context(recorded(run))
            if (commit := commit_of(config.model.name, config.model.revision)) is not None:
                run.update(model_commit=commit)
        display.log_to(run.log)
    display.say(f"run: {run.path}")
    if not job.is_resumed and not job.of_search and latest("train").resolve() != run.path:
        display.say(f"debug run: latest still points to {shown(latest('train').resolve())}")
    return run


def _with_temperature(prepared: Prepared, trainer: Trainer, context: RunContext) -> Learner:
    """Return the trained learner with the temperature learned from episodes of the meta-validation tasks; as it is if there are none, or without validation.

    Raises:
        Stopped: a signal came; the resumed run learns the temperature again.
    """
    config, display, learner = prepared.config, context.display, trainer.learner
    if not config.validation.every:
        return learner
    number = PER_VALIDATION_EPISODE * config.validation.episodes
    episodes = TemperatureEpisodes.of(learner, prepared.tasks.meta_validation, prepared.tokens, config.episode, config.seed, number)
    if not len(episodes):
        return learner

    def on_progress(done: int) -> None:
        display.advance(by=done)
        failpoint("temperature")
        trainer.stop_evaluation()

    display.start("temperature of the probabilities", len(episodes))
    cases = episodes.cases(learner, on_progress, context.ranks)
    display.stop()
    if not cases:
        return learner
    found = with_sets(learned_temperature(cases, trainer.parameters_step), cases)
    for line in (*described(found, cases), *described_sets(found)):
        display.say(line)
    return learner.with_temperature(found)


def _meta_test(prepared: Prepared, recipe: Recipe, learner: Learner, trainer: Trainer, context: RunContext, tracker: Tracker) -> None:
    """Compare the arms on the meta-test tasks; write results, model card and report; learner: the trained one, with its temperature."""
    config, tasks, run, display = prepared.config, prepared.evaluated, context.run, context.display
    if config.hardware.max_memory is not None:
        hardware.give_back()
    untrained = build_learner(recipe, prepared.device, prepared.dtype)

    def leave_one_out() -> Learner:
        return build_leave_one_out(recipe, prepared.device, prepared.dtype)

    def lora(settings: LoraConfig) -> Learner:
        return build_lora(recipe, settings, prepared.device, prepared.dtype)

    arms = make_arms(prepared.arms, Learners(learner, untrained, prepared.evaluation, prepared.joint, leave_one_out, lora))
    seed = config.evaluation.seed_of(config.seed)
    setup = Setup(tasks.meta_test, prepared.tokens, config.episode, prepared.evaluation, seed, tasks.meta_validation, prepared.file)
    test = MetaTest(arms, setup, run, display, trainer.stop_evaluation, context.ranks)
    results, scores = test.results(training_tasks=len(tasks.meta_train))
    failpoint("results")
    if config.report:
        test.analyse(scores, every=tasks)
    if not context.ranks.first:
        return
    write_text(run.model / "README.md", _card(prepared, results, trainer, context))
    _report(config, run, tracker, {f"meta_test/{name}": arm["mean"] for name, arm in results["arms"].items()})
    display.say(f"peak memory: {hardware.peak_memory(prepared.device) / 1e9:.2f} GB")
    if gained := gain_line(results, is_diagnostic):
        display.say(gained)
    display.say(f"model: {shown(run.model)}")
    display.say(f"results: {shown(run.results)}")
    if config.report:
        display.say(f"report: {shown(run.report)}")
    display.say(f"next: metatrain finetune {typed_setting('checkpoint', run.path)} {_examples(tasks.meta_test)}")


def _scores(tasks: TaskDistribution) -> dict[str, str]:
    """Return the scores that metrics.jsonl has under `accuracy`, by split, for run.json."""
    return {
        "meta_train": common_score(task.loop_score for task in tasks.meta_train),
        "meta_validation": common_score(task.main_score for task in tasks.meta_validation),
    }


def _examples(tasks: Sequence[Task]) -> str:
    """Return the settings with which `finetune` reads examples of a task like these."""
    if all(task.of_images for task in tasks):
        return "data.train=YOUR_IMAGES"  # a folder, LABEL/FILE
    columns = {
        " data.pair=COLUMN": all(not task.of_images and PAIR in task.texts[0] for task in tasks),
        " data.target=COLUMN": all(task.targets is not None for task in tasks),
        " data.kind=labels": all(task.label_sets is not None for task in tasks),
    }
    return "data.train=YOUR_EXAMPLES.csv" + "".join(setting for setting, is_needed in columns.items() if is_needed)


def _report(config: TrainConfig, run: RunDirectory, tracker: Tracker, summary: dict[str, float]) -> None:
    """Write report.html, and send the summary with the run's files to Weights & Biases or TensorBoard."""
    if not config.report and not tracker.is_on:
        return
    from metatrain.report.page import attached, write_report  # loads the renderer of charts

    if config.report:
        write_report(run.path, run.report, at_end=True)
    if tracker.is_on:
        tracker.finish(summary, attached(run.path, run.report if config.report else None, run.model if config.tracking.log_model else None))


def _card(prepared: Prepared, results: dict[str, Any] | None, trainer: Trainer, context: RunContext) -> str:
    """Return the model card; results: None: there was no meta-test."""
    names = {split: [task.name for task in prepared.evaluated.split(split)] for split in SPLITS}
    seconds = sum(record["seconds"] for record in read_metrics(context.run.path / "timings.jsonl"))
    facts, device = hardware.describe(), prepared.device
    where = str(device) if device.type != "cpu" else f"{facts['threads']} threads of {facts['processor']}"
    if context.ranks.size > 1:
        where = f"{context.ranks.size} processes, each on {where}"
    return meta_trained_card(asdict(prepared.config), results, names, _data_sets(prepared), trainer.parameters_step, seconds, where, __version__)


def _data_sets(prepared: Prepared) -> list[DataSet]:
    """Return the sources of the meta-training and meta-validation tasks, as their settings describe them; local paths are left out."""
    tasks, found = prepared.config.tasks, []
    for name in dict.fromkeys(task.source for task in (*prepared.tasks.meta_train, *prepared.tasks.meta_validation) if task.is_labelled or task.targets):
        source = tasks.sources[name] if name else tasks
        public = source.path if source.path.startswith(("hub:", "metatrain:")) else None
        used = [split for split in SPLITS[:2] if any(task.source == name for task in prepared.tasks.split(split))]
        found.append(DataSet(name or tasks.name, tuple(used), source.origin or public, source.licence))
    return found
