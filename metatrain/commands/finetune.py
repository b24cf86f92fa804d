"""`metatrain finetune`: adapt a checkpoint to a new task from a few labelled examples, and write a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import DataConfig, FinetuneConfig

if TYPE_CHECKING:
    from metatrain.tasks.files import Table


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("finetune", arguments, FinetuneConfig, start)


def start(config: FinetuneConfig, path: Path, overrides: list[str]) -> None:
    """Adapt, test if there is a test file, and write `path/model`."""
    import time

    import numpy as np

    from metatrain.commands.building import open_checkpoint
    from metatrain.evaluation.statistics import accuracy, balanced_accuracy
    from metatrain.models.export import save_classifier
    from metatrain.tasks.tokens import Tokens
    from metatrain.tracking.console import Display
    from metatrain.training import hardware
    from metatrain.training.memory_limit import fit_adaptation
    from metatrain.training.run_directory import RunDirectory, recorded, write_json, written_whole

    with Display() as display:
        train, test, labels = _read(config.data)
        device, dtype, notes = hardware.apply(config.hardware)
        for note in notes:
            display.say(note)
        learner = open_checkpoint(config.checkpoint, config.inner, config.model, device, dtype, display.say).learner
        fit_adaptation(config.hardware, learner, device)
        tokens = Tokens(learner.encoder.tokenizer, learner.encoder.max_length)

        run = RunDirectory.create(path, config, overrides, "finetune")
        display.log_to(run.log)
        with recorded(run):
            wanted = np.array([labels.index(label) for label in train.labels])
            begin = time.perf_counter()
            adapted, loss = learner.adapt(tokens.encode(train.texts), wanted, labels)
            seconds = time.perf_counter() - begin
            steps = learner.steps(evaluation=True)
            display.say(f"adapted to {len(wanted)} examples of {len(labels)} classes in {seconds:.1f} s ({steps} inner steps, last loss {loss:.3f})")
            results = {"format": 1, "labels": labels, "examples": len(wanted), "steps": steps, "seconds": round(seconds, 3)}
            if test:
                truth = np.array([labels.index(label) for label in test.labels])
                predicted = learner.logits(adapted, tokens.encode(test.texts)).argmax(1).cpu().numpy()
                score = {"accuracy": accuracy(predicted, truth), "balanced_accuracy": balanced_accuracy(predicted, truth)}
                results["test"] = {"examples": len(truth), **score}
                display.say(f"held-out accuracy: {score['accuracy']:.3f} (balanced {score['balanced_accuracy']:.3f}) on {len(truth)} examples")
            with written_whole(run.model) as folder:
                kind = save_classifier(folder, learner.write_to_encoder(adapted), adapted["head.weight"], adapted["head.bias"], labels)
            write_json(run.results, results)
            display.say(f"model: {run.model} (loads with {kind})")
            display.say(f'next: metatrain predict model={run.model} text="..."')


def _read(data: DataConfig) -> tuple[Table, Table | None, list[str]]:
    """The training and test examples, and the labels in their order."""
    from metatrain.errors import UserError
    from metatrain.tasks.files import Columns, line_of, read_file

    columns = Columns(data.text, data.label)
    train = read_file(Path(data.train).expanduser(), columns)
    labels = sorted(set(train.labels))
    if len(labels) < 2:
        raise UserError(f"{train.source}: one class only ({labels[0]!r}); a classifier needs examples of two or more")
    if data.test is None:
        return train, None, labels
    test = read_file(Path(data.test).expanduser(), columns)
    for row, label in enumerate(test.labels):
        if label not in labels:
            line = line_of(Path(data.test).expanduser(), row)
            raise UserError(f"{test.source}:{line}: label {label!r}, which no training example has; the labels are {', '.join(labels)}")
    return train, test, labels
