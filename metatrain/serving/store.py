"""The tasks of a server: in memory, and one file each in a folder, which `metatrain.load(FOLDER)` reads too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
from filelock import FileLock, Timeout

from metatrain.api import FewShotModel, Task
from metatrain.errors import UserError
from metatrain.inputs import Text
from metatrain.run.atomic import flush

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of a task: its file is NAME.safetensors, also on file systems that ignore case
_SUFFIX, _KEY, _LOCK = ".safetensors", "metatrain_examples", ".lock"

Example = tuple[Text, str]  # text and label


@dataclass(frozen=True)
class Stored:
    """A task with what it was learned from."""

    task: Task
    examples: tuple[Example, ...]
    none_of_these: float | None  # fraction of in-scope texts that may be taken for out of scope; None: every text has a label

    def metadata(self) -> str:
        """Return what the file of the task says besides the task itself."""
        return json.dumps({"format": 1, "none_of_these": self.none_of_these, "examples": self.examples}, ensure_ascii=False)


class TaskStore(Mapping[str, Stored]):
    """Tasks by name. Every change is on the disk before it can be seen; changes are made by one thread."""

    def __init__(self, model: FewShotModel, folder: Path, max_tasks: int):
        """Open a folder and read its tasks.

        Raises:
            UserError: another process serves the folder, or a file in it is not a task of this model.
        """
        self._model, self._folder, self._max = model, folder, max_tasks
        self._lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise UserError(f"folder={folder} is served by another process; stop it, or choose another folder") from error
        for path in folder.glob(f".*{_SUFFIX}.tmp"):  # of a process that was killed while it wrote
            path.unlink()
        self._tasks = {path.stem: self._read(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))}

    def __getitem__(self, name: str) -> Stored:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def close(self) -> None:
        """Let another process serve the folder."""
        self._lock.release()

    def put(self, name: str, examples: Sequence[Example], none_of_these: float | None) -> Stored:
        """Learn a task from examples, and write it; one of this name is replaced.

        Raises:
            UserError: there are too many tasks, or the examples cannot be learned from.
        """
        if name not in self._tasks and len(self._tasks) >= self._max:
            raise UserError(f"there are {len(self._tasks)} tasks, which is the limit (max_tasks={self._max}); remove some")
        stored = Stored(self._model.adapt(examples, none_of_these), tuple(examples), none_of_these)
        stored.task.save(self._path(name), {_KEY: stored.metadata()})
        flush(self._folder)
        self._tasks[name] = stored
        return stored

    def add(self, name: str, examples: Iterable[Example]) -> Stored:
        """Learn a task again, with further examples.

        Raises:
            KeyError: there is no such task.
            UserError: as `put`.
        """
        before = self._tasks[name]
        return self.put(name, [*before.examples, *examples], before.none_of_these)

    def remove(self, name: str) -> None:
        """Remove a task and its file.

        Raises:
            KeyError: there is no such task.
        """
        if name not in self._tasks:
            raise KeyError(name)
        self._path(name).unlink()
        flush(self._folder)
        del self._tasks[name]

    def _path(self, name: str) -> Path:
        assert NAME.fullmatch(name)  # the routes accept no other names
        return self._folder / f"{name}{_SUFFIX}"

    def _read(self, path: Path) -> Stored:
        if not NAME.fullmatch(path.stem):
            raise UserError(f"{path}: the name of a task has lower-case letters, digits, - and _, at most 64; rename the file")
        task = self._model.load_task(path)
        with safetensors.safe_open(str(path), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        examples = tuple((tuple(text) if isinstance(text, list) else text, label) for text, label in facts.get("examples", ()))
        return Stored(task, examples, facts.get("none_of_these"))
