"""Run a training job in one process or in several processes of this machine.

Several processes are started as `python -m metatrain.commands.workers FOLDER`, where FOLDER holds the job and receives the outcome of each
process. Signals are forwarded to them; when one fails, the others are terminated.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from metatrain.cli import stop_on_signals
from metatrain.commands.job import Job
from metatrain.errors import PREEMPTION, LostRanks, RestartableError, Stopped, UserError, of_system
from metatrain.run.atomic import write_json
from metatrain.run.hints import resume_command
from metatrain.run.rank_environment import environment, number_of_ranks

_GRACE = 3.0  # seconds that the others have to end by themselves after a process has failed
_POLL_EVERY = 0.05  # seconds
_SIGNALS = (signal.SIGTERM, signal.SIGINT, PREEMPTION)


def run_job(job: Job) -> None:
    """Run a job in this process, or in `hardware.processes` processes unless torchrun has started several."""
    if job.config.hardware.processes == 1 or number_of_ranks() > 1:
        from metatrain.commands.meta_train import meta_train  # needs torch, which a launcher does not load

        meta_train(job)
    else:
        run_in_processes(job)


def run_in_processes(job: Job, should_end: Callable[[], bool] = lambda: False, quiet: bool = False) -> None:
    """Run a job in `hardware.processes` processes.

    should_end: polled; when it returns True, the run is stopped as by SIGTERM. quiet: discard the output.

    Raises:
        UserError, RestartableError, Stopped: raised in one of the processes.
        SystemExit: a bug in one of the processes; its traceback is printed.
    """
    size = job.config.hardware.processes
    if size < 1:
        raise UserError(f"hardware.processes={size} must be 1 or more")
    with tempfile.TemporaryDirectory(prefix="metatrain-") as name:
        folder = Path(name)
        write_json(folder / "job.json", job.to_json())
        processes = [_start(folder, rank, size, quiet) for rank in range(size)]
        try:
            with _ForwardedSignals(processes):
                _watch(processes, should_end)
        finally:
            silent = _end(processes)
        _raise(job, [_ending(folder, rank, process.returncode, rank in silent) for rank, process in enumerate(processes)])


def _start(folder: Path, rank: int, size: int, quiet: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "metatrain.commands.workers", str(folder)]
    with ExitStack() as files:
        output = None if rank == 0 and not quiet else files.enter_context(_output(folder, rank).open("wb"))
        # In a session of its own, so that it receives Ctrl-C once, forwarded from here. Its standard input ends when this process does.
        return subprocess.Popen(command, env=environment(folder, rank, size), stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True)


def _output(folder: Path, rank: int) -> Path:
    return folder / f"output-{rank}"


class _ForwardedSignals:
    """Context manager that forwards signals to the processes."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]):
        self._processes = processes
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _ForwardedSignals:
        self._previous = {number: signal.signal(number, self._forward) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        for process in self._processes:
            process.send_signal(number)


def _watch(processes: list[subprocess.Popen[bytes]], should_end: Callable[[], bool]) -> None:
    """Wait until all processes have ended, or until `_GRACE` seconds after one has failed."""
    expected = {None, 0, *(128 + number for number in _SIGNALS)}
    since, ending = None, False
    while None in (codes := [process.poll() for process in processes]):
        if since is None and not expected.issuperset(codes):
            since = time.monotonic()
        if since is not None and time.monotonic() - since > _GRACE:
            return
        if not ending and should_end():
            ending = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(_POLL_EVERY)


def _end(processes: list[subprocess.Popen[bytes]]) -> set[int]:
    """Kill the processes that are still alive, suspended ones included; return their ranks."""
    silent = {rank for rank, process in enumerate(processes) if process.poll() is None}
    for rank in silent:
        processes[rank].kill()
    for process in processes:
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
    return silent


def _ending(folder: Path, rank: int, code: int, silent: bool) -> dict[str, Any]:
    """Return the outcome of a process: the file that it wrote, or what its exit code implies."""
    path = folder / f"ending-{rank}.json"
    if path.exists():
        return json.loads(path.read_text())
    if -code in _SIGNALS:
        return {"kind": "stopped", "message": "stopped before there was anything to save", "signal": -code}
    output = _output(folder, rank)
    kind = "done" if code == 0 else "silent" if silent else "killed"
    return {"kind": kind, "code": code, "output": output.read_text(errors="replace") if output.exists() else ""}


def _raise(job: Job, endings: list[dict[str, Any]]) -> None:
    """Raise the error of the run: the most informative one of its processes."""
    for kind in ("bug", "wrong", "stopped", "killed", "restartable", "silent", "lost"):
        for rank, ending in enumerate(endings):
            if ending["kind"] == kind:
                _raise_one(job, f"process {rank} of {len(endings)}", ending)


def _raise_one(job: Job, who: str, ending: dict[str, Any]) -> None:
    kind, message, remedy = ending["kind"], ending.get("message", ""), f"resume with: {resume_command(job.path)}"
    if kind == "bug":
        print(message, file=sys.stderr)
        raise SystemExit(1)
    if kind == "wrong":
        raise UserError(message)
    if kind == "stopped":
        raise Stopped(ending["signal"], message)
    if kind == "killed":
        print(ending["output"], end="", file=sys.stderr)
        code = ending["code"]
        raise RestartableError(f"{who} {f'was killed by signal {-code}' if code < 0 else f'ended with exit code {code}'}; {remedy}")
    if kind == "silent":
        raise RestartableError(f"{who} did not respond and was terminated; {remedy}")
    raise RestartableError(message if kind == "restartable" else f"{message}; {remedy}")


def main(arguments: list[str]) -> None:
    """Entry point of one of the processes."""
    from metatrain.commands.meta_train import meta_train

    stop_on_signals()
    folder, rank = Path(arguments[0]), int(os.environ["RANK"])
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    job = Job.from_json(json.loads((folder / "job.json").read_text()))
    ending: dict[str, Any] = {"kind": "done"}
    code = 0
    try:
        try:
            meta_train(job)
        except OSError as error:
            raise of_system(error) or error from error
    except (UserError, RestartableError) as error:
        kind = "wrong" if isinstance(error, UserError) else "lost" if isinstance(error, LostRanks) else "restartable"
        ending, code = {"kind": kind, "message": str(error)}, error.exit_code
    except Stopped as stop:
        ending, code = {"kind": "stopped", "message": str(stop), "signal": stop.signal_number}, 128 + stop.signal_number
    except KeyboardInterrupt:
        ending, code = {"kind": "stopped", "message": "interrupted before there was anything to save", "signal": signal.SIGINT}, 130
    except Exception:  # noqa: BLE001  the parent prints the traceback
        ending, code = {"kind": "bug", "message": traceback.format_exc()}, 1
    if folder.exists():
        write_json(folder / f"ending-{rank}.json", ending)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of torch.distributed may wait for a rank that has died


def _stop_with_parent() -> None:
    """Stop this process, as by SIGTERM, when its parent has ended."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
