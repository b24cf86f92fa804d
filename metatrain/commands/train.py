"""`metatrain train`: meta-pre-train a model, then compare it with the baseline arms on the meta-test tasks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.commands.grid import add_run, grid_runs, show_seeds
from metatrain.config.compose import is_of_grid, run_under_hydra
from metatrain.config.schema import TrainConfig
from metatrain.errors import Stopped
from metatrain.run import slurm
from metatrain.run.rank_environment import is_first_rank, number_of_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from metatrain.run.directory import RunDirectory
    from metatrain.tasks.task import Task, TaskDistribution
    from metatrain.tracking.weights_and_biases import WandbRun


_MANY_TEXTS = 20_000  # fewer are tokenised, in a moment, when their task is drawn


USAGE = """\
usage: metatrain train [+experiment=NAME] [GROUP=OPTION ...] [SETTING=VALUE ...] [-m]

Meta-train a model on the meta-training tasks, select the best checkpoint on the meta-validation tasks, and compare it with baseline arms
on the meta-test tasks. With -m, run every combination of comma-separated values; runs that differ only in their seed are summarised in one
table. debug=fast runs every stage once, in seconds.

examples:
  metatrain train +experiment=sentiment_fewshot
  metatrain train algorithm=recommended tasks=files tasks.path=my_tasks/
  metatrain train algorithm=protomaml inner.steps=3 outer.lr=1e-4 evaluation.seed=0 -m seed=0,1,2
