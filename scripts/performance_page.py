"""Writes those sections of docs/performance.md of which the files are given: python scripts/performance_page.py FILE ...

The files are what the scripts in scripts/benchmark/ printed. Each is known by what is in it: times of all contenders, growth,
a profile, the start-up, or a GPU. The other sections, and what was written by hand, stay as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from results_page import ROOT, put_section

PAGE = ROOT / "docs" / "performance.md"
EXACT = (
    "plain",
    "learn2learn",
    "higher",
    "torchopt",
    "metatrain exact",
    "metatrain exact_recomputed",
    "metatrain forward_over_reverse",
    "metatrain exact, bf16",
    "metatrain exact, 256 tokens at a time",
)
OTHERS = {"first order": ("learn2learn first order", "metatrain first_order"), "ANIL": ("learn2learn ANIL", "metatrain ANIL")}
GROWTH = """\
One episode (four, where the length grows), 5 inner steps, texts of at most 128 tokens, but for what grows; once warm, one run each,
in a process of its own."""
GROWN = "The memory of `exact_recomputed` grows with the inner steps by the trajectory alone: a copy of what adapts per step."
LARGER = {
    "minilm,20,4": "MiniLM, 20 inner steps",
    "minilm,5,16": "MiniLM, 16 episodes",
    "base,5,4": "BERT-base, 5 inner steps",
    "base,20,4": "BERT-base, 20 inner steps",
}
_UNITS = {"steps": "inner steps", "episodes": "episodes", "length": "tokens a text"}
COMES, SAME = "as it comes", "fast"


def _cpu(times: dict[str, Any]) -> str:
    """The beginning: one meta-gradient on the CPU."""
    median, memory = ({name: found["median"] for name, found in times[key].items()} for key in ("seconds", "peak_mb"))
    peers = [name for name in EXACT if not name.startswith("metatrain") and f"{name}, {COMES}" in median]
    best = {kind: min((median[f"{name}, {kind}"], name) for name in peers) for kind in (COMES, SAME)}
    (slow_best, slow_name), (fast_best, fast_name) = best[COMES], best[SAME]
    ours, tokens = median["metatrain exact, fast"], times["tokens"]
    comes, same = (times["peak_gflops"][kind] for kind in (COMES, SAME))
    rounds = {len(found["all"]) for found in times["seconds"].values()}
    first, anil = (median[f"{theirs}, {COMES}"] / median[f"{mine}, {SAME}"] for theirs, mine in OTHERS.values())
    first_same, anil_same = (median[f"{theirs}, {SAME}"] / median[f"{mine}, {SAME}"] for theirs, mine in OTHERS.values())
    least = min((name for name in EXACT if name.startswith("metatrain")), key=lambda name: memory[f"{name}, {SAME}"])
    needed, (theirs, lean_name) = memory[f"{least}, {SAME}"], min((memory[f"{name}, {COMES}"], name) for name in peers)
    lean = slow_best / median[f"{least}, {SAME}"]
    return f"""\
# Performance

One meta-gradient of {times["episodes"]} episodes, 2-way 5-shot, 10 support and 10 query reviews each (FDU-MTL, at most
{times["length"]} tokens; {tokens["support"]:,} support and {tokens["query"]:,} query tokens in all), {times["steps"]} inner steps of SGD on all parameters of
all-MiniLM-L6-v2 with its pooler and a linear head, float32. {times["processor"]}, {times["threads"]} threads. Medians of {max(rounds)} rounds ({min(rounds)} of
the slower peers), in which contenders take turns, each time in a process of its own that has made the same once before.

    python scripts/benchmark/meta_step.py --learn2learn FOLDER > times.json
    python scripts/benchmark/meta_step.py --learn2learn FOLDER --grow > growth.json
    python scripts/benchmark/meta_step.py --profile "metatrain exact" > profile-1.json                    # and so on
    python scripts/benchmark/start_up.py > start.json
    python scripts/benchmark/gpu.py --learn2learn FOLDER > gpu.jsonl
    python scripts/performance_page.py times.json growth.json profile-*.json start.json gpu.jsonl

