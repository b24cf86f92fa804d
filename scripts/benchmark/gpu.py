"""Times one meta-gradient on an NVIDIA GPU, by metatrain and by other libraries, one after the other in one process on the same episodes.

    python scripts/benchmark/gpu.py [--learn2learn FOLDER] [--rounds 5] [--case minilm,5,4 ...] > gpu.jsonl

A case is a model (minilm, or base: a BERT of the size of BERT-base with random weights), inner steps, and episodes; work is as in
meta_step.py. Seconds are medians once warm; memory is what torch reserves above the loaded model. Gradients are compared with the first contender's.
`one by one`: as on a CPU; `together`: all episodes in one pass; else that, recorded in CUDA graphs. Writes a line of JSON for the machine and
one for each contender of each case; scripts/docs/performance_page.py makes the GPU's part of docs/performance.md of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import contenders
import torch
from contenders import Step, Work
from meta_step import distance, episodes
from torch.utils.flop_counter import FlopCounterMode

from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.meta.plan import ExecutionPlan
from metatrain.models import minilm
from metatrain.run import hardware

PEERS = ("learn2learn", "learn2learn, TF32", "higher", "torchopt", "learn2learn first order", "learn2learn ANIL")
OURS = (
    *("exact, one by one", "exact, together", "exact", "exact, TF32", "exact, bf16", "exact_recomputed, TF32"),
    *("first order, one by one", "first order", "first order, TF32", "ANIL, one by one", "ANIL", "ANIL, TF32"),
)
RECORDED = tuple(name for name in OURS if not name.endswith(("one by one", "together")))
FEW = ("learn2learn", "exact", "exact, TF32", "exact_recomputed, TF32", "first order, TF32")
# Which contenders take part in which case; with 20 inner steps the kept graphs of the larger model take more than there is.
CASES = {
    "minilm,5,4": PEERS + OURS,
    "base,5,4": (FEW[0], "learn2learn, TF32", "exact, one by one", *FEW[1:]),
    "minilm,20,4": FEW,
    "minilm,5,16": FEW,
    "base,20,4": ("learn2learn", "exact_recomputed, TF32", "first order, TF32"),
}
DEVICE = torch.device("cuda")


def maker(name: str, work: Work, learn2learn: Path | None) -> Callable[[], Step] | None:
    """What builds a contender; None: what it needs is not there."""
    if name.startswith("learn2learn"):
        if learn2learn is None:
            return None
        if "ANIL" in name:
            return lambda: contenders.learn2learn_anil(work, learn2learn)
        return lambda: contenders.learn2learn(work, learn2learn, first_order="first order" in name)
    if name in PEERS:
        return lambda: getattr(contenders, name)(work)
    method, _, how = name.partition(", ")
    together = 1 if how == "one by one" else 2 if "base" in str(work.model) and method == "exact" else len(work.episodes)
    return lambda: contenders.metatrain(
        work,
        meta_gradient={"first order": "first_order", "ANIL": "exact"}.get(method, method),
        adapt="head" if method == "ANIL" else "all",
        dtype=torch.bfloat16 if how == "bf16" else torch.float32,
        plan=ExecutionPlan(vectorised=together, cuda_graphs=CudaGraphs() if name in RECORDED else None),
    )


def base(folder: Path) -> str:
    """A BERT with the sizes of BERT-base, random weights, and MiniLM's tokenizer, in a directory."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm.resolve()[0]).save_pretrained(folder)
    return str(folder)


Made = TypeVar("Made")


def timed(step: Callable[[], Made]) -> tuple[float, Made]:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    gradient = step()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, gradient


def peaks(size: int = 8192) -> dict[str, float]:
    """TFLOP/s of a large matrix product: float32, TF32, bf16."""
    found = {}
    for name, precision, dtype in (("float32", "highest", torch.float32), ("TF32", "high", torch.float32), ("bf16", "highest", torch.bfloat16)):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=DEVICE, dtype=dtype) for _ in range(2))
        seconds = [timed(lambda: a @ b)[0] for _ in range(8)]  # noqa: B023
        found[name] = round(2 * size**3 / statistics.median(seconds[2:]) / 1e12, 1)
    return found


# What GPU kernels do, by what their names have in them; the rest is element by element.
KINDS = {"matrix products": ("gemm", "cutlass", "xmma", "nvjet"), "sums": ("reduce", "softmax", "layer_norm"), "copies": ("copy", "memcpy", "memset", "cat")}


def kernels(step: Step) -> dict[str, float]:
    """Seconds of a step's kernels by what they do, and how many there are."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    found = dict.fromkeys([*KINDS, "element by element", "number"], 0.0)
    for event in profiled.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "element by element")
        found[kind] += event.self_device_time_total / 1e6
        found["number"] += event.count
    return {kind: round(value, 5) for kind, value in found.items()}


def measured(
    make: Callable[[], Step], recorded: bool, rounds: int, reference: contenders.Gradient | None, profile: bool
) -> tuple[dict[str, Any], contenders.Gradient]:
    """Seconds, memory, operations and distance to the reference of one contender, and its gradient."""
    step = make()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    with FlopCounterMode(display=False) as counter:
        gradient = step()
    if recorded:
        for _ in range(2):  # the first of these is recorded
            timed(step)
    seconds = [timed(step)[0] for _ in range(rounds)]
    found = {
        "seconds": round(statistics.median(seconds), 4),
        "range": [round(min(seconds), 4), round(max(seconds), 4)],
        "memory_mb": round((torch.cuda.max_memory_reserved() - before) / 1e6),
        "tflop": round(counter.get_total_flops() / 1e12, 3),
    }
    if recorded and profile:
        found["kernels"] = kernels(step)
    if reference is not None:
        found["gradient_error"] = distance(gradient, {key: reference[key] for key in gradient})
    return found, gradient


def case(name_of_case: str, work: Work, names: Sequence[str], learn2learn: Path | None, rounds: int, profile: bool) -> None:
    """Print what is measured of each contender, one after the other."""
    reference = None
    for name in names:
        make = maker(name, work, learn2learn)
        if make is None:
            continue
        torch.set_float32_matmul_precision("high" if name.endswith("TF32") else "highest")
        try:
            found, gradient = measured(make, name in RECORDED, rounds, reference, profile)
        except torch.OutOfMemoryError:
            found = {"out_of_memory": True}
        else:
            reference = reference or gradient
        print(json.dumps({"case": name_of_case, "gpu_contender": name, **found}), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn2learn", type=Path, help="the learn2learn/ folder of a source tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append", default=[], metavar="MODEL,STEPS,EPISODES")
    parser.add_argument("--only", action="append", default=[], help=f"a contender, of {', '.join(PEERS + OURS)}; may be given more than once")
    parser.add_argument("--no-profile", action="store_true", help="do not count kernels by kind; with 20 inner steps of the larger model that takes minutes")
    arguments = parser.parse_args()
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rounds": arguments.rounds, "peak_tflops": peaks(), **hardware.describe()}
    print(json.dumps(machine), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.case or CASES:
            model, steps, count = name.split(",")
            chosen = episodes(int(count), 128)
            work = Work(chosen, int(steps), model=base(Path(folder) / "base") if model == "base" else model, device="cuda")
            names = [each for each in CASES.get(name, FEW) if not arguments.only or each in arguments.only]
            case(name, work, names, arguments.learn2learn, arguments.rounds, not arguments.no_profile)


if __name__ == "__main__":
    main()
