"""`metatrain finetune`: adapt a checkpoint to a new task from a few labelled examples, and write a model directory."""

from __future__ import annotations

from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import FinetuneConfig


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("finetune", arguments, FinetuneConfig, start)


def start(config: FinetuneConfig, path: Path, overrides: list[str]) -> None:
    """Adapt, test if there is a test file, and write `path/model`."""
    import time

    import numpy as np

    from metatrain.commands.building import open_checkpoint
    from metatrain.errors import UserError
    from metatrain.evaluation.statistics import accuracy, balanced_accuracy
    from metatrain.models.export import save_classifier
    from metatrain.tasks.files import Columns, read_file
    from metatrain.tasks.tokens import Tokens
    from metatrain.tracking.console import Display
    from metatrain.training import hardware
    from metatrain.training.run_directory import RunDirectory, recorded, write_json

    columns = Columns(config.data.text, config.data.label)
    train = read_file(Path(config.data.train).expanduser(), columns)
    labels = sorted(set(train.labels))
    if len(labels) < 2:
        raise UserError(f"{train.source}: one class only ({labels[0]!r}); a classifier needs examples of two or more")
    test = read_file(Path(config.data.test).expanduser(), columns) if config.data.test else None
    for number, label in enumerate(test.labels if test else [], start=1):
        if label not in labels:
            raise UserError(f"{test.source}: row {number} has label {label!r}, which no training example has; the labels are {', '.join(labels)}")
    device, dtype, notes = hardware.apply(config.hardware)
    with Display() as early:
        opened = open_checkpoint(config.checkpoint, config.inner, config.model, device, dtype, early.say)

    run = RunDirectory.create(path, config, overrides, "finetune")
    with recorded(run), Display(run.log) as display:
        for note in notes:
            display.say(note)
        learner = opened.learner
        tokens = Tokens(learner.encoder.tokenizer, learner.encoder.max_length)
        wanted = np.array([labels.index(label) for label in train.labels])
        begin = time.perf_counter()
        adapted, loss = learner.adapt(tokens.encode(train.texts), wanted, len(labels))
        seconds = time.perf_counter() - begin
        steps = learner.steps(evaluation=True)
        display.say(f"adapted to {len(wanted)} examples of {len(labels)} classes in {seconds:.1f} s ({steps} inner steps, last loss {loss:.3f})")
        results = {"format": 1, "labels": labels, "examples": len(wanted), "steps": steps, "seconds": round(seconds, 3)}
        if test:
            truth = np.array([labels.index(label) for label in test.labels])
            predicted = learner.logits(adapted, tokens.encode(test.texts)).argmax(1).cpu().numpy()
            results["test"] = {
                "examples": len(truth),
                "accuracy": accuracy(predicted, truth),
                "balanced_accuracy": balanced_accuracy(predicted, truth),
            }
            score = results["test"]
            display.say(f"held-out accuracy: {score['accuracy']:.3f} (balanced {score['balanced_accuracy']:.3f}) on {len(truth)} examples")
        kind = save_classifier(run.model, learner.write_to_encoder(adapted), adapted["head.weight"], adapted["head.bias"], labels)
        write_json(run.results, results)
        display.say(f"model: {run.model} (loads with {kind})")
        display.say(f'next: metatrain predict model={run.model} text="..."')
