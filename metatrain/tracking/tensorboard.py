"""TensorBoard, by the writer of torch: event files in the run directory, in addition to the local files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.tracking.weights_and_biases import Attached

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardRun:
    """Event files of a run; does nothing without a folder, in ranks that do not write."""

    def __init__(self, folder: Path | None, done: int = 0):
        """done: meta-updates at which a resumed run begins; TensorBoard drops what an earlier process has written of later ones."""
        self.run_id: str | None = None
        self._writer: SummaryWriter | None = None
        self._step = done
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    @property
    def is_on(self) -> bool:
        """True if records are written."""
        return self._writer is not None

    def log(self, step: int, record: Mapping[str, Any]) -> None:
        """Write the numbers of a record."""
        self._step = step
        if self._writer is not None:
            for name, value in record.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name, value, step)

    def finish(self, summary: Mapping[str, Any], attached: Attached | None = None) -> None:
        """Write the summary as scalars and the tables as text, and close the files."""
        self.log(self._step, summary)
        if self._writer is not None and attached is not None:
            for name, table in attached.tables.items():
                self._writer.add_text(f"tables/{name}", _markdown(table), self._step)
        self.close()

    def close(self) -> None:
        """Write what is buffered, and close the files."""
        if self._writer is not None:
            self._writer.close()


def _markdown(table: Mapping[str, Any]) -> str:
    lines = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Return a value as the text of one cell; a label may have a bar or a line break."""
    return " ".join(str(value).split()).replace("|", "\\|")
