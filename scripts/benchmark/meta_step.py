"""Times one meta-gradient by metatrain and by other libraries, interleaved in one process on the same episodes.

    python scripts/benchmark/meta_step.py [--learn2learn FOLDER] [--rounds 5] [--steps 5] [--episodes 4] [--length 128]
    python scripts/benchmark/meta_step.py --alone CONTENDER ...    # time and peak memory of one, in this process
    python scripts/benchmark/meta_step.py --profile CONTENDER ...  # its floating point operations, and seconds by operation
    python scripts/benchmark/meta_step.py --grow ...               # the same for two, as steps, episodes and length grow

Work: all-MiniLM-L6-v2 with a linear head, 2-way 5-shot, 10 support and 10 query reviews of FDU-MTL ($METATRAIN_DATA/fdu_mtl). Each
contender is timed with torch's own settings and with those that metatrain makes (the faster float32 product, an
allocator that keeps memory); the order of a round is the same in all. Gradients are compared with the plain unrolled
loop's. Writes JSON to standard output; scripts/performance_page.py makes docs/performance.md of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import contenders
import numpy as np
import torch
from contenders import Step, Work
from torch.utils.flop_counter import FlopCounterMode

from metatrain.meta.episode_texts import EpisodeTexts
from metatrain.meta.memory import MemoryUse
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.files import Columns, read_file
from metatrain.training import hardware
from metatrain.training.config import HardwareConfig

AS_IT_COMES, FAST = "as it comes", "fast"
LEAN = "metatrain exact, 512 tokens at a time"
SLOW = ("plain", "higher", "torchopt")  # slower than learn2learn whenever they were measured
GROWTH = {"steps": (1, 5, 10, 20), "episodes": (1, 4), "length": (32, 64, 128, 256)}


def episodes(count: int, length: int) -> list[EpisodeTexts]:
    """Episodes of 5 + 5 support and 5 + 5 query reviews, each of another domain as long as there are any."""
    table = read_file(Path(os.environ.get("METATRAIN_DATA", "data")) / "fdu_mtl" / "train.jsonl.gz", Columns("text", "label", "domain"))
    rows = defaultdict(list)
    for row, (label, domain) in enumerate(zip(table.labels, table.tasks)):
        rows[domain, label].append(row)
    domains, labels = (sorted(set(names)) for names in zip(*rows))
    tokenizer = load_encoder(ModelConfig(name="minilm"), second_order=False)[0].tokenizer
    rng, made = np.random.default_rng(0), []

    def tokens(chosen) -> list[np.ndarray]:
        return [np.array(tokenizer(table.texts[row], truncation=True, max_length=length)["input_ids"]) for row in chosen]

    for number in range(count):
        drawn = [rng.choice(rows[domains[number % len(domains)], label], 10, replace=False) for label in labels]
        answers = np.repeat([0, 1], 5)
        made.append(EpisodeTexts(tokens(np.concatenate([d[:5] for d in drawn])), answers, tokens(np.concatenate([d[5:] for d in drawn])), answers, labels))
    return made


def makers(work: Work, learn2learn: Path | None) -> dict[str, object]:
    """Functions that build each contender, by name; the first is what gradients are compared with."""
    made = {"plain": lambda: contenders.plain(work)}
    if learn2learn:
        made["learn2learn"] = lambda: contenders.learn2learn(work, learn2learn)
        made["learn2learn first order"] = lambda: contenders.learn2learn(work, learn2learn, first_order=True)
        made["learn2learn ANIL"] = lambda: contenders.learn2learn_anil(work, learn2learn)
    made["higher"] = lambda: contenders.higher(work)
    made["torchopt"] = lambda: contenders.torchopt(work)
    for mode in contenders.OURS:
        made[f"metatrain {mode}"] = lambda mode=mode: contenders.metatrain(work, mode)
    made["metatrain exact, bf16"] = lambda: contenders.metatrain(work, dtype=torch.bfloat16)
    made[LEAN] = lambda: contenders.metatrain(work, memory=MemoryUse(part_tokens=512, graph_tokens=0))
    made["metatrain ANIL"] = lambda: contenders.metatrain(work, adapt="head")
    return made


def settings(kind: str) -> None:
    """Torch's own settings, or metatrain's."""
    libc = ctypes.CDLL(None)
    if kind == FAST:
        hardware.apply(HardwareConfig())
        return
    torch.set_float32_matmul_precision("highest")
    libc.mallopt(-3, 128 * 1024)  # glibc's thresholds as they are at first
    libc.mallopt(-1, 128 * 1024)
    libc.malloc_trim(0)


def distance(found: dict, reference: dict) -> float:
    """|found - reference| / |reference| over all parameters."""
    square = sum(float((found[name].double() - value.double()).square().sum()) for name, value in reference.items())
    return (square / sum(float(value.double().square().sum()) for value in reference.values())) ** 0.5


def peak(size: int = 2048) -> float:
    """GFLOP/s of a float32 matrix product under the current settings: the best of 20."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begin)
    return 2 * size**3 / min(seconds) / 1e9


