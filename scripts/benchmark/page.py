"""Writes docs/performance.md from what the other script printed: python scripts/benchmark/page.py TIMES.json [MEMORY.json ...]"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXACT = (
    "plain",
    "learn2learn",
    "higher",
    "torchopt",
    "metatrain exact",
    "metatrain exact_recomputed",
    "metatrain forward_over_reverse",
    "metatrain exact, bf16",
)
OTHERS = {"first order": ("learn2learn first order", "metatrain first_order"), "ANIL": ("learn2learn ANIL", "metatrain ANIL")}


def page(times: dict, memory: dict[str, int]) -> str:
    """The whole page; memory in MB by contender."""
    median = {name: found["median"] for name, found in times["seconds"].items()}
    peers = [name for name in EXACT if not name.startswith("metatrain") and f"{name}, as it comes" in median]
    best = {kind: min((median[f"{name}, {kind}"], name) for name in peers) for kind in ("as it comes", "fast")}
    lines = [
        "| exact second order | s, as it comes | s, same kernels and allocator | times the best peer as it comes | gradient | memory MB |",
        "|---|---|---|---|---|---|",
    ]
    for name in EXACT:
        comes, same = median.get(f"{name}, as it comes"), median.get(f"{name}, fast")
        if same is None:
            continue
        shown = [f"{value:.2f}" if value else "" for value in (comes, same)]
        ratio = best["as it comes"][0] / (same if name.startswith("metatrain") else comes)
        error = "the reference" if name == "plain" else f"{times['gradient_error'][name]:.0e}"
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {ratio:.2f} | {error} | {memory.get(name, '')} |")
    for title, names in OTHERS.items():
        lines += ["", f"| {title} | s, as it comes | s, same kernels and allocator | times the peer as it comes |", "|---|---|---|---|"]
        for name in names:
            comes, same = median.get(f"{name}, as it comes"), median.get(f"{name}, fast")
            if same is not None and (reference := median.get(f"{names[0]}, as it comes")):
                lines.append(f"| {name} | {f'{comes:.2f}' if comes else ''} | {same:.2f} | {reference / (same if comes is None else comes):.2f} |")
    tokens, (comes, fast), ours = times["tokens"], (times["peak_gflops"][kind] for kind in ("as it comes", "fast")), median["metatrain exact, fast"]
    rounds = len(next(iter(times["seconds"].values()))["all"])
    (slow_best, slow_name), (fast_best, fast_name) = best["as it comes"], best["fast"]
    return f"""\
# Performance

One meta-gradient of {times["episodes"]} episodes, 2-way 5-shot, 10 support and 10 query reviews each (FDU-MTL, at most
{times["length"]} tokens; {tokens["support"]:,} support and {tokens["query"]:,} query tokens in all), {times["steps"]} inner steps of SGD on all parameters of
all-MiniLM-L6-v2 with its pooler and a linear head, float32. {times["processor"]}, {times["threads"]} threads. Medians of {rounds} rounds; contenders
take turns within a round.

    python scripts/benchmark/meta_step.py --learn2learn FOLDER > times.json
    python scripts/benchmark/meta_step.py --learn2learn FOLDER --memory "metatrain exact_recomputed" > memory-1.json   # and so on
    python scripts/benchmark/page.py times.json memory-*.json

"As it comes" is torch as it starts; "same kernels and allocator" gives every library the settings that metatrain makes at the
start (`hardware.fast_kernels`): the oneDNN float32 product ({fast:.0f} against {comes:.0f} GFLOP/s in a product of 2048 x 2048
matrices in the same run) and an allocator that keeps freed memory. Gradients: distance to the plain loop's, as a share of its length.
Memory: peak above the loaded model, in a process of its own.

{chr(10).join(lines)}

metatrain's exact meta-gradient takes {ours:.2f} s: {slow_best / ours:.1f} times as fast as the fastest peer as it comes ({slow_name}),
{fast_best / ours:.1f} times as fast as the fastest with the same settings ({fast_name}).

With `hardware.precision=bf16` the model's matrix products are taken in bf16 (float32 parameters, inner loop and gradients), on
processors that have them; the column "gradient" says what that costs in precision: a distance d is a cosine of about 1 - d^2/2.

Why: peers compute padding, keep one graph of all inner steps, and take part of the whole word embedding; here texts are packed,
each inner step has a graph of its own, only the embedding rows that occur take part, and where the first token is all that
is asked for (`model.pooling=first`, as here) the last layer computes no other. With `model.pooling=mean` that last saving is not there.

Not measured: GPUs, other processors, growth with inner steps, episodes and length.
"""


def main(arguments: list[str]) -> None:
    times, *others = (json.loads(Path(argument).read_text()) for argument in arguments)
    memory = {name: value for other in others for name, value in other["peak_mb"].items()}
    (ROOT / "docs" / "performance.md").write_text(page(times, memory), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
