"""Context of a training process: run directory, output, signals and ranks."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from metatrain.errors import Stopped
from metatrain.run.directory import RunDirectory
from metatrain.run.hints import resume_command
from metatrain.run.ranks import Ranks
from metatrain.run.signals import StopRequest
from metatrain.tracking.console import Display


class StopNow(Exception):
    """A stop request was seen between two episodes."""


@dataclass(frozen=True)
class RunContext:
    """Environment of the outer loop, independent of the model."""

    run: RunDirectory
    display: Display
    stop: StopRequest
    ranks: Ranks

    def give_way(self, done: int = 0) -> None:
        """Raise `StopNow` if a rank has received a stop request; called between episodes, by all ranks."""
        if self.stop_requested():
            raise StopNow

    def stop_requested(self) -> bool:
        """Return whether a rank has received a stop request. All ranks have to call it."""
        found = self.ranks.highest(self.stop.signal_number or 0)
        if found:  # a signal that arrived during the exchange is kept for the next call
            self.stop.signal_number = found
        return found > 0

    def stopped(self, step: int) -> Stopped:
        """Return the exception with which a run ends that was stopped and saved."""
        return Stopped(self.stop.signal_number or signal.SIGTERM, f"stopped at step {step}; resume with: {resume_command(self.run.path)}")
