"""`metatrain score`: accuracy, calibration and errors of a finetuned model on labelled data, as a page and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import ScoreConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from metatrain.models.export import Classifier
    from metatrain.models.generation import TextGenerator
    from metatrain.tasks.files import Table
    from metatrain.tracking.console import Display

USAGE = """\
usage: metatrain score model=DIR|latest data=LABELLED_FILE [SETTING=VALUE ...]

Compare the predictions of a model from `metatrain finetune` with the labels of a file that it was not trained on: accuracy with a 95% interval,
precision, recall and F1 by class, the confusion matrix, calibration, and the most confident errors with their lines. Writes results.json and
report.html to a run directory. A model that detects out-of-scope texts is also scored on those: rows with labels that it does not know.

examples:
  metatrain score model=latest data=labelled.csv
  metatrain score model=latest data=labelled.csv hydra.run.dir=scores
"""
SHOWN = ("model.path", "data", "column", "pair", "label", "report", "hardware.device")
_AT_A_TIME = 500  # texts, after which progress is shown
_MOST_CLASSES = 20  # in the printed table: those with the lowest F1


@dataclass(frozen=True)
class Scored:
    """Predictions for labelled texts."""

    table: Table
    names: Sequence[str]  # of the labels, and of out of scope if the model detects it
    labels: np.ndarray  # positions in `names`, [texts]
    predicted: np.ndarray  # [texts]
    confidence: np.ndarray  # probability of the predicted label, NaN where that is out of scope, [texts]


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("score", arguments, ScoreConfig, start, effects=effects_of_use)


def start(config: ScoreConfig, path: Path, overrides: list[str]) -> None:
    """Predict the texts of the file, and write and print the scores."""
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
    with Display() as display:
        table = _read(config, read_facts(folder).get("columns", {}), display)
        device, _, notes = hardware.apply(config.hardware)
        for note in notes:
            display.say(note)
        model = load_finetuned(folder, device)
        if model.labels is None:
            raise UserError(f"model={config.model.path} writes texts; metatrain score compares labels, so give a classifier")
        scored = _predicted(model, table, display)
        run = RunDirectory.create(path, config, overrides, "score")
        display.log_to(run.log)
        with recorded(run):
            results, analysis = _results(scored, shown(folder))
            write_json(run.results, results)
            write_json(run.analysis, {"format": 1, **analysis})
            _say(results, display)
            display.say(f"results: {shown(run.results)}")
            if config.report:
                write_report(run.path, run.report, at_end=True)
                display.say(f"report: {shown(run.report)}")


def _read(config: ScoreConfig, columns: dict[str, str], display: Display) -> Table:
    """Raises: UserError: the file or folder cannot be read."""
    from metatrain.paths import local_path
    from metatrain.tasks.files import Columns
    from metatrain.tasks.labelled import read_labelled

    named = Columns(config.column or columns.get("text", "text"), config.label, pair=config.pair or columns.get("pair"))
    guessed = {**({} if config.column else {"text": "column"}), **({"label": "label"} if config.label == "label" else {})}
    table, _ = read_labelled(local_path(config.data), "data", named, guessed)
    for note in table.notes:
        display.say(note)
    return table


def _predicted(model: Classifier | TextGenerator, table: Table, display: Display) -> Scored:
    """Return the predictions, as `metatrain predict` makes them."""
    import numpy as np

    from metatrain.models.decisions import decisions
    from metatrain.models.finetuned_folder import NONE

    assert model.labels is not None  # `start` has refused a model that writes texts
    names = [*model.labels, *([] if model.threshold is None else [NONE])]
    labels = _positions(table, model.labels, model.threshold is not None, display)
    predicted, confidence = np.zeros(len(labels), dtype=np.int64), np.full(len(labels), np.nan)
    number = {name: place for place, name in enumerate(names)}
    display.start("predicting", len(labels), brief=True)
    for begin in range(0, len(labels), _AT_A_TIME):
        part = list(table.texts[begin : begin + _AT_A_TIME])
        for row, found in enumerate(decisions(model, part), start=begin):
            assert found.label is not None  # there is no threshold of the user
            predicted[row] = number[found.label]
            confidence[row] = np.nan if found.out_of_scope else found.ranked[0][1]
        display.advance(by=len(part))
    display.stop()
    return Scored(table, names, labels, predicted, confidence)


def _positions(table: Table, labels: Sequence[str], detects: bool, display: Display) -> np.ndarray:
    """The labels of the rows as positions, [texts]; one that the model does not know is out of scope, the position after the last label.

    detects: whether the model detects out-of-scope texts.

    Raises:
        UserError: a row has a label that the model does not know, and the model does not detect out-of-scope texts.
    """
    import numpy as np

    from metatrain.errors import UserError

    known = {name: place for place, name in enumerate(labels)}
    unknown = dict.fromkeys(label for label in table.labels if label not in known)
    if unknown and not detects:
        row = next(row for row, label in enumerate(table.labels) if label not in known)
        raise UserError(f"{table.places([row])[row]}: label {table.labels[row]!r} is not a label of the model; its labels are {', '.join(labels)}")
    if unknown:
        rows = sum(label in unknown for label in table.labels)
        display.say(f"{rows} rows have labels that the model does not know ({', '.join(map(repr, list(unknown)[:5]))}); they count as out of scope")
    return np.array([known.get(label, len(labels)) for label in table.labels])


def _results(scored: Scored, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of results.json and of analysis.json, from which the page is made."""
    import numpy as np

    from metatrain.evaluation.classification import calibration, class_scores, confident_errors, confused, summary

    predicted, labels, table = scored.predicted, scored.labels, scored.table
    by_class, cells = class_scores(predicted, labels, scored.names), confused(predicted, labels, scored.names)
    judged = ~np.isnan(scored.confidence)
    calibrated = calibration(scored.confidence[judged], (predicted == labels)[judged]) if judged.any() else None
    errors = confident_errors(predicted, labels, scored.names, scored.confidence, table.texts)
    places = table.places({each["row"] for each in errors})
    errors = [{"place": places[each.pop("row")], **each} for each in errors]
    test = summary(predicted, labels, by_class)
    if calibrated is not None:
        test |= {key: calibrated[key] for key in ("mean_confidence", "calibration_error")}
    bins = [] if calibrated is None else calibrated["bins"]
    results = {
        **{"format": 1, "model": model, "data": table.source, "labels": list(scored.names), "test": test},
        **{"classes": by_class, "confusion": cells, "calibration": bins, "errors": errors},
    }
    mistakes = {"task": Path(table.source).name, "labels": list(scored.names), "pairs": cells, "examples": errors}
    return results, {"mistakes": [mistakes], "class_scores": by_class, "reliability": bins}


