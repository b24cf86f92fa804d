"""The processes of one run (ranks): rendezvous and communication.

The model is not wrapped (no DDP or FSDP): each rank has all parameters, computes the meta-gradients of its share of the episodes, and
makes the same meta-update. Small values are exchanged as JSON, never as pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from metatrain.config.compose import RUN_ID, run_id
from metatrain.errors import LostRanks, RestartableError, UserError
from metatrain.run.config import HardwareConfig
from metatrain.run.rank_environment import STORE, number_of_ranks

_START = timedelta(minutes=5)  # timeout of the rendezvous
_AT_ONCE = 1 << 24  # maximum numbers per exchange, which bounds the size of its buffers


@dataclass
class Ranks:
    """Rank of this process, and communication with the other ranks of the run. Only rank 0 writes files."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # rank among the processes of this machine
    local_size: int = 1
    group: Any = field(default=None, repr=False)
    waited: float = 0.0  # seconds spent waiting for and communicating with other ranks, since the last reset

    @property
    def first(self) -> bool:
        return self.rank == 0

    def highest(self, number: int) -> int:
        """Return the maximum of all ranks' numbers."""
        if self.size == 1:
            return number
        found = torch.tensor(number, dtype=torch.int64)
        with self._exchange():
            dist.all_reduce(found, dist.ReduceOp.MAX, self.group)
        return int(found)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in order; each value must be JSON-serialisable."""
        if self.size == 1:
            return [value]
        written = torch.from_numpy(np.frombuffer(json.dumps(value).encode(), dtype=np.uint8).copy())
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(written)
        with self._exchange():
            dist.all_reduce(lengths, group=self.group)
            longest = int(lengths.max())
            mine = torch.cat([written, torch.zeros(longest - len(written), dtype=torch.uint8)])
            everyone = [torch.empty_like(mine) for _ in range(self.size)]
            dist.all_gather(everyone, mine, self.group)
        return [json.loads(part[:length].numpy().tobytes()) for part, length in zip(everyone, lengths.tolist())]

    def wait(self) -> None:
        """Wait until all ranks have reached this point (barrier)."""
        self.highest(0)

    def check_same(self, parameters: Mapping[str, Tensor], when: str) -> None:
        """Raises: RestartableError: the ranks do not have the same parameters, bit for bit."""
        if self.size == 1:
            return
        found = self.gather(_digest(parameters))
        if len(set(found)) > 1:
            others = [rank for rank, digest in enumerate(found) if digest != found[0]]
            raise RestartableError(
                f"rank {others[0]} and rank 0 have different parameters {when}, so nothing more is saved; use machines with the same CPUs and library versions"
            )

    def add_slices(self, own: Tensor, numbers: Tensor, adding: int) -> None:
        """Add this rank's slice of the numbers [size * len(own)] of each of the first `adding` ranks to `own`, in the order of the ranks."""
        table, length = numbers.view(self.size, len(own)), max(1, _AT_ONCE // self.size)
        with self._exchange():
            for begin in range(0, len(own), length):
                sent = table[:, begin : begin + length].contiguous()
                got = torch.empty_like(sent)
                dist.all_to_all_single(got, sent, group=self.group)
                for part in got[:adding]:
                    own[begin : begin + length].add_(part)

    def join_slices(self, own: Tensor) -> Tensor:
        """Return the concatenated slices of all ranks."""
        everything = own.new_empty(self.size * len(own))
        with self._exchange():
            dist.all_gather(list(everything.split(len(own))), own, self.group)
        return everything

    def add_up(self, numbers: Tensor) -> None:
        """Sum over all ranks in place (all-reduce); the order of summation is not fixed."""
        if self.size > 1:
            with self._exchange():
                dist.all_reduce(numbers, group=self.group)

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        except RuntimeError as error:  # torch has no specific exception class
            raise LostRanks(f"rank {self.rank} of {self.size} lost the connection to the others, one of which has died or hangs: {_short(error)}") from error
        self.waited += time.monotonic() - begin


def join(config: HardwareConfig) -> Ranks:
    """Find the other ranks of this run, if there are any.

    Raises:
        UserError: a setting is invalid.
        RestartableError: the other ranks do not connect in time.
    """
    if config.reduce not in ("ordered", "fast"):
        raise UserError(f"hardware.reduce={config.reduce} is unknown; choose ordered or fast")
    if not 0 < config.timeout < float("inf"):
        raise UserError(f"hardware.timeout={config.timeout} must be a positive number of seconds")
    if number_of_ranks() == 1:
        return Ranks()
    _meet()
    # A separate group, because the timeout at the start is longer.
    group = dist.new_group(timeout=timedelta(seconds=config.timeout))
    local = [int(os.environ.get(name, default)) for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))]
    return Ranks(dist.get_rank(), dist.get_world_size(), local[0], local[1], group)


def share_run_id() -> None:
    """Use the same run id in all ranks that torchrun has started."""
    _meet()
    shared = Ranks(dist.get_rank(), dist.get_world_size()).gather(run_id())
    os.environ[RUN_ID] = shared[0]


def _meet() -> None:
    if dist.is_initialized():
        return
    store, rank, size = os.environ.get(STORE), int(os.environ["RANK"]), number_of_ranks()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", f"file://{store}" if store else None, _START, size, rank)
    except (RuntimeError, ValueError) as error:
        raise RestartableError(f"the ranks of this run could not connect: {_short(error)}") from error


def _digest(parameters: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for value in parameters.values():
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _short(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200]
