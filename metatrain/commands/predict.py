"""`metatrain predict`: labels or answers for one text, or for every text of a file or a pipe."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import PredictConfig

if TYPE_CHECKING:
    from io import BufferedReader

    from metatrain.models.export import Classifier
    from metatrain.models.writer import Writer

_AT_A_TIME = 5000  # texts of a file
_PIPE = "-"  # data=-: standard input


USAGE = """\
usage: metatrain predict model=DIR|latest text="..."|data=FILE|data=- [output=FILE]

Labels a text, the texts of a file, the lines of standard input as they come, a picture or a folder of them, with what `metatrain finetune` wrote.

examples:
  metatrain predict model=latest text="The strap broke on the first day."
  metatrain predict model=latest data=texts.csv output=labels.jsonl
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
    from metatrain.errors import UserError
    from metatrain.models.export import Classifier, read_facts
    from metatrain.models.folders import model_folder
    from metatrain.models.writer import TASK, Writer
    from metatrain.tasks.files import Columns, local_path, piped_texts, read_file
    from metatrain.tasks.sources import pictures_in
    from metatrain.tasks.texts import has_lone_surrogate, plain
    from metatrain.training import hardware
    from metatrain.training.run_directory import RunDirectory
    from metatrain.training.whole_files import place_for, write_lines

    if (config.text is None) == (config.data is None):
        raise UserError('give either text="..." or data=FILE')
    if config.text is not None and has_lone_surrogate(config.text):
        raise UserError(f"text={ascii(config.text)} is not valid UTF-8, or has half a character (a lone surrogate)")
    output = None if config.output is None else place_for("output", config.output)
    name = config.model.path
    folder = model_folder(RunDirectory.find(name, "finetune").path if name == "latest" else Path(name).expanduser())
    columns = read_facts(folder).get("columns", {})
    column, pair = config.column or columns.get("text", "text"), config.pair or columns.get("pair")
    if pair is not None and (config.text is not None or config.data == _PIPE):
        raise UserError(f"pair={pair}: this model reads two texts, and here is one; put pairs into a file, with the columns {column} and {pair}")
    parts: Iterable[Sequence[str]] = ()
    if config.data == _PIPE:
        parts = piped_texts(cast("BufferedReader", sys.stdin.buffer))
    elif config.data is not None:
        data = local_path(config.data)
        pictures = pictures_in(data)
        table = None if pictures else read_file(data, Columns(column, pair=pair))
        for note in table.notes if table else ():
            print(note, file=sys.stderr)
        parts = _parts(table.texts if table else pictures)
    device, _, _ = hardware.apply(config.hardware)
    model = Writer(folder, device) if (folder / TASK).is_file() else Classifier(folder, device)
    if config.text is not None:
        print(_shown(model, [plain(config.text)]))
        return
    lines = _lines(model, parts)
    if output is None:
        for line in lines:
            print(line, end="", flush=config.data == _PIPE)  # whose other end may wait for the answer
    else:
        number = write_lines(output, lines)
        print(f"{number} predictions: {output}")


def _shown(model: Classifier | Writer, texts: Sequence[str]) -> str:
    """The labels of the one text, the most probable first, or the answer to it."""
    from metatrain.models.export import NONE, is_none

    if model.labels is None:
        return model.answers(texts)[0]
    scores = model.scores(texts)
    ranked = sorted(zip(scores[0].softmax(0).tolist(), model.labels), reverse=True)
    none = [NONE] if is_none(scores, model.threshold) else []
    return "\n".join([*none, *(f"{label}\t{value:.4f}" for value, label in ranked)])


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(texts)
    while part := list(itertools.islice(waiting, _AT_A_TIME)):
        yield part


def _lines(model: Classifier | Writer, parts: Iterable[Sequence[str]]) -> Iterator[str]:
    """A JSON line per text."""
    from metatrain.models.export import NONE, is_none
    from metatrain.tasks.texts import PAIR, is_picture, path_of

    for part in filter(None, parts):
        if model.labels is None:
            answers = [{"answer": answer} for answer in model.answers(part)]
        else:
            scores = model.scores(part)
            best = scores.softmax(1).max(1)
            answers = [
                {"label": NONE if unlike else model.labels[one], "probability": round(value, 6)}
                for unlike, one, value in zip(is_none(scores, model.threshold).tolist(), best.indices.tolist(), best.values.tolist())
            ]
        for text, answer in zip(part, answers):
            given = {"picture": path_of(text)} if is_picture(text) else dict(zip(("text", "pair"), text.split(PAIR)))
            yield json.dumps({**given, **answer}, ensure_ascii=False) + "\n"
