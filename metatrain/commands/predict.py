"""`metatrain predict`: labels or answers for one text, or for every text of a file or a pipe."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import PredictConfig

if TYPE_CHECKING:
    from io import BufferedReader

    import numpy as np

    from metatrain.commands.answers import FinetunedModel
    from metatrain.commands.prediction_files import Predicted
    from metatrain.tasks.files import Columns
    from metatrain.tasks.unlabelled import Unlabelled

_AT_A_TIME = 500  # rows of a file, after which progress is shown
_PIPE = "-"  # data=-: standard input


USAGE = """\
usage: metatrain predict model=DIR|latest text="..."|data=FILE|data=- [output=FILE]

Predict labels with a model from `metatrain finetune`, for a text, a file of texts, standard input (one text per line), an image or a folder of
images. Every row gets a prediction; a row that cannot be read gets an empty one and the reason. output=FILE.csv (.tsv, .xlsx, .parquet, .jsonl)
has the columns of the input, then label, probability and reason (predicted_label, ... if the input has that column). A model with several labels
per text writes labels and the probability of each label instead; a model with numbers writes number. Memory does not grow with the file.

examples:
  metatrain predict model=latest text="The strap broke on the first day."
  metatrain predict model=latest data=texts.csv output=labels.csv
  metatrain predict model=latest data=texts.csv output=labels.jsonl top=2 threshold=0.6
  metatrain predict model=latest data=texts.csv output=sets.csv coverage=0.9
  metatrain predict model=latest data=- < texts.txt
