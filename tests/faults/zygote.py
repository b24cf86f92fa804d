"""A process that has imported everything, and forks a `metatrain` for each line it is given: a start costs no imports.

A line is {"arguments": [...], "folder": DIR, "output": FILE, "failpoints": "...", "naive": bool, "powerless": bool}; the answers are the child's process
number and, once it has ended, its exit code (negative: the signal that ended it).
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import BinaryIO

os.environ.setdefault("METATRAIN_FAILPOINTS", "")  # so that they are there, without any fault

import torch  # noqa: E402

import metatrain.commands.evaluate  # noqa: E402, F401
import metatrain.commands.resume  # noqa: E402, F401
import metatrain.commands.train  # noqa: E402, F401
from metatrain import cli  # noqa: E402
from metatrain.checkpoints import opening, saving  # noqa: E402, F401
from metatrain.commands import meta_test, meta_train, workers  # noqa: E402, F401
from metatrain.evaluation import arms  # noqa: E402, F401
from metatrain.run import failpoints
from metatrain.run.rank_environment import environment  # noqa: E402
from metatrain.tracking import console  # noqa: E402, F401
from metatrain.training import trainer  # noqa: E402, F401

torch.set_num_threads(1)


def give_up_capabilities() -> None:
    """A superuser without them is held to the permissions of files, as everybody is (Linux)."""
    version, process, none = 0x20080522, 0, [0] * 6
    header, data = (ctypes.c_uint32 * 2)(version, process), (ctypes.c_uint32 * 6)(*none)
    if ctypes.CDLL(None, use_errno=True).capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


class Forked:
    """Stands in for the `subprocess.Popen` of one of a run's processes."""

    ends: list[BinaryIO] = []  # of all processes' standard inputs, here; a fork must hold none of them

    def __init__(self, folder: Path, rank: int, size: int, quiet: bool) -> None:
        self.returncode: int | None = None
        standard_input, end = os.pipe()
        self.stdin = os.fdopen(end, "wb")
        self.ends.append(self.stdin)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(standard_input, 0)
            for each in self.ends:
                each.close()
            if rank or quiet:
                output = os.open(workers._output(folder, rank), os.O_WRONLY | os.O_CREAT)
                os.dup2(output, 1)
                os.dup2(output, 2)
            os.environ.update(environment(folder, rank, size))
            try:
                workers.main([str(folder)])
            except BaseException:  # noqa: BLE001  a child must never go on as its parent
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(standard_input)

    def poll(self) -> int | None:
        if self.returncode is None and (found := os.waitpid(self.pid, os.WNOHANG)) != (0, 0):
            self.returncode = os.waitstatus_to_exitcode(found[1])
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def child(order: dict) -> None:
    """Never returns."""
    code = 1
    try:
        os.chdir(order["folder"])
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order.get("powerless"):
            give_up_capabilities()
        failpoints.arm(order.get("failpoints", ""))
        if order.get("naive"):
            import naive_saver

            naive_saver.install()
        workers._start = Forked
        sys.argv = ["metatrain", *order["arguments"]]
        cli.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:  # noqa: BLE001  a child must never go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        number = os.fork()
        if number == 0:
            child(order)
        print(number, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
