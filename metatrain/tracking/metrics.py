"""metrics.jsonl: the complete record of a run, one JSON object per line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class MetricsLog:
    """Append-only log. A checkpoint stores its `position`, so that a resumed run continues exactly after the records of the checkpoint.

    Records hold only numbers that are bit-identical in a resumed run; time and memory are logged to timings.jsonl.
    """

    def __init__(self, path: Path | None, position: int | None = None):
        """path: None: write nothing, for ranks other than 0."""
        self._file: IO[bytes] | None = None
        if path is None:
            return
        self._file = path.open("a+b")
        size = path.stat().st_size
        # Without a position, all complete lines stay; appending to a line truncated by a crash would corrupt the next record.
        self._file.truncate(_whole_lines(self._file, size) if position is None else min(position, size))

    def write(self, **record: Any) -> None:
        """Append a record; non-finite numbers, which JSON cannot represent, become null."""
        if self._file is None:
            return
        plain = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()}
        self._file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Return the length of the file in bytes, after flushing it to disk."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _whole_lines(file: IO[bytes], size: int) -> int:
    """Return the length of a file of this size without an incomplete last line."""
    end = size
    while end > 0:
        begin = max(0, end - 4096)
        file.seek(begin)
        place = file.read(end - begin).rfind(b"\n")
        if place >= 0:
            return begin + place + 1
        end = begin
    return 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return all records; a last line truncated by a crash is ignored."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def validation_scores(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the validation scores among these records, in order."""
    return [record.get("accuracy", record.get("balanced_accuracy")) for record in records if record.get("split") == "meta_validation"]