def _say(results: dict[str, Any], display: Display) -> None:
    """Print the scores: a line each, and a row for each class."""
    from rich.table import Table as Printed

    test, classes = results["test"], results["classes"]
    low, high = test["ci95"]
    display.say(
        f"accuracy: {test['accuracy']:.3f}, 95% interval [{low:.3f}, {high:.3f}] (balanced {test['balanced_accuracy']:.3f}, "
        f"macro F1 {test['macro_f1']:.3f}) on {test['examples']} examples"
    )
    if "calibration_error" in test:
        display.say(f"mean confidence of the predictions: {test['mean_confidence']:.3f} (calibration error {test['calibration_error']:.3f})")
    left_out = f", lowest {_MOST_CLASSES} of {len(classes)} F1" if len(classes) > _MOST_CLASSES else ""
    table = Printed(title=f"Classes{left_out}", title_justify="left")
    for column in ("class", "precision", "recall", "F1", "examples"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for each in classes[:_MOST_CLASSES]:
        scores = ("-" if each[key] is None else f"{each[key]:.3f}" for key in ("precision", "recall", "f1"))
        table.add_row(each["label"], *scores, str(each["examples"]))
    display.table(table)
    wrong = [cell for cell in results["confusion"] if cell[0] != cell[1]][:3]
    if wrong:
        display.say(f"most often confused: {'; '.join(f'{label} predicted as {answer} ({count})' for label, answer, count in wrong)}")
