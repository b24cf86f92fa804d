"""Times meta-gradients and prediction on a GPU, by metatrain and by other libraries, one after the other in one process on the same work.

    python scripts/benchmark/gpu.py --minutes 9 [--learn2learn FOLDER] [--rounds 5] > gpu.jsonl    # whatever fits into nine minutes, unattended
    python scripts/benchmark/gpu.py --case minilm,5,4 --case smollm2,3,4                           # these cases
    python scripts/benchmark/gpu.py --small                                                        # all cases at small sizes on the CPU, to try the script

A case is a model, inner steps, and episodes. Encoders: minilm, or base (a BERT of the size of BERT-base with random weights); work is as in meta_step.py.
Decoders: smollm2 and llama_1b, random weights in these shapes; work is as in decoders.py. `predict`: the unit-length encodings of 20,000 texts of at most
64 tokens by MiniLM.
Seconds are medians once warm; memory is what torch reserves above the loaded model. Gradients are compared with the case's first contender's.
`one by one`: as on a CPU; `together`: all episodes in one pass; else that, recorded in CUDA graphs. Writes a line of JSON for the machine and
one for each contender of each case as soon as it is measured, and at the end one with what was left out; what does not fit on the card or is not
installed says so in its line. scripts/docs/performance_page.py makes the GPU's part of docs/performance.md of the lines of encoders.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import contenders
import decoders
import torch
from contenders import Step, Work
from meta_step import distance, episodes
from torch.utils.flop_counter import FlopCounterMode

from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.cuda_graphs import CudaGraphs
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.meta.plan import ExecutionPlan
from metatrain.models import minilm
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.run import hardware

PEERS = ("learn2learn", "learn2learn, TF32", "higher", "torchopt", "learn2learn first order", "learn2learn ANIL")
OURS = (
    *("exact, one by one", "exact, together", "exact", "exact, TF32", "exact, bf16", "exact_recomputed, TF32"),
    *("first order, one by one", "first order", "first order, TF32", "ANIL, one by one", "ANIL", "ANIL, TF32"),
)
RECORDED = tuple(name for name in OURS if not name.endswith(("one by one", "together")))
FEW = ("learn2learn", "exact", "exact, TF32", "exact_recomputed, TF32", "first order, TF32")
OF_DECODER = ("torchopt", "learn2learn", "learn2learn first order", "exact", "exact, TF32", "first order, TF32", "exact_recomputed, TF32", "in context, TF32")
PREDICT = "predict"
# Which contenders take part in which case, the cases in the order of their importance; with 20 inner steps the kept graphs of the larger model take more
# than there is.
CASES = {
    "minilm,5,4": PEERS + OURS,
    "smollm2,3,4": OF_DECODER,
    PREDICT: ("sentence-transformers", "metatrain", "metatrain, TF32", "metatrain, bf16"),
    "minilm,5,16": FEW,
    "smollm2,3,16": ("learn2learn", "exact, TF32", "first order, TF32", "in context, TF32"),
    "base,5,4": (FEW[0], "learn2learn, TF32", "exact, one by one", *FEW[1:]),
    "minilm,5,64": ("exact_recomputed, TF32", "first order, TF32"),
    "llama_1b,3,4": ("learn2learn first order", "exact_recomputed, TF32", "first order, TF32"),
    "minilm,20,4": FEW,
    "base,20,4": ("learn2learn", "exact_recomputed, TF32", "first order, TF32"),
}


@dataclass(frozen=True)
class Trial:
    """Where and how large."""

    device: torch.device
    small: bool  # sizes at which a CPU runs all cases in a minute or two

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @property
    def records(self) -> bool:
        """Whether steps can be recorded in CUDA graphs."""
        return self.device.type == "cuda"


def maker(name: str, work: Work, learn2learn: Path | None, trial: Trial) -> Callable[[], Step] | None:
    """Return the function that builds a contender of an encoder; None: a package that it needs is missing."""
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
        plan=ExecutionPlan(vectorised=together, cuda_graphs=CudaGraphs() if name in RECORDED and trial.records else None),
    )


def bert(folder: Path, small: bool) -> str:
    """A BERT with the sizes of BERT-base (`small`: two narrow layers), random weights, and MiniLM's tokenizer, in a directory."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128} if small else {}
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm.resolve()[0]).save_pretrained(folder)
    return str(folder)


Made = TypeVar("Made")


def timed(step: Callable[[], Made], trial: Trial) -> tuple[float, Made]:
    trial.synchronize()
    begin = time.perf_counter()
    gradient = step()
    trial.synchronize()
    return time.perf_counter() - begin, gradient


def peaks(trial: Trial) -> dict[str, float]:
    """TFLOP/s of a large matrix product: float32, TF32, bf16."""
    found, size = {}, 512 if trial.small else 8192
    for name, precision, dtype in (("float32", "highest", torch.float32), ("TF32", "high", torch.float32), ("bf16", "highest", torch.bfloat16)):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=trial.device, dtype=dtype) for _ in range(2))
        seconds = [timed(lambda: a @ b, trial)[0] for _ in range(8)]  # noqa: B023
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
    make: Callable[[], Step], recorded: bool, rounds: int, reference: contenders.Gradient | None, profile: bool, trial: Trial
) -> tuple[dict[str, Any], contenders.Gradient]:
    """Seconds, memory, operations and distance to the reference of one contender, and its gradient."""
    step = make()
    with hardware.measured_memory(trial.device) as used:
        with FlopCounterMode(display=False) as counter:
            gradient = step()
        if recorded:
            for _ in range(2):  # the first of these is recorded
                timed(step, trial)
        seconds = [timed(step, trial)[0] for _ in range(rounds)]
        memory = used()
    found = {
        "seconds": round(statistics.median(seconds), 4),
        "range": [round(min(seconds), 4), round(max(seconds), 4)],
        "memory_mb": round(memory / 1e6),
        "tflop": round(counter.get_total_flops() / 1e12, 3),
    }
    if recorded and profile:
        found["kernels"] = kernels(step)
    if reference is not None and gradient.keys() <= reference.keys():  # another method may train other weights
        found["gradient_error"] = distance(gradient, {key: reference[key] for key in gradient})
    return found, gradient


