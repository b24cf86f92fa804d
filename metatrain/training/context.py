"""Where a training process runs: its directory, its output, and the signals and ranks it listens to."""

from __future__ import annotations

from dataclasses import dataclass

from metatrain.run.directory import RunDirectory
from metatrain.run.ranks import Ranks
from metatrain.run.signals import StopRequest
from metatrain.tracking.console import Display


@dataclass(frozen=True)
class RunContext:
    """What surrounds the outer loop, whatever it trains."""

    run: RunDirectory
    display: Display
    stop: StopRequest
    ranks: Ranks