"As it comes" is torch, and the C library's allocator, as they start; "same settings" gives every library those that metatrain makes at the
start (`hardware.fast_kernels`): the oneDNN float32 product ({same:.0f} against {comes:.0f} GFLOP/s in a product of 2048 x 2048 matrices in the
same processes) and an allocator that keeps freed memory. Gradients: distance to the plain loop's, as a share of its length. Memory: peak
above the loaded model.

{_exact(times, median, memory, slow_best)}

metatrain's exact meta-gradient takes {ours:.1f} s: **{slow_best / ours:.1f} times** as fast as the fastest peer as it comes ({slow_name}),
**{fast_best / ours:.1f} times** as fast as the fastest with the same settings ({fast_name}). With graphs rebuilt and texts in parts it needs
{needed:,.0f} MB ({least}), **{needed / theirs:.0%}** of the {theirs:,.0f} of the leanest peer as it comes ({lean_name}), and is {lean:.1f} times as
fast as the fastest.

{_others(median)}

First order is **{first:.2f} times** as fast as the peer as it comes ({first_same:.2f} with the same settings), ANIL **{anil:.2f} times** ({anil_same:.2f}).

With `hardware.precision=bf16` the model's matrix products are taken in bf16 (float32 parameters, inner loop and gradients), on
processors that have them; the column "gradient" says what that costs in precision: a distance d is a cosine of about 1 - d^2/2.

Why: peers compute padding, keep one graph of all inner steps, and take part of the whole word embedding; here texts are packed,
each inner step has a graph of its own, only the embedding rows that occur take part, and where the first token is all that
is asked for (`model.pooling=first`, as here) the last layer computes no other. With `model.pooling=mean` that last saving is not there."""


def _start(start: dict[str, Any]) -> str:
    """What is before and between meta-updates."""
    sampling = {name: f"{value['sampling'] / value['meta_gradient']:.2%}" for name, value in start["episodes"].items()}
    updates = {name: f"{value:.1f} s" for name, value in start["first_update"].items()}
    return f"""\
`metatrain --help` takes {start["help"]:.2f} s. From the command to the end of the first meta-update, with a warm file cache and
tokens of an earlier run: {_list(updates)}. Drawing, tokenising (from memory) and batching the
episodes of a meta-update takes {_list(sampling)} of its meta-gradient (what adapts, ...)."""


def _exact(times: dict[str, Any], median: dict[str, float], memory: dict[str, float], slow_best: float) -> str:
    lines = [
        "| exact second order | s, as it comes | s, same settings | times the best peer as it comes | gradient | MB, as it comes | MB, same settings |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in EXACT:
        keys = [f"{name}, {kind}" for kind in (COMES, SAME)]
        if keys[1] not in median:
            continue
        fastest = median.get(keys[0], median[keys[1]])
        cells = [name, *(f"{median[key]:.1f}" if key in median else "" for key in keys), f"{slow_best / fastest:.2f}"]
        cells += ["the reference" if name == "plain" else f"{times['gradient_error'][name]:.0e}"]
        cells += [f"{memory[key]:,.0f}" if key in memory else "" for key in keys]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _gpu(lines: list[dict[str, Any]]) -> str:
    machine = lines[0]
    cases: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines[1:]:
        cases.setdefault(line["case"], {})[line["gpu_contender"]] = line
    case, peaks = cases["minilm,5,4"], machine["peak_tflops"]
    peers = [name for name in case if name.startswith(("learn2learn", "higher", "torchopt"))]
    exact_peers = [name for name in peers if "order" not in name and "ANIL" not in name]
    table = ["| | s | times the fastest peer | gradient | memory MB | TFLOP/s |", "|---|---|---|---|---|---|"]
    for kind, rivals in (
        ("exact", exact_peers),
        ("first order", [name for name in peers if "order" in name]),
        ("ANIL", [name for name in peers if "ANIL" in name]),
    ):
        best = min(case[name]["seconds"] for name in rivals)
        reference = case[next(iter(case))]
        for name in [*rivals, *(name for name in case if name.startswith(kind))]:
            each = case[name]
            # Other methods have other gradients.
            error = "" if kind != "exact" else "the reference" if each is reference else f"{each['gradient_error']:.0e}"
            rate = each["tflop"] / each["seconds"]
            shown = name if name in rivals else f"metatrain {name}"
            table.append(f"| {shown} | {each['seconds']:.3f} | {best / each['seconds']:.1f} | {error} | {each['memory_mb']:,} | {rate:.1f} |")
    more = ["| | | s | times learn2learn | memory MB | TFLOP/s |", "|---|---|---|---|---|---|"]
    for name, what in LARGER.items():
        for contender, each in cases.get(name, {}).items():
            shown = contender if contender in peers else f"metatrain {contender}"
            rate = each["tflop"] / each["seconds"]
            ratio = "" if contender.startswith("first order") else f"{cases[name]['learn2learn']['seconds'] / each['seconds']:.1f}"
            more.append(f"| {what} | {shown} | {each['seconds']:.2f} | {ratio} | {each['memory_mb']:,} | {rate:.1f} |")
    profiled = cases["minilm,20,4"]["exact, TF32"]["kernels"]
    number = profiled["number"]
    seconds = {kind: value for kind, value in profiled.items() if kind != "number"}
    shares = ", ".join(f"{kind} {value / sum(seconds.values()):.0%}" for kind, value in sorted(seconds.items(), key=lambda item: -item[1]))
    return f"""\