def timed(step: Step) -> tuple[float, dict]:
    begin = time.perf_counter()
    gradient = step()
    return time.perf_counter() - begin, gradient


def compare(work: Work, learn2learn: Path | None, rounds: int, slow_rounds: int, only: list[str]) -> dict:
    """Seconds of every contender in every round, and how far its gradient is from the first's; SLOW ones take part in fewer."""
    chosen = {name: make() for name, make in makers(work, learn2learn).items() if not only or name in only}
    seconds, error, reference, peaks = defaultdict(list), {}, None, defaultdict(list)
    for number in range(rounds):
        for kind in (AS_IT_COMES, FAST):
            settings(kind)
            peaks[kind].append(peak())
            for name, step in chosen.items():
                if (name.startswith("metatrain") and kind == AS_IT_COMES) or (name in SLOW and number >= slow_rounds):
                    continue  # ours comes with the fast settings
                took, gradient = timed(step)
                seconds[f"{name}, {kind}"].append(took)
                print(f"round {number + 1} of {rounds}: {name}, {kind}: {took:.2f} s", file=sys.stderr, flush=True)
                if reference is None:
                    reference = {key: value.clone() for key, value in gradient.items()}
                if number == 0:
                    error[name] = distance(gradient, {key: reference[key] for key in gradient})
                del gradient
    return {
        "seconds": {name: {"median": statistics.median(values), "all": values} for name, values in seconds.items()},
        "gradient_error": error,
        "peak_gflops": {kind: max(values) for kind, values in peaks.items()},
    }


def alone(work: Work, learn2learn: Path | None, name: str) -> dict:
    """Seconds and peak memory in MB of one contender above the loaded model, once warm; ours with metatrain's settings, others with torch's."""
    settings(FAST if name.startswith("metatrain") else AS_IT_COMES)
    makers(replace(work, episodes=work.episodes[:1], steps=1), learn2learn)[name]()()
    step = makers(work, learn2learn)[name]()
    with hardware.measured_memory(torch.device("cpu")) as used:
        seconds, _ = timed(step)
    return {"contender": name, "peak_mb": round(used() / 1e6), "seconds": round(seconds, 2)}


def profiled(work: Work, learn2learn: Path | None, name: str) -> dict:
    """Floating point operations of one contender, its seconds and the float32 peak in the same process, and seconds by operation."""
    settings(FAST if name.startswith("metatrain") else AS_IT_COMES)
    step = makers(work, learn2learn)[name]()
    step()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds, peaks = [], [peak()]
    for _ in range(3):
        seconds.append(timed(step)[0])
        peaks.append(peak())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        step()
    operations = sorted(((event.self_cpu_time_total / 1e6, event.key) for event in found.key_averages()), reverse=True)
    return {
        "profiled": name,
        "flop": counter.get_total_flops(),
        "seconds": statistics.median(seconds),
        "peak_gflops": max(peaks),
        "operations": {key: round(value, 3) for value, key in operations[:15]},
        "operations_in_all": sum(value for value, _ in operations),
    }


def grow(learn2learn: Path | None, length: int) -> list[dict]:
    """What `alone` finds for one peer and for ours, each in a process of its own, as one size grows and the others stay."""
    found = []
    for key, values in GROWTH.items():
        for value in values:
            # The first episode has short texts, which no limit cuts.
            sizes = {"steps": 5, "episodes": 4 if key == "length" else 1, "length": length, key: value}
            for name in ("learn2learn", "metatrain exact", "metatrain exact_recomputed"):
                command = [sys.executable, __file__, "--alone", name, *(["--learn2learn", str(learn2learn)] if learn2learn else [])]
                command += [word for size, number in sizes.items() for word in (f"--{size}", str(number))]
                line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found.append({"grows": key, **json.loads(line)})
                print(found[-1], file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn2learn", type=Path, help="the learn2learn/ folder of a source tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--only", action="append", default=[], help="a contender; may be given more than once")
    parser.add_argument("--slow-rounds", type=int, default=2, help=f"rounds of {', '.join(SLOW)}")
    parser.add_argument("--alone", metavar="CONTENDER")
    parser.add_argument("--profile", metavar="CONTENDER")
    parser.add_argument("--grow", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    work = Work(episodes(arguments.episodes, arguments.length), arguments.steps)
    support, query = (sum(len(text) for episode in work.episodes for text in getattr(episode, part)) for part in ("support", "query"))
    facts = {"steps": work.steps, "episodes": len(work.episodes), "length": arguments.length, "tokens": {"support": support, "query": query}}
    if arguments.grow:
        found = {"growth": grow(arguments.learn2learn, arguments.length)}
    elif arguments.profile:
        found = profiled(work, arguments.learn2learn, arguments.profile)
    elif arguments.alone:
        found = alone(work, arguments.learn2learn, arguments.alone)
    else:
        found = compare(work, arguments.learn2learn, arguments.rounds, arguments.slow_rounds, arguments.only)
    print(json.dumps({**facts, **hardware.describe(), **found}))


if __name__ == "__main__":
    main()
