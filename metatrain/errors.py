"""Exceptions that are not bugs, and their exit codes."""

from __future__ import annotations

import errno
import signal

PREEMPTION = signal.SIGUSR1  # sent by a scheduler before it ends the job (SLURM: --signal=USR1@60)


class UserError(Exception):
    """The user's input is wrong: one line that names the file:line or config key and the remedy (exit 2)."""

    exit_code = 2


class RestartableError(Exception):
    """A fault of the machine, not of the input (for example a full disk): the same command may succeed later (exit 75)."""

    exit_code = 75


class LostRanks(RestartableError):
    """Other ranks of the run have ended or do not respond."""


class Stopped(BaseException):
    """The run was stopped by a signal after its state was saved (exit 128 + signal number; 75 after `PREEMPTION`).

    A BaseException like KeyboardInterrupt: a signal can arrive anywhere, and libraries catch and wrap Exceptions.
    """

    def __init__(self, signal_number: int, message: str):
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = RestartableError.exit_code if signal_number == PREEMPTION else 128 + signal_number


def one_line(message: object) -> str:
    """Return a message as one line. Spaces within a line are kept, because they may be part of a path."""
    return " ".join(filter(None, (line.strip() for line in str(message).splitlines())))


def is_disk_full(error: BaseException) -> bool:
    """Return True if an error of the operating system, or of a library that quotes it, means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "(os error 28)" in str(error) or "(os error 27)" in str(error)


def of_system(error: OSError) -> UserError | RestartableError | None:
    """Return the exception that explains an error of the operating system to the user; None: the error is a bug."""
    if is_disk_full(error):
        return RestartableError(f"the disk is full: {error}; free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(f"no permission: {error.filename}: {error.strerror}")
    return None
