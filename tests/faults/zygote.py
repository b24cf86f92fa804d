"""A process that has imported everything, and forks a `metatrain` for each line it is given: a start costs no imports.

A line is {"arguments": [...], "folder": DIR, "output": FILE, "failpoints": "...", "naive": bool, "powerless": bool}; the answers are the child's process
number and, once it has ended, its exit code (negative: the signal that ended it).
"""

import ctypes
import json
import os
import sys
import traceback

os.environ.setdefault("METATRAIN_FAILPOINTS", "")  # so that they are there, without any fault

import torch  # noqa: E402

import metatrain.commands.evaluate  # noqa: E402, F401
import metatrain.commands.resume  # noqa: E402, F401
import metatrain.commands.train  # noqa: E402, F401
from metatrain import cli  # noqa: E402
from metatrain.commands import building, meta_test  # noqa: E402, F401
from metatrain.evaluation import arms  # noqa: E402, F401
from metatrain.tracking import console  # noqa: E402, F401
from metatrain.training import failpoints, hardware, trainer  # noqa: E402, F401

torch.set_num_threads(1)


def give_up_capabilities() -> None:
    """A superuser without them is held to the permissions of files, as everybody is (Linux)."""
    version, process, none = 0x20080522, 0, [0] * 6
    header, data = (ctypes.c_uint32 * 2)(version, process), (ctypes.c_uint32 * 6)(*none)
    if ctypes.CDLL(None, use_errno=True).capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


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
