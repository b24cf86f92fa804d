"""Machines on this machine: network namespaces with names of their own, joined by a wire that takes its time. Needs root on Linux (ip, unshare).

Packets go through a process that holds each back for as long as it is told: the kernel's own way (netem) is not in every kernel.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001  # of linux/if_tun.h
_PACKET = 65000  # bytes; the larger, the less this process is in the way
DEVICE = "wire"


class Machines:
    """Between entry and exit: `count` machines, each some seconds from the others, one way."""

    def __init__(self, count: int, seconds: float):
        self.addresses = [f"10.77.0.{number + 1}" for number in range(count)]
        self._names = [f"machine{number}" for number in range(count)]
        self._seconds = seconds
        self._wire: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machines:
        ends = []
        for number, (name, address) in enumerate(zip(self._names, self.addresses)):
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", f"{DEVICE}{number}".encode(), _TUN_WITHOUT_HEADER))
            ends.append(end)
            hosts = Path("/etc/netns", name, "hosts")  # which `ip netns exec` puts in the place of /etc/hosts
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {known}\n" for at, known in zip(self.addresses, self._names)))
            inside = f"ip -n {name}"
            for command in (
                f"ip netns add {name}",
                f"ip link set {DEVICE}{number} netns {name}",
                f"{inside} link set {DEVICE}{number} name {DEVICE}",
                f"{inside} link set {DEVICE} mtu {_PACKET} txqueuelen 10000 up",
                f"{inside} link set lo up",
                f"{inside} address add {address}/24 dev {DEVICE}",
            ):
                subprocess.run(command.split(), check=True)
        wire = [sys.executable, __file__, str(self._seconds), *map(str, ends)]
        self._wire = subprocess.Popen(wire, pass_fds=ends)
        for end in ends:
            os.close(end)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._wire is not None:
            self._wire.kill()
            self._wire.wait()
        for name in self._names:
            subprocess.run(["ip", "netns", "delete", name], check=True)
            shutil.rmtree(Path("/etc/netns", name))

    def command(self, number: int, command: Sequence[str]) -> list[str]:
        """A command, as it is started on a machine, which has a name of its own."""
        name = self._names[number]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "bash", "-c", 'hostname "$0"; exec "$@"', name, *command]


def carry(seconds: float, ends: Sequence[int]) -> None:
    """Packets from each end to the one whose address they have, `seconds` later. By IPv4, the last byte of the address is 1 + the end's number."""
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, to, packet = heapq.heappop(under_way)
            with suppress(BlockingIOError):  # its queue is full: lost, as on any wire
                os.write(ends[to], packet)
        wait = under_way[0][0] - time.monotonic() if under_way else None
        readable = select.select(ends, [], [], None if wait is None else max(0.0, wait))[0]
        for end in readable:
            packet = os.read(end, 1 << 16)
            if packet[0] >> 4 == 4 and 0 < packet[19] <= len(ends):
                count += 1
                heapq.heappush(under_way, (time.monotonic() + seconds, count, packet[19] - 1, packet))


if __name__ == "__main__":
    carry(float(sys.argv[1]), [int(end) for end in sys.argv[2:]])
