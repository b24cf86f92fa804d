"""`metatrain finetune`: adapt a checkpoint to a new task from a few labelled examples, and write a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import DataConfig, FinetuneConfig

if TYPE_CHECKING:
    from metatrain.tasks.episodes import Episode


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("finetune", arguments, FinetuneConfig, start)


def start(config: FinetuneConfig, path: Path, overrides: list[str]) -> None:
    """Adapt, test if there is a test file, and write `path/model`."""
    import time

    from metatrain.commands.building import open_checkpoint
    from metatrain.evaluation.protocol import check_answers, scored, texts_of
    from metatrain.models.export import check_finetuning, save_finetuned
    from metatrain.tracking.console import Display
    from metatrain.training import hardware
    from metatrain.training.memory_limit import fit_adaptation
    from metatrain.training.run_directory import RunDirectory, recorded, write_json, written_whole

    with Display() as display:
        episode, tested = _read(config.data)
        task = episode.task
        device, dtype, notes = hardware.apply(config.hardware)
        for note in notes:
            display.say(note)
        learner = open_checkpoint(config.checkpoint, config.inner, config.model, device, dtype, display.say).learner
        check_finetuning(learner.model)
        check_answers([task], learner.algorithm)
        fit_adaptation(config.hardware, learner, device)
        texts = texts_of(episode, learner.model.tokens())

        run = RunDirectory.create(path, config, overrides, "finetune")
        display.log_to(run.log)
        with recorded(run):
            begin = time.perf_counter()
            adapted, loss = learner.adapt(texts)
            seconds = time.perf_counter() - begin
            steps, examples = learner.steps(evaluation=True), len(episode.support)
            labels = None if task.targets is not None else list(task.label_names)
            what = f"{examples} examples" + (f" of {len(labels)} classes" if labels else "")
            display.say(f"adapted to {what} in {seconds:.1f} s ({steps} inner steps, last loss {loss:.3f})")
            results = {"format": 1, "labels": labels, "examples": examples, "steps": steps, "seconds": round(seconds, 3)}
            if tested:
                accuracy, balanced = scored(episode, learner.answers(adapted, texts), episode.query_labels)
                name = task.score or "accuracy"
                score = {name: accuracy} if task.score else {"accuracy": accuracy, "balanced_accuracy": balanced}
                results["test"] = {"examples": len(episode.query), **score}
                more = "" if task.score else f" (balanced {balanced:.3f})"
                display.say(f"held-out {name}: {accuracy:.3f}{more} on {len(episode.query)} examples")
            with written_whole(run.model) as folder:
                kind = save_finetuned(folder, learner.write_to_model(adapted), adapted, labels)
            write_json(run.results, results)
            display.say(f"model: {run.model} (loads with {kind})")
            display.say(f'next: metatrain predict model={run.model} text="..."')


def _read(data: DataConfig) -> tuple[Episode, bool]:
    """The training examples as a support set, the test examples, if there are any, as queries; and whether there are."""
    import numpy as np

    from metatrain.errors import UserError
    from metatrain.evaluation.text_scores import check_score
    from metatrain.tasks.episodes import Episode
    from metatrain.tasks.files import Columns, line_of, read_file
    from metatrain.tasks.task import Task

    columns = Columns(data.text, data.label, pair=data.pair, target=data.target)
    train = read_file(Path(data.train).expanduser(), columns)
    test = None if data.test is None else read_file(Path(data.test).expanduser(), columns)
    answers = [*train.labels, *(test.labels if test else ())]
    names = ["text"] if data.target else sorted(set(train.labels))
    if data.target:
        check_score(data.score)
    elif len(names) < 2:
        raise UserError(f"{train.source}: one class only ({names[0]!r}); a classifier needs examples of two or more")
    elif test:
        for row, label in enumerate(test.labels):
            if label not in names:
                line = line_of(Path(data.test).expanduser(), row)
                raise UserError(f"{test.source}:{line}: label {label!r}, which no training example has; the labels are {', '.join(names)}")
    number = {name: place for place, name in enumerate(names)}
    labels = np.array([0 if data.target else number[answer] for answer in answers])
    rows, first = np.arange(len(answers)), len(train.texts)
    task = Task(
        "task",
        (*train.texts, *(test.texts if test else ())),
        labels,
        tuple(names),
        rows < first,
        rows >= first,
        targets=tuple(answers) if data.target else None,
        score=data.score if data.target else None,
    )
    return Episode(task, tuple(range(len(names))), rows[:first], labels[:first], rows[first:], labels[first:], 0), test is not None
