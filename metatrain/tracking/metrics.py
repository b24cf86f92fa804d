"""metrics.jsonl: the complete record of a run, one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class MetricsLog:
    """Appends records; `position` in a checkpoint makes a resumed run continue exactly where the checkpoint was taken.

    Records hold numbers that a resumed run repeats bit for bit; times and memory go to timings.jsonl.
    """

    def __init__(self, path: Path | None, position: int | None = None):
        """path: None: nothing is kept, in a process that is not the first one of its run."""
        self._file: IO[bytes] | None = None
        if path is None:
            return
        self._file = path.open("a+b")
        size = path.stat().st_size
        # Without a position all whole lines stay; one that a crash has cut short would spoil the next.
        self._file.truncate(_whole_lines(self._file, size) if position is None else min(position, size))

    def write(self, **record: Any) -> None:
        """Add a record; a number that is not finite, which JSON has not, becomes null."""
        if self._file is None:
            return
        plain = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()}
        self._file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def position(self) -> int:
        """Bytes so far, all of them on the disk."""
        if self._file is None:
            return 0
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _whole_lines(file: IO[bytes], size: int) -> int:
    """The length of a file of this size without a last line that does not end."""
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
    """All records; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def validation_scores(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """The score of each validation among these records, in order."""
    return [record.get("accuracy", record.get("balanced_accuracy")) for record in records if record.get("split") == "meta_validation"]
