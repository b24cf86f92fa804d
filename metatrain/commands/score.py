"""`metatrain score`: accuracy, calibration and errors of a finetuned model on labelled data, as a page and as JSON."""

from __future__ import annotations

from pathlib import Path

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import ScoreConfig

USAGE = """\
usage: metatrain score model=DIR|latest data=LABELLED_FILE [SETTING=VALUE ...]

Compare the predictions of a model from `metatrain finetune` with the labels of a file that it was not trained on: accuracy with a 95% interval,
precision, recall and F1 by class, the confusion matrix, calibration, and the most confident errors with their lines. Writes results.json and
report.html to a run directory. A model that detects out-of-scope texts is also scored on those: rows with labels that it does not know. Several
labels per text: micro and macro F1 and subset accuracy; numbers: mean absolute error and Spearman's correlation.

examples:
  metatrain score model=latest data=labelled.csv
  metatrain score model=latest data=labelled.csv hydra.run.dir=scores
"""
SHOWN = ("model.path", "data", "column", "pair", "label", "coverage", "report", "hardware.device")


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("score", arguments, ScoreConfig, start, effects=effects_of_use)


def start(config: ScoreConfig, path: Path, overrides: list[str]) -> None:
    """Predict the texts of the file, and write and print the scores."""
    from metatrain.commands.score_kinds import scores_of
    from metatrain.errors import UserError
    from metatrain.models.finetuned import load_finetuned
    from metatrain.models.finetuned_folder import finetuned_folder, read_facts
    from metatrain.report.page import write_report
    from metatrain.run import hardware
    from metatrain.run.atomic import write_json
    from metatrain.run.directory import RunDirectory, recorded
    from metatrain.run.hints import shown
    from metatrain.tracking.console import Display

    RunDirectory.check_new(path, "score")
    folder = finetuned_folder(RunDirectory.find("latest", "finetune").path if config.model.path == "latest" else Path(config.model.path))
    facts = read_facts(folder)
    with Display() as display:
        scores = scores_of(config, facts, display)
        device, _, notes = hardware.apply(config.hardware)
        for note in notes:
            display.say(note)
        model = load_finetuned(folder, device)
        if model.labels is None:
            raise UserError(f"model={config.model.path} writes texts; metatrain score compares labels, so give a classifier")
        results, analysis = scores.of(model, display)
        run = RunDirectory.create(path, config, overrides, "score")
        display.log_to(run.log)
        with recorded(run):
            write_json(run.results, {"format": 1, "model": shown(folder), "data": scores.source, **results})
            write_json(run.analysis, {"format": 1, **analysis})
            scores.say(results, display)
            display.say(f"results: {shown(run.results)}")
            if config.report:
                write_report(run.path, run.report, at_end=True)
                display.say(f"report: {shown(run.report)}")
