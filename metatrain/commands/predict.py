"""`metatrain predict`: labels or answers for one text, or for every text of a file or a pipe."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import PredictConfig

if TYPE_CHECKING:
    from io import BufferedReader

    from metatrain.commands.prediction_files import Predicted
    from metatrain.models.export import Classifier
    from metatrain.models.generation import TextGenerator
    from metatrain.tasks.files import Columns
    from metatrain.tasks.unlabelled import Unlabelled

_AT_A_TIME = 500  # rows of a file, after which progress is shown
_PIPE = "-"  # data=-: standard input


USAGE = """\
usage: metatrain predict model=DIR|latest text="..."|data=FILE|data=- [output=FILE]

Predict labels with a model from `metatrain finetune`, for a text, a file of texts, standard input (one text per line), an image or a folder of
images. Every row gets a prediction; a row that cannot be read gets an empty one and the reason. output=FILE.csv (.tsv, .parquet) has the columns
of the input, then label, probability and reason (predicted_label, ... if the input has that column); any other output is JSON lines.

examples:
  metatrain predict model=latest text="The strap broke on the first day."
  metatrain predict model=latest data=texts.csv output=labels.csv
  metatrain predict model=latest data=- < texts.txt
"""
SHOWN = (
    "model.path",
    "text",
    "data",
    "column",
    "pair",
    "output",
    "hardware.device",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("predict", arguments, PredictConfig, start)


def start(config: PredictConfig, path: Path, overrides: list[str]) -> None:
    """Print a line per label for a text, or the answer; a JSON line per text for a file or a pipe."""
    from metatrain.commands.prediction_files import output_for, write_predictions
    from metatrain.errors import UserError
    from metatrain.models.export import Classifier, read_facts
    from metatrain.models.folders import model_folder
    from metatrain.models.generation import TASK, TextGenerator
    from metatrain.paths import local_path
    from metatrain.run import hardware
    from metatrain.run.directory import RunDirectory
    from metatrain.tasks.files import Columns
    from metatrain.tasks.texts import has_lone_surrogate, plain
    from metatrain.tracking.console import Display

    if (config.text is None) == (config.data is None):
        raise UserError('give either text="..." or data=FILE')
    if config.text is not None and config.output is not None:
        raise UserError(f"output={config.output} is for data=FILE; the prediction for text=... is printed, leave output out")
    if config.text is not None and has_lone_surrogate(config.text):
        raise UserError(f"text={ascii(config.text)} is not valid UTF-8, or has half a character (a lone surrogate)")
    name = config.model.path
    folder = model_folder(RunDirectory.find(name, "finetune").path if name == "latest" else local_path(name))
    columns = read_facts(folder).get("columns", {})
    column, pair = config.column or columns.get("text", "text"), config.pair or columns.get("pair")
    if pair is not None and (config.text is not None or config.data == _PIPE):
        raise UserError(f"pair={pair}: this model reads pairs of texts, but a single text was given; put pairs in a file with the columns {column} and {pair}")
    source = _source(config.data, Columns(column, pair=pair))
    read = [*source.files, *(each for each in folder.glob("**/*") if each.is_file())]
    output = None if config.output is None else output_for(config.output, read)
    device, _, _ = hardware.apply(config.hardware)
    model = TextGenerator(folder, device) if (folder / TASK).is_file() else Classifier(folder, device)
    if config.text is not None:
        print(_shown(model, [plain(config.text)]))
        return
    unread = Unread()
    with Display(quiet=config.data == _PIPE or (output is None and sys.stdout.isatty()), stderr=True) as display:
        display.start("predicting", source.rows, brief=True)
        predictions = unread.counted(_all_predicted(model, source.parts, lambda rows: display.advance(by=rows)))
        if output is None:
            for each in predictions:
                print(each.line, end="", flush=config.data == _PIPE)  # whose other end may wait for the answer
        else:
            number = write_predictions(output, source.fields, source.table, predictions)
    if output is not None:
        print(f"{number} predictions: {output}")
    if unread.number:
        print(f"warning: {unread.number} of {unread.rows} rows cannot be read and have no prediction; the first: {unread.first}", file=sys.stderr)


@dataclass(frozen=True)
class Source:
    """Source of the rows to predict."""

    parts: Iterable[Sequence[Unlabelled]] = ()
    files: Sequence[Path | int] = ()  # that are read, paths or descriptors
    table: Path | None = None  # a file of rows
    fields: Sequence[str] = ()  # names of its columns
    rows: int = 0  # of all; 0: nobody knows


def _source(data: str | None, columns: Columns) -> Source:
    """Raises: UserError: the file cannot be read, or no row of it can."""
    from metatrain.paths import local_path
    from metatrain.tasks.sources import images_in
    from metatrain.tasks.texts import path_of
    from metatrain.tasks.unlabelled import Unlabelled, file_rows, piped_rows, survey

    if data is None:
        return Source()
    if data == _PIPE:
        descriptors = []
        with suppress(UnsupportedOperation):  # of a program that has put something else in its place
            descriptors.append(sys.stdin.fileno())
        return Source(piped_rows(cast("BufferedReader", sys.stdin.buffer)), descriptors)
    path = local_path(data)
    if images := images_in(path):
        return Source(_parts(map(Unlabelled, images)), [Path(path_of(each)) for each in images], rows=len(images))
    found = survey(path, columns)
    for note in found.notes:
        print(note, file=sys.stderr)
    return Source(_parts(file_rows(path, columns, [])), [path], path, found.fields, found.rows)


@dataclass
class Unread:
    """Rows without a prediction."""

    rows: int = 0  # with and without
    number: int = 0
    first: str = ""

    def counted(self, predictions: Iterable[Predicted]) -> Iterator[Predicted]:
        """The same, counted as they pass."""
        for each in predictions:
            self.rows += 1
            if each.row.problem is not None:
                self.number, self.first = self.number + 1, self.first or each.row.problem
            yield each


def _shown(model: Classifier | TextGenerator, texts: Sequence[str]) -> str:
    """The labels of the one text, the most probable first, or the answer to it."""
    from metatrain.models.export import NONE, is_none

    if model.labels is None:
        return model.answers(texts)[0]
    scores = model.scores(texts)
    ranked = sorted(zip(scores[0].softmax(0).tolist(), model.labels), reverse=True)
    if is_none(scores, model.threshold):  # and no probability of a label, which could be taken for its own
        value, label = ranked[0]
        return f"{NONE}\n(the most likely label is {label}, with probability {value:.4f} among the labels)"
    return "\n".join(f"{label}\t{value:.4f}" for value, label in ranked)


def _parts(rows: Iterable[Unlabelled]) -> Iterator[list[Unlabelled]]:
    waiting = iter(rows)
    while part := list(itertools.islice(waiting, _AT_A_TIME)):
        yield part


def _all_predicted(model: Classifier | TextGenerator, parts: Iterable[Sequence[Unlabelled]], on_progress: Callable[[int], None]) -> Iterator[Predicted]:
    for part in parts:
        yield from _predicted(model, part)
        on_progress(len(part))


def _predicted(model: Classifier | TextGenerator, rows: Sequence[Unlabelled]) -> Iterator[Predicted]:
    """Predictions for rows, in order.

    Raises:
        UserError: the model can read none of them.
    """
    from metatrain.commands.prediction_files import Predicted

    no_answer = {"answer": None} if model.labels is None else {"label": None, "probability": None}
    rows, answers = _answered(model, rows)
    left = iter(answers)
    for row in rows:
        yield Predicted(row, no_answer if row.problem is not None else next(left))


def _answered(model: Classifier | TextGenerator, rows: Sequence[Unlabelled]) -> tuple[Sequence[Unlabelled], list[dict[str, Any]]]:
    """The rows, those that the model cannot read with their problem (an image file that is none, say), and answers for the others."""
    from metatrain.errors import UserError

    texts = [row.text for row in rows if row.problem is None]
    if not texts:
        return rows, []
    try:
        return rows, _answers(model, texts)
    except UserError as error:
        if len(texts) == 1:
            raise
        first = error
    found, answers = [], []
    for row in rows:
        try:
            answers += [] if row.problem is not None else _answers(model, [row.text])
        except UserError as error:
            row = replace(row, problem=str(error))
        found.append(row)
    if not answers:
        raise first
    return found, answers


def _answers(model: Classifier | TextGenerator, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the predictions for texts, as columns of the output.

    Raises:
        UserError: it cannot read one of them.
    """
    from metatrain.models.export import NONE, is_none

    if model.labels is None:
        return [{"answer": answer} for answer in model.answers(texts)]
    scores = model.scores(texts)
    best = scores.softmax(1).max(1)
    return [
        {"label": NONE, "probability": None} if unlike else {"label": model.labels[one], "probability": round(value, 6)}
        for unlike, one, value in zip(is_none(scores, model.threshold).tolist(), best.indices.tolist(), best.values.tolist())
    ]
