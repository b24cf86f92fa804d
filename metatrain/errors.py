"""Failures that are not bugs, and their exit codes."""

from __future__ import annotations

import errno
import signal

PREEMPTION = signal.SIGUSR1  # what a scheduler sends before it takes the machine away (SLURM: --signal=USR1@60)


class UserError(Exception):
    """The user's input is wrong: one line that names the file:line or config key and the remedy (exit 2)."""

    exit_code = 2


class RestartableError(Exception):
    """The machine is at fault, not the input (disk full, ...): the same command may work later (exit 75)."""

    exit_code = 75


class LostRanks(RestartableError):
    """Other processes of the run are gone, or hang."""


class Stopped(BaseException):
    """A signal asked the run to stop, and its state has been saved (exit 128 + signal number; 75 if it is to be started again).

    Like KeyboardInterrupt no Exception: a signal comes anywhere, and libraries catch those and make others of them.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = RestartableError.exit_code if signal_number == PREEMPTION else 128 + signal_number


def one_line(message: object) -> str:
    """Return a message as one line. Blanks within a line stay: they may be part of a path."""
    return " ".join(filter(None, (line.strip() for line in str(message).splitlines())))


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the operating system, or of a library that only quotes it, says that there is no space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "(os error 28)" in str(error) or "(os error 27)" in str(error)


def of_system(error: OSError) -> UserError | RestartableError | None:
    """What an error of the operating system means to the user; None: it is a bug."""
    if is_disk_full(error):
        return RestartableError(f"the disk is full: {error}; free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"no permission: {error.filename}: {error.strerror}")
    return None