The same work on one {machine["gpu"]}, torch {machine["torch"]}: medians of {machine["rounds"]} rounds once warm, one contender after the other.
Memory is what torch reserves above the loaded model. Large products reach
{peaks["float32"]:.0f} TFLOP/s in float32, {peaks["TF32"]:.0f} in TF32 and {peaks["bf16"]:.0f} in bf16 there. (What `gpu.py` printed is kept in
`scripts/benchmark/measured/h100.jsonl`, of the first table with the digits shown here; 16 episodes, 20 inner steps of BERT-base and its TF32 are of
another machine of the same kind.)

{chr(10).join(table)}

"One by one" is how a CPU takes episodes, and how metatrain took them on GPUs before; the host then takes longer to start kernels than the GPU to
run them, as it does for the peers, whose seconds therefore are those of the host (learn2learn took 1.00 s on another machine of the same kind). "Together":
the episodes of a meta-batch in one pass over parameters with a first dimension for the episodes (`torch.vmap`). All other rows of metatrain:
that, recorded in CUDA graphs, which is what `hardware=gpu` does (in TF32). The price is memory, for the graphs of all episodes at a time
(`exact_recomputed` needs a third), and padding to a common length: 4.8 TFLOP in place of 2.9.

More inner steps, and a larger model (the size of BERT-base, with random weights; two episodes at a time):

{chr(10).join(more)}

Of the kernels of 20 inner steps in TF32, about {number / 1000:.0f} thousand, by time: {shares}. What is left to gain are fewer
and larger operations between the products. Four times the episodes take 3.3 times as long. With random
weights BERT-base's meta-gradient in TF32 has nothing to do with the one in float32 (learn2learn's own differ by 86% of their length), so its seconds
alone say something.

{_larger_machine()}

In a run (`metatrain train tasks=fdu_mtl algorithm=maml episode.shots=5 episode.queries=5 outer.meta_batch=4 hardware=gpu`) a meta-update takes 0.11 s once
the kernels of its sizes are recorded, which costs 0.3 to 1 s for each of the few sizes; with `hardware.together=1 hardware.fast_kernels=false`
in float32, 1.2 s. The tests of `tests/training/test_gpu.py` passed there, and on an H200 (20, on 27 November 2026): float64
meta-gradients equal to a CPU's, the same bits again and after a resumption, no waiting within a meta-gradient."""


