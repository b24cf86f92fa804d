"""Measure `metatrain serve` under load, with locust: python scripts/benchmark/serve_load.py [--checkpoint minilm] [--tasks 1000] [--seconds 10]

Starts a server on a folder of its own, creates the tasks (2 classes, 2 examples each), and then predicts one text per request with 1, 8 and 32
clients, each of which waits for an answer before its next request. Prints a row for each: requests a second, and the 50th and 95th percentile
of the latency. Server and clients share the machine. Needs the extras `serve` and `benchmark`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

EXAMPLES = [("where is my parcel?", "delivery"), ("it came late", "delivery"), ("it broke", "damage"), ("a crack in it", "damage")]
CLIENTS = (1, 8, 32)
USER = Path(__file__).with_name("serve_user.py")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="minilm")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, address, seconds = started(folder, given.checkpoint)
        try:
            print(f"start with no task: {seconds:.1f} s")
            begin = time.perf_counter()
            create(address, given.tasks)
            seconds, size = time.perf_counter() - begin, sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
            print(f"{given.tasks} tasks created in {seconds:.1f} s, {size / given.tasks / 1000:.1f} kB each; server: {memory(server.pid)} MB")
            print("| clients | requests/s | latency p50 (ms) | latency p95 (ms) | failed |\n|---|---|---|---|---|")
            for clients in CLIENTS:
                row = load(address, clients, given.tasks, given.seconds)
                print(f"| {clients} | {row['rate']:.0f} | {row['p50']:.0f} | {row['p95']:.0f} | {row['failed']} |", flush=True)
        finally:
            server.terminate()
            server.wait()
        server, _, seconds = started(folder, given.checkpoint)
        print(f"start with {given.tasks} tasks: {seconds:.1f} s")
        server.terminate()
        server.wait()


def started(folder: str, checkpoint: str) -> tuple[subprocess.Popen[str], str, float]:
    """Start a server; return it, its address, and the seconds until its first answer."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "metatrain", "serve", f"checkpoint={checkpoint}", f"folder={folder}", "port=0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None  # a pipe
    found = re.search(r"http://\S+(?=/)", server.stdout.readline())
    if found is None:
        sys.exit("the server did not start")
    httpx2.get(f"{found[0]}/health", timeout=60).raise_for_status()
    return server, found[0], time.perf_counter() - begin


def create(address: str, tasks: int) -> None:
    """Create the tasks t0, t1, ..."""
    body = {"examples": [{"text": text, "label": label} for text, label in EXAMPLES]}
    with httpx2.Client(base_url=address, timeout=60) as client:
        for number in range(tasks):
            client.put(f"/tasks/t{number}", json=body).raise_for_status()


def load(address: str, clients: int, tasks: int, seconds: int) -> dict[str, float]:
    """Return requests a second, percentiles of the latency in milliseconds, and the number of failed requests."""
    command = [sys.executable, "-m", "locust", "-f", str(USER), "--headless", "--users", str(clients), "--spawn-rate", str(clients)]
    command += ["--run-time", f"{seconds}s", "--host", address, "--json", "--loglevel", "WARNING"]
    done = subprocess.run(command, env={**os.environ, "SERVE_TASKS": str(tasks)}, capture_output=True, text=True)
    (row,) = json.loads(done.stdout)
    times = sorted((float(time), int(count)) for time, count in row["response_times"].items())  # milliseconds -> requests
    length = row["last_request_timestamp"] - row["start_time"]
    return {"rate": row["num_requests"] / length, "p50": percentile(times, 0.5), "p95": percentile(times, 0.95), "failed": row["num_failures"]}


def percentile(times: list[tuple[float, int]], share: float) -> float:
    """Return the percentile of a histogram."""
    needed, seen = share * sum(count for _, count in times), 0
    for value, count in times:
        seen += count
        if seen >= needed:
            return value
    raise ValueError("no request was answered")


def memory(process: int) -> int:
    """Return the resident memory of a process in MB (Linux)."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[0]) // 1000


if __name__ == "__main__":
    main()
