"""Time `metatrain predict` of one text, with the exported graph and with torch: python scripts/benchmark/predict_one.py MODEL [--rounds 5]

MODEL is a model directory with a graph (`metatrain export model=MODEL`). Each measurement is a process of its own; the kinds alternate. The floor
is a process that imports onnxruntime and tokenizers and runs the graph, as `examples/onnx_predict.py` does. Prints the medians of seconds, of processor
seconds, and of peak memory in MB, each with its ratio to the floor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TEXT = "The strap broke on the first day."
EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    predict = [sys.executable, "-m", "metatrain", "predict", f"model={given.model}", f"text={TEXT}"]
    kinds = {
        "floor": [sys.executable, str(EXAMPLE), f"{given.model}/onnx", TEXT],
        "predict, graph": [*predict, "runtime=onnx"],
        "predict, torch": [*predict, "runtime=torch"],
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for turn in range(given.rounds + 1):
        for name, command in kinds.items():
            measured = run(command)
            if turn:  # the first fills the file cache
                found[name].append(measured)
    medians = {name: [statistics.median(values) for values in zip(*rows)] for name, rows in found.items()}
    print("| process | seconds | processor seconds | peak memory (MB) | times the floor (seconds, processor, memory) |\n|---|---|---|---|---|")
    for name, (wall, processor, memory) in medians.items():
        ratios = ", ".join(f"{value / floor:.2f}" for value, floor in zip((wall, processor, memory), medians["floor"]))
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {memory:.0f} | {ratios} |")


def run(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, processor seconds and peak memory in MB (Linux)."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


if __name__ == "__main__":
    main()
