"""One thread that runs the model: predictions that wait are computed together, whichever client and task they belong to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from metatrain.api import FewShotModel, Task

_MAX_BATCH = 512  # texts computed together
_MAX_WAITING = 20_000  # texts that may wait

Result = TypeVar("Result")


class Busy(Exception):
    """More texts wait than the server holds."""


@dataclass(frozen=True)
class _Waiting:
    task: Task
    texts: Sequence[str]
    answer: asyncio.Future[np.ndarray]


class Worker:
    """The model's thread, used from one event loop."""

    def __init__(self, model: FewShotModel):
        self._model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._waiting: deque[_Waiting] = deque()
        self._answering: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run something else in the thread of the model, such as an adaptation; return what it returns and raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def scores(self, task: Task, texts: Sequence[str]) -> np.ndarray:
        """Return the label scores of texts, [texts, labels].

        Raises:
            Busy: too many texts wait.
        """
        if sum(len(each.texts) for each in self._waiting) + len(texts) > _MAX_WAITING:
            raise Busy
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(task, texts, answer))
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())
        return await answer

    async def _answer(self) -> None:
        """Answer what waits, batch by batch; while one is computed, the next gathers."""
        while self._waiting:
            batch = [self._waiting.popleft()]
            number = len(batch[0].texts)
            while self._waiting and number + len(self._waiting[0].texts) <= _MAX_BATCH:
                batch.append(self._waiting.popleft())
                number += len(batch[-1].texts)
            requests = [(each.task, each.texts) for each in batch]
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._model.scores, requests)
            await asyncio.wait([done])
            error = done.exception()
            for place, each in enumerate(batch):
                if each.answer.cancelled():  # the client has gone
                    continue
                if error is None:
                    each.answer.set_result(done.result()[place])
                else:
                    each.answer.set_exception(error)

    def stop(self) -> None:
        """Wait for the work in progress and end the thread."""
        self._thread.shutdown()