"""
SHOWN = (
    "model.path",
    "text",
    "data",
    "column",
    "pair",
    "output",
    "top",
    "threshold",
    "coverage",
    "hardware.device",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("predict", arguments, PredictConfig, start, effects=effects_of_use)


def start(config: PredictConfig, path: Path, overrides: list[str]) -> None:
    """Print a line per label for a text, or the answer; a JSON line per text for a file or a pipe."""
    from metatrain.commands.runtime import check_runtime
    from metatrain.errors import UserError
    from metatrain.models.finetuned_folder import finetuned_folder, read_facts
    from metatrain.run.directory import RunDirectory
    from metatrain.tasks.texts import has_lone_surrogate, plain

    if (config.text is None) == (config.data is None):
        raise UserError('give either text="..." or data=FILE')
    if config.text is not None and config.output is not None:
        raise UserError(f"output={config.output} is for data=FILE; the prediction for text=... is printed, leave output out")
    if config.text is not None and has_lone_surrogate(config.text):
        raise UserError(f"text={ascii(config.text)} is not valid UTF-8, or has half a character (a lone surrogate)")
    _check_choice(config.top, config.threshold)
    check_runtime(config.runtime, config.hardware)
    name = config.model.path
    folder = finetuned_folder(RunDirectory.find(name, "finetune").path if name == "latest" else Path(name))
    columns = read_facts(folder).get("columns", {})
    column, pair = config.column or columns.get("text", "text"), config.pair or columns.get("pair")
    if pair is not None and (config.text is not None or config.data == _PIPE):
        raise UserError(f"pair={pair}: this model reads pairs of texts, but a single text was given; put pairs in a file with the columns {column} and {pair}")
    if config.text is not None:
        print(_predictor(config, folder).shown(plain(config.text)))
    else:
        _predict_rows(config, folder, column, pair)


def _predictor(config: PredictConfig, folder: Path) -> Predictor:
    """Return the opened model of a directory: its exported graph, or the model itself. Print why a graph is not used.

    Raises:
        UserError: it cannot be opened.
    """
    from metatrain.commands.runtime import open_graph

    notes: list[str] = []
    model: FinetunedModel | None = open_graph(folder, config.runtime, config.hardware, notes)
    for note in notes:
        print(note, file=sys.stderr)
    if model is None:
        from metatrain.models.finetuned import load_finetuned
        from metatrain.run import hardware

        model = load_finetuned(folder, hardware.apply(config.hardware)[0])
    return Predictor(model, config.top, config.threshold, _limits(config, folder, model))


def _limits(config: PredictConfig, folder: Path, model: FinetunedModel) -> np.ndarray | None:
    """Return the limits of the prediction sets; None: there are none. Raises: UserError: the model has no sets of this coverage."""
    from metatrain.errors import UserError
    from metatrain.models.finetuned_folder import read_facts
    from metatrain.models.prediction_sets import limits
    from metatrain.models.targets import OneLabel

    if config.coverage is None:
        return None
    if model.labels is None or not isinstance(model.target, OneLabel):
        raise UserError(f"coverage={config.coverage}: prediction sets are for models that predict one label per text; leave it out")
    return limits(f"model={config.model.path}", read_facts(folder).get("prediction_sets"), model.labels, config.coverage)


def _predict_rows(config: PredictConfig, folder: Path, column: str, pair: str | None) -> None:
    """Print or write the predictions for the rows of a file or a pipe; column, pair: columns of the texts."""
    from metatrain.commands.prediction_files import output_for, write_predictions
    from metatrain.tasks.files import Columns
    from metatrain.tracking.console import Display

    assert config.data is not None  # `start` has taken a single text
    source = _source(config.data, Columns(column, pair=pair), {} if config.column else {"text": "column"})
    read = [*source.files, *(each for each in folder.glob("**/*") if each.is_file())]
    output = None if config.output is None else output_for(config.output, read, source.rows)
    predictor = _predictor(config, folder)
    unread = Unread()
    with Display(quiet=config.data == _PIPE or (output is None and sys.stdout.isatty()), stderr=True) as display:
        display.start("predicting", source.rows, brief=True)
        predictions = unread.counted(predictor.all_predicted(source.parts, lambda rows: display.advance(by=rows)))
        if output is None:
            for each in predictions:
                print(each.line(source.fields), end="", flush=config.data == _PIPE)  # whose other end may wait for the answer
        else:
            number = write_predictions(output, source.fields, source.table, predictions, predictor.separator)
    if output is not None:
        print(f"{number} predictions: {output}")
    for note in unread.notes(config.threshold):
        print(note, file=sys.stderr)


def _check_choice(top: int | None, threshold: float | None) -> None:
    """Raises: UserError: one of the settings is out of its range."""
    from metatrain.errors import UserError

    if top is not None and top < 1:
        raise UserError(f"top={top} must be 1 or more")
    if threshold is not None and not 0 < threshold <= 1:
        raise UserError(f"threshold={threshold} must be above 0 and at most 1; it is compared with the probability of the label")


@dataclass(frozen=True)
class Source:
    """Source of the rows to predict."""

    parts: Iterable[Sequence[Unlabelled]] = ()
    files: Sequence[Path | int] = ()  # that are read, paths or descriptors
    table: Path | None = None  # a file of rows
    fields: Sequence[str] = ()  # names of its columns
    rows: int = 0  # of all; 0: nobody knows


def _source(data: str, columns: Columns, guessed: Mapping[str, str]) -> Source:
    """Return the rows to predict; guessed: as of `found_columns`.

    Raises:
        UserError: the file cannot be read, or no row of it can.
    """
    from metatrain.errors import UserError
    from metatrain.paths import local_path
    from metatrain.tasks.columns import found_columns
    from metatrain.tasks.sources import images_in
    from metatrain.tasks.text_files import text_files
    from metatrain.tasks.texts import path_of
    from metatrain.tasks.unlabelled import Unlabelled, file_rows, folder_rows, piped_rows, survey

    if data == _PIPE:
        descriptors = []
        with suppress(UnsupportedOperation):  # of a program that has put something else in its place
            descriptors.append(sys.stdin.fileno())
        return Source(piped_rows(cast("BufferedReader", sys.stdin.buffer)), descriptors)
    path = local_path(data)
    if images := images_in(path):
        return Source(_parts(map(Unlabelled, images)), [Path(path_of(each)) for each in images], rows=len(images))
    if path.is_dir():
        if not (files := text_files(path)):
            raise UserError(f"data={data}: no images and no text files (.txt) in this folder; hidden files do not count")
        return Source(_parts(folder_rows(path)), [path / file for file in files], fields=("file", "text"), rows=len(files))
    columns, notes = found_columns(path, columns, guessed)
    found = survey(path, columns)
    for note in (*notes, *found.notes):
        print(note, file=sys.stderr)
    return Source(_parts(file_rows(path, columns, [])), [path], path, found.fields, found.rows)


@dataclass
class Unread:
    """Rows without a label."""

    rows: int = 0  # with and without
    number: int = 0  # that cannot be read
    first: str = ""
    unsure: int = 0  # with a probability below the threshold

    def counted(self, predictions: Iterable[Predicted]) -> Iterator[Predicted]:
        """The same, counted as they pass."""
        for each in predictions:
            self.rows += 1
            self.unsure += each.doubt is not None
            if each.row.problem is not None:
                self.number, self.first = self.number + 1, self.first or each.row.problem
            yield each

    def notes(self, threshold: float | None) -> Iterator[str]:
        """Yield a line for each reason."""
        if self.number:
            yield f"warning: {self.number} of {self.rows} rows cannot be read and have no prediction; the first: {self.first}"
        if self.unsure:
            yield f"{self.unsure} of {self.rows} rows have no label: the highest probability is below threshold={threshold}"


def _parts(rows: Iterable[Unlabelled]) -> Iterator[list[Unlabelled]]:
    waiting = iter(rows)
    while part := list(itertools.islice(waiting, _AT_A_TIME)):
        yield part


class Predictor:
    """A finetuned model, and how its predictions are presented."""

    def __init__(self, model: FinetunedModel, top: int | None = None, threshold: float | None = None, limits: np.ndarray | None = None):
        """top, threshold: as of `metatrain predict`; limits: of prediction sets, [labels]; None: there are no sets.

        Raises:
            UserError: they are not for this model.
        """
        from metatrain.commands.answers import answers_of

        self._presented = answers_of(model, top, threshold, limits)
        self.separator = self._presented.separator

    def shown(self, text: str) -> str:
        """The prediction for a text, as lines."""
        return self._presented.shown(text)

    def all_predicted(self, parts: Iterable[Sequence[Unlabelled]], on_progress: Callable[[int], None]) -> Iterator[Predicted]:
        """Yield the predictions for rows, in order.

        Raises:
            UserError: the model can read none of the rows of a part.
        """
        for part in parts:
            yield from self._predicted(part)
            on_progress(len(part))

    def _predicted(self, rows: Sequence[Unlabelled]) -> Iterator[Predicted]:
        from metatrain.commands.prediction_files import Predicted

        rows, answers = self._answered(rows)
        left = iter(answers)
        for row in rows:
            yield Predicted(row, self._presented.empty()) if row.problem is not None else Predicted(row, *next(left))

    def _answered(self, rows: Sequence[Unlabelled]) -> tuple[Sequence[Unlabelled], list[tuple[dict[str, Any], str | None]]]:
        """The rows, those that the model cannot read with their problem (an image file that is none, say), and answers for the others."""
        from metatrain.errors import UserError

        texts = [row.text for row in rows if row.problem is None]
        if not texts:
            return rows, []
        try:
            return rows, self._presented.rows(texts)
        except UserError as error:
            if len(texts) == 1:
                raise
            first = error
        found, answers = [], []
        for row in rows:
            try:
                answers += [] if row.problem is not None else self._presented.rows([row.text])
            except UserError as error:
                row = replace(row, problem=str(error))
            found.append(row)
        if not answers:
            raise first
        return found, answers
