"""Parts that `metatrain check` and `metatrain suggest` share: rows with all their columns, a head on frozen encodings, the output file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metatrain.checkpoints.finetuning import open_for
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.commands.prediction_files import REASON, Predicted, output_for, write_predictions
from metatrain.config.schema import AlgorithmOverrides, DataConfig, FinetuneConfig, FinetuneInner, InnerOverrides, Overrides
from metatrain.errors import UserError
from metatrain.meta.learner import Learner
from metatrain.paths import local_path
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.columns import found_columns
from metatrain.tasks.episodes import given_episode
from metatrain.tasks.files import Columns, Table
from metatrain.tasks.labelled import read_labelled
from metatrain.tasks.text_files import TEXT_FILE
from metatrain.tasks.texts import is_image
from metatrain.tasks.unlabelled import Unlabelled, file_rows, folder_rows, survey
from metatrain.training.memory_limit import fit_adaptation

_FROZEN = Overrides(AlgorithmOverrides(adapt="head"), InnerOverrides(fit_head=True))


def read_labelled_texts(name: str, setting: str, columns: Columns, guessed: Mapping[str, str], say: Callable[[str], None]) -> tuple[Table, Columns]:
    """Read labelled texts, and report remarks about them; guessed: as of `read_labelled`.

    Raises:
        UserError: the file or folder cannot be read, holds images, or has fewer than two classes.
    """
    table, columns = read_labelled(local_path(name), setting, columns, guessed)
    if is_image(table.texts[0]):
        raise UserError(f"{setting}={name} is a folder of images; this command reads texts")
    for note in table.notes:
        say(note)
    if len(classes := set(table.labels)) < 2:
        raise UserError(f"{table.source}: only one class ({classes.pop()!r}); a classifier needs examples of at least two")
    return table, columns


def rows_of_table(table: Table, columns: Columns) -> list[Unlabelled]:
    """Return the rows of a table with all their columns, in order."""
    path = Path(table.source)
    if path.is_dir():
        return [Unlabelled(row.text, row.problem, {**row.fields, "label": label}) for row, label in zip(folder_rows(path), table.labels)]
    return list(file_rows(path, Columns(columns.text, pair=columns.pair), []))


def read_unlabelled(name: str, columns: Columns, guessed: Mapping[str, str], say: Callable[[str], None], setting: str = "data") -> list[Unlabelled]:
    """Read texts without labels, which `setting` names; a row that cannot be read has its problem. guessed: as of `found_columns`.

    Raises:
        UserError: the file or folder cannot be read, or has no text.
    """
    path = local_path(name)
    if path.is_dir():
        rows = list(folder_rows(path))
        if not rows:
            raise UserError(f"{setting}={name}: no text files ({TEXT_FILE}) in this folder; hidden files do not count")
    else:
        columns, notes = found_columns(path, columns, guessed)
        for note in (*notes, *survey(path, columns).notes):
            say(note)
        rows = list(file_rows(path, columns, []))
    if unread := sum(row.problem is not None for row in rows):
        say(f"warning: {unread} of {len(rows)} rows cannot be read; the first: {next(row.problem for row in rows if row.problem is not None)}")
    return rows


def open_encoder(checkpoint: str, hardware_settings: HardwareConfig, say: Callable[[str], None]) -> Learner:
    """Open a checkpoint for its encodings. Raises: UserError: it cannot be opened, or has none."""
    device, dtype, _ = hardware.apply(hardware_settings)
    learner = open_checkpoint(checkpoint, _FROZEN, device, dtype, say).learner
    if learner.encodings is None:
        raise UserError(f"checkpoint={checkpoint} has no encodings of texts; give an encoder, checkpoint=minilm for example")
    return learner.with_plan(fit_adaptation(hardware_settings, learner, device))


def open_head(checkpoint: str, table: Table, hardware_settings: HardwareConfig, seed: int, say: Callable[[str], None]) -> Learner:
    """Open a checkpoint as a learner that fits a head to frozen encodings, for the labels of a table.

    Raises:
        UserError: it cannot be opened, or has no encodings.
    """
    config = FinetuneConfig(
        checkpoint=checkpoint,
        seed=seed,
        data=DataConfig(train=table.source),
        algorithm=_FROZEN.algorithm,
        inner=FinetuneInner(fit_head=True),
        hardware=hardware_settings,
    )
    learner = open_for(config, given_episode(table.texts, table.labels, len(table.texts)).task, False, say)
    if learner.encodings is None:
        raise UserError(f"checkpoint={checkpoint} has no encodings of texts; give an encoder, checkpoint=minilm for example")
    return learner


def new_output(name: str | None, default: str, inputs: Sequence[str | None], rows: int) -> Path:
    """Return the output file; without a name, the default, which may hold a person's work and is never replaced.

    Raises:
        UserError: the default exists, or no file can be there.
    """
    if name is None and Path(default).exists():
        raise UserError(f"{default} exists, and may hold your corrections; name the new file with output=FILE")
    files = [path for each in inputs if each is not None and (path := local_path(each)).is_file()]
    return output_for(default if name is None else name, files, rows)


def write_rows(path: Path, rows: Sequence[Unlabelled], added: Sequence[Mapping[str, Any]], reasons: Sequence[str | None]) -> None:
    """Write rows with their columns, those added and the reason; columns that an earlier call has added are replaced."""
    fields = dict.fromkeys(name for row in rows for name in row.fields)
    own = {*added[0], REASON}
    if own <= fields.keys():
        rows = [Unlabelled(row.text, row.problem, {name: value for name, value in row.fields.items() if name not in own}) for row in rows]
        fields = {name: None for name in fields if name not in own}
    write_predictions(path, list(fields), None, (Predicted(row, columns, reason) for row, columns, reason in zip(rows, added, reasons)))
