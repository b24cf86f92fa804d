"""Times one meta-gradient by metatrain and by other libraries on the same episodes, each time in a process of its own.

    python scripts/benchmark/meta_step.py [--learn2learn FOLDER] [--rounds 5] [--steps 5] [--episodes 4] [--length 128]
    python scripts/benchmark/meta_step.py --alone CONTENDER ...    # one of them once, in this process
    python scripts/benchmark/meta_step.py --profile CONTENDER ...  # its floating point operations, and seconds by operation
    python scripts/benchmark/meta_step.py --grow ...               # the same for two, as steps, episodes and length grow

Work: all-MiniLM-L6-v2 with a linear head, 2-way 5-shot, 10 support and 10 query reviews of FDU-MTL ($METATRAIN_DATA/fdu_mtl). Contenders
take turns. Others run as they come, with torch's and the C library's own settings, and with those that metatrain makes (the faster
float32 product, an allocator that keeps memory). A process each, because an allocator that was set once is never again as it comes.
Gradients are compared with the plain unrolled loop's. Writes JSON to standard output; scripts/docs/performance_page.py makes
docs/performance.md of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import torch
from contenders import Gradient, Step, Work
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from metatrain.meta.plan import ExecutionPlan
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.run import hardware
from metatrain.run.config import HardwareConfig
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.files import Columns, read_file

AS_IT_COMES, FAST = "as it comes", "fast"
LEAN = "metatrain exact, 256 tokens at a time"
SLOW = ("plain", "higher", "torchopt")  # slower than learn2learn whenever they were measured
GROWTH = {"steps": (1, 5, 10, 20), "episodes": (1, 4), "length": (32, 64, 128, 256)}


def episodes(count: int, length: int) -> list[EncodedEpisode]:
    """Episodes of 5 + 5 support and 5 + 5 query reviews, each of another domain as long as there are any."""
    table = read_file(Path(os.environ.get("METATRAIN_DATA", "data")) / "fdu_mtl" / "train.jsonl.gz", Columns("text", "label", "domain"))
    rows = defaultdict(list)
    for row, (label, domain) in enumerate(zip(table.labels, table.tasks)):
        rows[domain, label].append(row)
    domains, labels = (sorted(set(names)) for names in zip(*rows))
    tokenizer = load_encoder(ModelConfig(name="minilm"), second_order=False)[0].tokenizer
    rng, made = np.random.default_rng(0), []

    def tokens(chosen: np.ndarray) -> list[np.ndarray]:
        return [np.array(tokenizer(table.texts[row], truncation=True, max_length=length)["input_ids"]) for row in chosen]

    for number in range(count):
        drawn = [rng.choice(rows[domains[number % len(domains)], label], 10, replace=False) for label in labels]
        answers = np.repeat([0, 1], 5)
        made.append(EncodedEpisode(tokens(np.concatenate([d[:5] for d in drawn])), answers, tokens(np.concatenate([d[5:] for d in drawn])), answers, labels))
    return made


def makers(work: Work, learn2learn: Path | None) -> dict[str, Callable[[], Step]]:
    """Functions that build each contender, by name; the first is what gradients are compared with."""
    made: dict[str, Callable[[], Step]] = {"plain": lambda: contenders.plain(work)}
    if learn2learn:
        made["learn2learn"] = lambda: contenders.learn2learn(work, learn2learn)
        made["learn2learn first order"] = lambda: contenders.learn2learn(work, learn2learn, first_order=True)
        made["learn2learn ANIL"] = lambda: contenders.learn2learn_anil(work, learn2learn)
    made["higher"] = lambda: contenders.higher(work)
    made["torchopt"] = lambda: contenders.torchopt(work)
    for mode in contenders.OURS:
        made[f"metatrain {mode}"] = partial(contenders.metatrain, work, mode)
    made["metatrain exact, bf16"] = lambda: contenders.metatrain(work, dtype=torch.bfloat16)
    made[LEAN] = lambda: contenders.metatrain(work, plan=ExecutionPlan(part_tokens=256, graph_tokens=0))
    made["metatrain ANIL"] = lambda: contenders.metatrain(work, adapt="head")
    return made


def distance(found: Gradient, reference: Gradient) -> float:
    """|found - reference| / |reference| over all parameters."""
    square = sum(float((found[name].double() - value.double()).square().sum()) for name, value in reference.items())
    return (square / sum(float(value.double().square().sum()) for value in reference.values())) ** 0.5


def peak() -> float:
    """GFLOP/s of a large float32 matrix product under the current settings: the best of 20."""
    return hardware.product_speed(torch.device("cpu"), size=2048, repeats=20)


def timed(step: Step) -> tuple[float, Gradient]:
    begin = time.perf_counter()
    gradient = step()
    return time.perf_counter() - begin, gradient


def compare(names: list[str], arguments: argparse.Namespace, sizes: dict[str, int]) -> dict[str, Any]:
    """Seconds and memory of every contender in every round, and how far its gradient is from the first's; SLOW ones take part in fewer."""
    found, error, peaks = defaultdict(list), {}, defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        gradients = {name: Path(folder) / f"{number}.safetensors" for number, name in enumerate(names)}
        for number in range(arguments.rounds):
            for kind in (AS_IT_COMES, FAST):
                for name in names:
                    if (is_ours(name) and kind == AS_IT_COMES) or (name in SLOW and number >= arguments.slow_rounds):
                        continue  # ours comes with the fast settings
                    wanted = ["--gradient", str(gradients[name])] if not number and not gradients[name].exists() else []
                    each = in_its_own_process(name, arguments.learn2learn, sizes, ["--settings", kind, *wanted])
                    found[f"{name}, {kind}"].append(each)
                    peaks[kind].append(each["gflops"])
                    print(
                        f"round {number + 1} of {arguments.rounds}: {name}, {kind}: {each['seconds']:.2f} s, {each['peak_mb']} MB", file=sys.stderr, flush=True
                    )
                    if wanted:
                        gradient, reference = load_file(gradients[name]), load_file(gradients[names[0]])
                        error[name] = distance(gradient, {key: reference[key] for key in gradient})

    def of(key: str) -> dict[str, dict[str, Any]]:
        values = {name: [each[key] for each in rounds] for name, rounds in found.items()}
        return {name: {"median": statistics.median(numbers), "all": numbers} for name, numbers in values.items()}

    best = {kind: max(values) for kind, values in peaks.items()}
    return {"seconds": of("seconds"), "peak_mb": of("peak_mb"), "gradient_error": error, "peak_gflops": best}