def predictors(trial: Trial) -> dict[str, Callable[[], Step]]:
    """Functions that build what encodes texts, in the shape of a step, by name."""
    rows = 200 if trial.small else 20_000
    texts = [f"{'please tell me about ' * (row % 12)}order {row} that has not come yet" for row in range(rows)]  # 9 to 60 tokens

    def peer() -> Step:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(minilm.resolve()[0], device=str(trial.device))
        return lambda: {"encodings": model.encode(texts, batch_size=256, convert_to_tensor=True, normalize_embeddings=True)}

    def ours(dtype: torch.dtype = torch.float32) -> Step:
        encoder, _ = load_encoder(ModelConfig(name="minilm", normalize=True), second_order=False, dtype=dtype)
        learner = EncoderLearner(encoder.to(trial.device), AlgorithmConfig(head="prototype", adapt="head"), InnerConfig(steps=0), way=None)
        tokens = learner.model.tokens()
        return lambda: {"encodings": learner.features(tokens.encode(texts)).float()}

    return {"sentence-transformers": peer, "metatrain": ours, "metatrain, TF32": ours, "metatrain, bf16": partial(ours, torch.bfloat16)}


def contenders_of(name: str, folder: Path, learn2learn: Path | None, trial: Trial) -> Callable[[str], Callable[[], Step] | None]:
    """Return what maps a contender of a case to what builds it; None: what it needs is not there."""
    if name == PREDICT:
        return predictors(trial).get
    model, *numbers = name.split(",")
    steps, count = (min(int(number), 2) if trial.small else int(number) for number in numbers)
    if model in decoders.SHAPES:
        shape, length = ("small", 16) if trial.small else (model, 64)
        return decoders.makers(decoders.DecoderWork(shape, steps, count, length, device=str(trial.device)), learn2learn).get
    chosen = episodes(count, 16 if trial.small else 128)
    place = bert(folder / f"bert-{trial.small}", trial.small) if model == "base" or trial.small else model
    work = Work(chosen, steps, model=place, device=str(trial.device))
    return lambda contender: maker(contender, work, learn2learn, trial)


def case(
    name: str, make: Callable[[str], Callable[[], Step] | None], names: Sequence[str], until: float, options: argparse.Namespace, trial: Trial
) -> list[str]:
    """Print what is measured of each contender, one after the other; return those that time was left for no more. until: when to begin no more."""
    reference = None
    for place, contender in enumerate(names):
        if time.monotonic() > until:
            return list(names[place:])
        build = make(contender)
        if build is None:
            continue
        torch.set_float32_matmul_precision("high" if contender.endswith("TF32") else "highest")
        recorded = contender in RECORDED and trial.records and name.partition(",")[0] not in decoders.SHAPES and name != PREDICT
        try:
            found, gradient = measured(build, recorded, options.rounds, reference, not options.no_profile, trial)
        except torch.OutOfMemoryError:
            found = {"out_of_memory": True}
        except ModuleNotFoundError as error:
            found = {"not_installed": error.name}
        else:
            reference = reference or gradient
        if name == PREDICT and "gradient_error" in found:
            found["difference"] = found.pop("gradient_error")  # of encodings
        print(json.dumps({"case": name, "gpu_contender": contender, **found}), flush=True)
        gc.collect()
        if trial.records:
            torch.cuda.empty_cache()
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learn2learn", type=Path, help="the learn2learn/ folder of a source tree")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after this time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="append", default=[], metavar="MODEL,STEPS,EPISODES", help=f"of {' '.join(CASES)}, or others of these models")
    parser.add_argument("--only", action="append", default=[], help="a contender; may be given more than once")
    parser.add_argument("--no-profile", action="store_true", help="do not count kernels by kind; with 20 inner steps of the larger model that takes minutes")
    parser.add_argument("--small", action="store_true", help="small sizes on the CPU")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    trial = Trial(torch.device("cpu" if options.small else "cuda"), options.small)
    device = hardware.describe()["processor"] if options.small else torch.cuda.get_device_name()
    print(json.dumps({"gpu": device, "torch": torch.__version__, "rounds": options.rounds, "peak_tflops": peaks(trial), **hardware.describe()}), flush=True)
    left = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.case or CASES:
            names = [each for each in CASES.get(name, FEW) if not options.only or each in options.only]
            if time.monotonic() > until:
                left += [f"{name}: {each}" for each in names]
                continue
            make = contenders_of(name, Path(folder), options.learn2learn, trial)
            left += [f"{name}: {each}" for each in case(name, make, names, until, options, trial)]
    if left:
        print(json.dumps({"left_out": left}), flush=True)


if __name__ == "__main__":
    main()