"""
SHOWN = (
    "name",
    "algorithm.head",
    "algorithm.adapt",
    "algorithm.meta_gradient",
    "inner.rule",
    "inner.lr",
    "inner.steps",
    "outer.steps",
    "outer.lr",
    "outer.meta_batch",
    "tasks.path",
    "tasks.text",
    "tasks.label",
    "tasks.task",
    "episode.way",
    "episode.shots",
    "episode.queries",
    "validation.every",
    "validation.patience",
    "evaluation.shots",
    "evaluation.episodes",
    "evaluation.arms",
    "model.name",
    "model.max_length",
    "hardware.device",
    "hardware.processes",
    "hardware.max_memory",
    "tracking.mode",
    "report",
)


@dataclass(frozen=True)
class Job:
    """A training run that is to be started, or gone on with."""

    config: TrainConfig
    path: Path
    overrides: list[str]
    of_search: bool = False  # which has many, of which none is to be the `latest`
    changes: list[str] | None = None  # of a run that goes on: settings that differ from here on, as `key: before -> after`

    @property
    def changed(self) -> list[str]:
        """The keys of the settings that differ."""
        return [line.partition(": ")[0] for line in self.changes or ()]


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    if number_of_ranks() > 1:
        from metatrain.run.ranks import share_run_id

        share_run_id()
    slurm.announce_ends_by_preemption_signal()
    with grid_runs(arguments) as runs:
        run_under_hydra("train", arguments, TrainConfig, start)
    if is_first_rank():
        show_seeds(runs)


def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
    """Start a new run in `path`; a run of a grid that is there already, from an earlier start of the same command, is resumed."""
    from metatrain.run.latest import pin

    overrides = pin(config, overrides, "model.name", "evaluation.joint")
    try:
        if is_of_grid():
            from metatrain.commands.resume import check_same, go_on
            from metatrain.run.directory import RunDirectory, is_run

            add_run(path)
            if is_run(path):
                run = RunDirectory(path.resolve())
                check_same(run, config)
                go_on(run, config, [])
                return
        run_job(Job(config, path, overrides))
    except Stopped as stop:
        slurm.hand_over(stop)
        raise


def run_job(job: Job) -> None:
    """The whole of a training run, in this process or in `hardware.processes` of them."""
    if job.config.hardware.processes == 1 or number_of_ranks() > 1:
        meta_train(job)
    else:
        from metatrain.commands.workers import run_in_processes

        run_in_processes(job)


def meta_train(job: Job) -> None:
    """This process's share of a training run, from the beginning or from the run's newest checkpoint.

    The run directory is opened last, when nothing in the configuration, the tasks or the model can be wrong any more.
    """
    # Imported here: composing a configuration, or refusing it, should not wait for torch.
    from metatrain.checkpoints.building import build_learner
    from metatrain.checkpoints.opening import open_joint
    from metatrain.checkpoints.recipe import Recipe
    from metatrain.checkpoints.saving import save_model
    from metatrain.commands.meta_test import MetaTest
    from metatrain.evaluation.arms import arms_of, check_learner, make_arms
    from metatrain.evaluation.protocol import Setup, check_evaluation, names_notes
    from metatrain.meta.algorithm import check_algorithm
    from metatrain.models.pretrained import save_tokenizer
    from metatrain.run import hardware
    from metatrain.run.atomic import write_text, written_whole
    from metatrain.run.directory import RunDirectory, recorded
    from metatrain.run.failpoints import failpoint
    from metatrain.run.hints import shown, typed_setting
    from metatrain.run.latest import latest
    from metatrain.run.ranks import join
    from metatrain.run.signals import StopRequest
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tracking.console import Display, gain_line
    from metatrain.tracking.weights_and_biases import WandbRun, check_tracking
    from metatrain.training.check import check_needs, check_training
    from metatrain.training.memory_limit import fit_memory
    from metatrain.training.trainer import Trainer

    ranks = join(job.config.hardware)
    config, held = job.config, RunDirectory(job.path.resolve())
    with Display(quiet=not ranks.first) as display, ExitStack() as work:
        if job.changes is not None:
            if ranks.first:
                held.lock()
                work.callback(held.unlock)
            config = held.with_tokenizer(config)
        elif ranks.first:
            RunDirectory.check_new(job.path, "train")
        check_algorithm(config.algorithm, config.inner, config.model)
        check_needs(config)
        check_tracking(config.tracking)
        device, dtype, notes = hardware.apply(config.hardware, ranks)
        test_seed = config.evaluation.seed_of(config.seed)
        tasks = load_tasks(config.tasks, config.seed, hold_out_seed=test_seed)
        check_training(config, tasks)
        check_evaluation(config.evaluation, tasks.meta_test, config.episode, config.algorithm)
        for note in (*notes, *tasks.notes):
            display.say(note)
        sizes = [f"{len(tasks.split(name))} {name.replace('_', '-')}" for name in ("meta_train", "meta_validation", "meta_test")]
        display.say(f"tasks: {tasks.name}, {', '.join(sizes)}")
        recipe = Recipe.of_run(config, tasks.meta_train)
        learner = build_learner(recipe, device, dtype, display.say, tasks.training_texts())
        display.say(fit_memory(config, learner, tasks.meta_train, device, ranks))
        names = arms_of(config.evaluation, config.algorithm)
        check_learner(names, learner)
        joint = open_joint(config.evaluation.joint, config, device, dtype, display.say)
        tokens = learner.model.tokens()
        everything = (*tasks.meta_train, *tasks.meta_validation, *tasks.meta_test)
        tokens.check(everything)
        for note in (*tokens.notes(tasks.meta_train), *names_notes(everything, config.algorithm)):
            display.say(note)
        if sum(len(task.texts) for task in everything) > _MANY_TEXTS:
            display.start("tokenising tasks", len(everything))
            tokens.prepare(everything, display.advance)
            display.stop()

        run = held
        if ranks.first:
            if job.changes is None:
                run = RunDirectory.create(job.path, config, job.overrides, "train", job.of_search)
                work.enter_context(recorded(run))
            display.log_to(run.log)
        display.say(f"run: {run.path}")
        if job.changes is None and not job.of_search and latest("train").resolve() != run.path:
            display.say(f"debug run: latest still points to {shown(latest('train').resolve())}")
        with StopRequest() as stop:
            if ranks.first and learner.model.new_tokenizer:
                with written_whole(run.tokenizer) as folder:
                    save_tokenizer(learner.model.tokenizer, folder)
            ranks.wait()
            recipe = Recipe.of_run(run.with_tokenizer(config), tasks.meta_train)
            trainer = Trainer(config, run, learner, tasks, tokens, display, stop, ranks)
            if job.changes is not None:
                trainer.resume(job.changed)
                if ranks.first:
                    work.enter_context(recorded(run))
                    run.go_on(job.config, job.overrides, job.changes, display.say)
            if ranks.first:
                run.update(hardware={"device": str(device), "processes": ranks.size, **hardware.describe()})
            tracking = config.tracking if ranks.first else replace(config.tracking, mode="none")
            wandb = WandbRun(tracking, config.name, run.path, config, display.say, run.read_record().get("wandb_id"), trainer.last_logged())
            if wandb.run_id:
                run.update(wandb_id=wandb.run_id)
            work.callback(wandb.close)
            trainer.train(wandb)
            if ranks.first:
                save_model(run.model, learner, recipe)
            failpoint("exported")
            if not names:
                if ranks.first:
                    _report(config, run, wandb, {})
                display.say("meta-test skipped: evaluation.arms is empty")
                return

            if config.hardware.max_memory is not None:
                hardware.give_back()
            arms = make_arms(names, learner, build_learner(recipe, device, dtype), config.evaluation, joint)
            setup = Setup(tasks.meta_test, tokens, config.episode, config.evaluation, test_seed, tasks.meta_validation)
            test = MetaTest(arms, setup, run, display, trainer.stop_evaluation, ranks)
            results, scores = test.results()
            failpoint("results")
            if config.report:
                test.analyse(scores, every=tasks)
            if not ranks.first:
                return
            updates = trainer.state.step if trainer.state.best_step is None else trainer.state.best_step
            write_text(run.model / "README.md", _card(config, results, tasks, updates, run, device, ranks.size))
            _report(config, run, wandb, {f"meta_test/{name}": arm["mean"] for name, arm in results["arms"].items()})
            display.say(f"peak memory: {hardware.peak_memory(device) / 1e9:.2f} GB")
            if gained := gain_line(results):
                display.say(gained)
            display.say(f"model: {shown(run.model)}")
            display.say(f"results: {shown(run.results)}")
            if config.report:
                display.say(f"report: {shown(run.report)}")
            display.say(f"next: metatrain finetune {typed_setting('checkpoint', run.path)} {_examples(tasks.meta_test)}")


def _examples(tasks: Sequence[Task]) -> str:
    """What `finetune` is told of examples for such a model."""
    from metatrain.tasks.texts import PAIR

    if all(task.of_pictures for task in tasks):
        return "data.train=YOUR_PICTURES"  # a folder, LABEL/FILE
    columns = {
        " data.pair=COLUMN": all(not task.of_pictures and PAIR in task.texts[0] for task in tasks),
        " data.target=COLUMN": all(task.targets is not None for task in tasks),
    }
    return "data.train=YOUR_EXAMPLES.csv" + "".join(setting for setting, is_so in columns.items() if is_so)


def _report(config: TrainConfig, run: RunDirectory, wandb: WandbRun, numbers: dict[str, float]) -> None:
    """The run's page, and what Weights & Biases gets at the end."""
    from metatrain.report.page import attached, write_report

    if config.report:
        write_report(run.path, run.report, at_end=True)
    if wandb.is_on:
        wandb.finish(numbers, attached(run.path, run.report if config.report else None, run.model if config.tracking.log_model else None))


def _card(config: TrainConfig, results: dict[str, Any], tasks: TaskDistribution, updates: int, run: RunDirectory, device: torch.device, ranks: int) -> str:
    """The model's card."""
    from metatrain import __version__
    from metatrain.run import hardware
    from metatrain.tracking.metrics import read_metrics
    from metatrain.tracking.model_card import meta_trained_card

    names = {split: [task.name for task in tasks.split(split)] for split in ("meta_train", "meta_validation", "meta_test")}
    seconds = sum(record["seconds"] for record in read_metrics(run.path / "timings.jsonl"))
    facts = hardware.describe()
    where = str(device) if device.type != "cpu" else f"{facts['threads']} threads of {facts['processor']}"
    if ranks > 1:
        where = f"{ranks} processes, each on {where}"
    return meta_trained_card(asdict(config), results, names, updates, seconds, where, __version__)