def is_ours(name: str) -> bool:
    return name.startswith("metatrain")


def in_its_own_process(name: str, learn2learn: Path | None, sizes: dict[str, int], more: list[str]) -> dict[str, Any]:
    """What `--alone` prints."""
    command = [sys.executable, __file__, "--alone", name, *(["--learn2learn", str(learn2learn)] if learn2learn else []), *more]
    command += [word for size, number in sizes.items() for word in (f"--{size}", str(number))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def alone(work: Work, learn2learn: Path | None, name: str, kind: str | None, gradient: Path | None) -> dict[str, Any]:
    """Peak memory of one contender in MB above the loaded model, and its seconds for the same once more, as in every step of a run but the first.

    By itself ours has metatrain's settings, others have torch's.
    """
    kind = kind or (FAST if is_ours(name) else AS_IT_COMES)
    if kind == FAST:
        hardware.apply(HardwareConfig())
    makers(replace(work, episodes=work.episodes[:1], steps=1), learn2learn)[name]()()
    step = makers(work, learn2learn)[name]()
    with hardware.measured_memory(torch.device("cpu")) as used:  # hands memory back before, which would cost the time to have it again
        step()
    memory = used()
    seconds, found = timed(step)
    if gradient:
        save_file({name: value.contiguous() for name, value in found.items()}, gradient)
    return {"contender": name, "settings": kind, "peak_mb": round(memory / 1e6), "seconds": round(seconds, 3), "gflops": round(peak(), 1)}


def profiled(work: Work, learn2learn: Path | None, name: str) -> dict[str, Any]:
    """Floating point operations of one contender, its seconds and the float32 peak in the same process, and seconds by operation."""
    if is_ours(name):
        hardware.apply(HardwareConfig())
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


def grow(learn2learn: Path | None, length: int) -> list[dict[str, Any]]:
    """What `alone` finds for one peer and for ours, each in a process of its own, as one size grows and the others stay."""
    found = []
    for key, values in GROWTH.items():
        for value in values:
            # The first episode has short texts, which no limit cuts.
            sizes = {"steps": 5, "episodes": 4 if key == "length" else 1, "length": length, key: value}
            for name in ("learn2learn", "metatrain exact", "metatrain exact_recomputed"):
                found.append({"grows": key, **in_its_own_process(name, learn2learn, sizes, [])})
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
    parser.add_argument("--settings", choices=(AS_IT_COMES, FAST), help="of a contender alone")
    parser.add_argument("--gradient", type=Path, help="the file for the gradient of a contender alone")
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
        found = alone(work, arguments.learn2learn, arguments.alone, arguments.settings, arguments.gradient)
    else:
        names = [name for name in makers(work, arguments.learn2learn) if not arguments.only or name in arguments.only]
        found = compare(names, arguments, {"steps": work.steps, "episodes": len(work.episodes), "length": arguments.length})
    print(json.dumps({**facts, **hardware.describe(), **found}))


if __name__ == "__main__":
    main()