def _larger_machine() -> str:
    """The paragraph on BERT-base with 20 inner steps, from scripts/benchmark/measured/h200.jsonl."""
    machine, *lines = (json.loads(line) for line in (ROOT / "scripts/benchmark/measured/h200.jsonl").read_text().splitlines())
    case = {line["gpu_contender"]: line for line in lines}
    peer, exact, first = case["learn2learn"], case["exact_recomputed, TF32"], case["first order, TF32"]
    return f"""\
BERT-base with 20 inner steps was measured with all contenders on one {machine["gpu"]} (`gpu.py --no-profile --case base,20,4`, medians of
{machine["rounds"]} rounds; `scripts/benchmark/measured/h200.jsonl`): learn2learn {peer["seconds"]:.2f} s and {peer["memory_mb"]:,} MB, metatrain
exact_recomputed in TF32 {exact["seconds"]:.2f} s ({peer["seconds"] / exact["seconds"]:.1f} times as fast) and {exact["memory_mb"]:,} MB, first order in
TF32 {first["seconds"]:.2f} s and {first["memory_mb"]:,} MB."""


def _others(median: dict[str, float]) -> str:
    lines = ["| | s, as it comes | s, same settings | times the peer as it comes |", "|---|---|---|---|"]
    for theirs, mine in OTHERS.values():
        for name in (theirs, mine):
            comes, same = median.get(f"{name}, {COMES}"), median[f"{name}, {SAME}"]
            ratio = median[f"{theirs}, {COMES}"] / (same if comes is None else comes)
            lines.append(f"| {name} | {f'{comes:.2f}' if comes else ''} | {same:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def _profiles(profiles: list[dict[str, Any]]) -> str:
    """Operations by name, with the share of time that each takes, and the share of the machine's peak."""
    parts = []
    for found in profiles:
        rate = found["flop"] / found["seconds"] / 1e9
        shares = {key: value / found["operations_in_all"] for key, value in found["operations"].items()}
        said = ", ".join(f"{key.removeprefix('aten::')} {share:.0%}" for key, share in shares.items() if share >= 0.015)
        parts.append(
            f"- **{found['profiled']}**: {found['flop'] / 1e12:.2f} TFLOP in {found['seconds']:.1f} s are {rate:.0f} GFLOP/s, "
            f"**{rate / found['peak_gflops']:.0%}** of the {found['peak_gflops']:.0f} that a large float32 product reaches in the same process. "
            f"Time by operation: {said}."
        )
    return "\n".join(parts)


def _growth(growth: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(each["contender"] for each in growth))
    lines = ["| | " + " | ".join(f"{name}, s | MB" for name in names) + " |", "|---" * (1 + 2 * len(names)) + "|"]
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for each in growth:
        key, number = each["grows"], each[each["grows"]]
        what = f"{number} {_UNITS[key] if number != 1 else _UNITS[key].removesuffix('s')}"
        cells.setdefault(f"at most {what}" if key == "length" else what, {})[each["contender"]] = each
    for what, found in cells.items():
        lines.append(f"| {what} | " + " | ".join(f"{found[name]['seconds']:.1f} | {found[name]['peak_mb']:,}" for name in names) + " |")
    return "\n".join(lines)


def _list(values: dict[str, str]) -> str:
    return ", ".join(f"{value} ({name})" for name, value in values.items())


def _read(file: str) -> list[dict[str, Any]]:
    """One JSON value, or one a line."""
    text = Path(file).read_text(encoding="utf-8")
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def main(files: list[str]) -> None:
    found = [value for file in files for value in _read(file)]

    def having(key: str) -> list[dict[str, Any]]:
        return [each for each in found if key in each]

    growth = [line for each in having("growth") for line in each["growth"]]
    gpu = [*having("gpu"), *having("gpu_contender")]
    if having("peak_mb"):
        put_section(PAGE, "# Performance", _cpu(having("peak_mb")[0]), inner=False)
    for heading, text in (
        ("## On a GPU", _gpu(gpu) if gpu else None),
        ("## Where the time goes, on the CPU", _profiles(having("profiled")) if having("profiled") else None),
        ("## How cost grows", f"{GROWTH}\n\n{_growth(growth)}\n\n{GROWN}" if growth else None),
        ("## Before and between", _start(having("first_update")[0]) if having("first_update") else None),
    ):
        if text is not None:
            put_section(PAGE, heading, f"{heading}\n\n{text}")


if __name__ == "__main__":
    main(sys.argv[1:])
