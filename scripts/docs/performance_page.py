"""Write the sections of docs/performance.md for the given measurement files: python scripts/docs/performance_page.py FILE ...

The files are what the scripts in scripts/benchmark/ printed. Each is known by what is in it: times of all contenders, growth,
a profile, the start-up, or a GPU. The other sections, and what was written by hand, stay as they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from metatrain.report.sections import put_section

ROOT = Path(__file__).parents[2]
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
CPU = "## Speed and memory of a meta-gradient on the CPU"
GROWTH = """\
Default: one episode (four for the rows on text length), 5 inner steps, texts of at most 128 tokens; each row changes one of them. One run
each after warm-up, in a separate process."""
GROWN = "With `exact_recomputed`, each inner step adds only one copy of the adapted parameters (the trajectory) to the memory."
LARGER = {
    "minilm,20,4": "MiniLM, 20 inner steps",
    "minilm,5,16": "MiniLM, 16 episodes",
    "base,5,4": "BERT-base, 5 inner steps",
    "base,20,4": "BERT-base, 20 inner steps",
}
_UNITS = {"steps": "inner steps", "episodes": "episodes", "length": "tokens per text"}
COMES, SAME = "as it comes", "fast"
# Names in the files of measurements, and on the page.
_NAMES = {"one by one": "sequential", "together": "vmap without CUDA graphs", "element by element": "elementwise", "sums": "reductions"}


def _cpu(times: dict[str, Any]) -> str:
    """Return the section on one meta-gradient on the CPU."""
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
{CPU}

Task: one meta-gradient of {times["episodes"]} episodes, 2-way 5-shot, 10 support and 10 query reviews each (FDU-MTL, at most
{times["length"]} tokens; {tokens["support"]:,} support and {tokens["query"]:,} query tokens in total), {times["steps"]} inner SGD steps on all parameters of
all-MiniLM-L6-v2 with its pooler and a linear head, float32. {times["processor"]}, {times["threads"]} threads. Medians of {max(rounds)} rounds
({min(rounds)} for the slower libraries). Libraries alternate; each measurement runs in a separate process after one warm-up.

To repeat all measurements of this page that a script writes:

    python scripts/benchmark/meta_step.py --learn2learn FOLDER > times.json
    python scripts/benchmark/meta_step.py --learn2learn FOLDER --grow > growth.json
    python scripts/benchmark/meta_step.py --profile "metatrain exact" > profile-1.json                    # and so on
    python scripts/benchmark/start_up.py > start.json
    python scripts/benchmark/gpu.py --learn2learn FOLDER --minutes 9 > gpu.jsonl
    python scripts/docs/performance_page.py times.json growth.json profile-*.json start.json gpu.jsonl

- **Default**: PyTorch and the C allocator as installed.
- **Tuned**: every library with the settings of `hardware.fast_kernels`, the oneDNN float32 matrix product ({same:.0f} against {comes:.0f} GFLOP/s for
  2048 x 2048 matrices in the same processes) and an allocator that keeps freed memory.
- **Speed-up**: over the fastest other library in the default setting.
- **Gradient error**: distance to the gradient of `plain`, a plain PyTorch loop, relative to its norm. **Memory**: peak above the loaded model.

{_exact(times, median, memory, slow_best)}

metatrain's exact meta-gradient takes {ours:.1f} s: **{slow_best / ours:.1f} times** as fast as the fastest other library in the default setting ({slow_name}),
**{fast_best / ours:.1f} times** as fast as the fastest in the tuned setting ({fast_name}). With recomputed activations and micro-batches it needs
{needed:,.0f} MB ({least}), **{needed / theirs:.0%}** of the {theirs:,.0f} MB of the most memory-efficient other library, default
setting ({lean_name}), and is {lean:.1f} times as fast as the fastest other library.

{_others(median)}

First order is **{first:.2f} times** as fast as learn2learn in the default setting ({first_same:.2f} in the tuned setting),
ANIL **{anil:.2f} times** ({anil_same:.2f}).

`hardware.precision=bf16` computes the model's matrix products in bf16, with float32 parameters, inner loop and gradients, on processors that support
bf16. The cost in precision is the gradient error: an error d corresponds to a cosine similarity of about 1 - d^2/2.

Why metatrain is faster:

- packed batches: no computation on padding tokens;
- one autograd graph per inner step instead of one graph of all inner steps;
- sparse embedding gradients: only embedding rows that occur in the episode are differentiated;
- with `model.pooling=first`, as here, the last layer computes only the first token (this saving does not apply to `model.pooling=mean`)."""


def _start(start: dict[str, Any]) -> str:
    """Return the section on start-up and data loading."""
    sampling = {name: f"{value['sampling'] / value['meta_gradient']:.2%}" for name, value in start["episodes"].items()}
    updates = {name: f"{value:.1f} s" for name, value in start["first_update"].items()}
    return f"""\
`metatrain --help` takes {start["help"]:.2f} s. From the command to the end of the first meta-update, with a warm file cache and
cached token ids: {_list(updates)}. Sampling, tokenising (cached) and batching the
episodes of a meta-update takes {_list(sampling)} of the time of its meta-gradient, by adapted parameters."""


def _exact(times: dict[str, Any], median: dict[str, float], memory: dict[str, float], slow_best: float) -> str:
    lines = [
        "| exact second order | time (s), default | time (s), tuned | speed-up | gradient error | memory (MB), default | memory (MB), tuned |",
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
    table = [
        "| library and mode | time (s) | speed-up over the fastest other library | gradient error | memory (MB) | TFLOP/s |",
        "|---|---|---|---|---|---|",
    ]
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
            shown = name if name in rivals else f"metatrain {_said(name)}"
            table.append(f"| {shown} | {each['seconds']:.3f} | {best / each['seconds']:.1f} | {error} | {each['memory_mb']:,} | {rate:.1f} |")
    more = ["| case | library and mode | time (s) | speed-up over learn2learn | memory (MB) | TFLOP/s |", "|---|---|---|---|---|---|"]
    for name, what in LARGER.items():
        for contender, each in cases.get(name, {}).items():
            shown = contender if contender in peers else f"metatrain {_said(contender)}"
            rate = each["tflop"] / each["seconds"]
            ratio = "" if contender.startswith("first order") else f"{cases[name]['learn2learn']['seconds'] / each['seconds']:.1f}"
            more.append(f"| {what} | {shown} | {each['seconds']:.2f} | {ratio} | {each['memory_mb']:,} | {rate:.1f} |")
    profiled = cases["minilm,20,4"]["exact, TF32"]["kernels"]
    number = profiled["number"]
    seconds = {kind: value for kind, value in profiled.items() if kind != "number"}
    shares = ", ".join(f"{_said(kind)} {value / sum(seconds.values()):.0%}" for kind, value in sorted(seconds.items(), key=lambda item: -item[1]))
    return f"""\
The same task on one {machine["gpu"]}, torch {machine["torch"]}: medians of {machine["rounds"]} rounds after warm-up, one library after the other.
Memory is what PyTorch reserves above the loaded model. Large matrix products reach
{peaks["float32"]:.0f} TFLOP/s in float32, {peaks["TF32"]:.0f} in TF32 and {peaks["bf16"]:.0f} in bf16 on this GPU. The output of `gpu.py` is in
`scripts/benchmark/measured/h100.jsonl` (first table: rounded as shown). 16 episodes, 20 inner steps of BERT-base and BERT-base in TF32 were
measured on another machine of the same type.

{chr(10).join(table)}

"Sequential": one episode after the other, as on a CPU; the host then takes longer to launch kernels than the GPU to
run them. The same holds for the other libraries, so their times are host times (learn2learn took 1.00 s on another machine of the same type).
"vmap": the episodes of a meta-batch in one vectorised pass (`torch.vmap`). All other rows of metatrain use vmap and captured CUDA graphs, as
`hardware=gpu` does (in TF32). The cost is memory for the activations of all episodes at once (`exact_recomputed` needs a third) and padding to a
common length: 4.8 instead of 2.9 TFLOP.

More inner steps and a larger model (size of BERT-base, random weights, two episodes at a time):

{chr(10).join(more)}

Time by kind of kernel for 20 inner steps in TF32, about {number / 1000:.0f} thousand kernels: {shares}. Further
speed-ups need fewer and larger kernels between the matrix products. Four times as many episodes take 3.3 times as long. With random
weights, BERT-base's meta-gradient in TF32 is unrelated to that in float32 (for learn2learn too: 86% relative error), so only its times are
meaningful.

{_larger_machine()}

In a run (`metatrain train tasks=fdu_mtl algorithm=maml episode.shots=5 episode.queries=5 outer.meta_batch=4 hardware=gpu`) a meta-update takes 0.11 s
after CUDA graph capture, which costs 0.3 to 1 s for each of the few batch shapes. With `hardware.vectorized_episodes=1 hardware.fast_kernels=false`
(sequential, without CUDA graphs) in float32 it takes 1.2 s.
The tests of `tests/training/test_gpu.py` passed on this GPU and on an H200 (20 tests, 27 November 2026):
float64 meta-gradients equal those of a CPU, repeated and resumed runs are bit-identical, no host-device synchronisation within a meta-gradient.

`gpu.py --minutes 9` also has decoders in the shapes of SmolLM2-135M and of a Llama with 1B parameters (random weights, LoRA of rank 8 on all linear layers;
exact, first order, in context), 64 episodes at a time and the encoding of 20,000 texts, each beside other libraries. These rows have not been
measured on a GPU yet; `gpu.py --small` runs all of them at small sizes on a CPU."""


def _said(name: str) -> str:
    """Return the name of a contender or of a kind of kernels as the page has it."""
    for measured, shown in _NAMES.items():
        name = name.replace(measured, shown)
    return name


def _larger_machine() -> str:
    """The paragraph on BERT-base with 20 inner steps, from scripts/benchmark/measured/h200.jsonl."""
    machine, *lines = (json.loads(line) for line in (ROOT / "scripts/benchmark/measured/h200.jsonl").read_text().splitlines())
    case = {line["gpu_contender"]: line for line in lines}
    peer, exact, first = case["learn2learn"], case["exact_recomputed, TF32"], case["first order, TF32"]
    return f"""\
BERT-base with 20 inner steps was measured with all libraries on one {machine["gpu"]} (`gpu.py --no-profile --case base,20,4`, medians of
{machine["rounds"]} rounds; `scripts/benchmark/measured/h200.jsonl`): learn2learn {peer["seconds"]:.2f} s and {peer["memory_mb"]:,} MB, metatrain
exact_recomputed in TF32 {exact["seconds"]:.2f} s ({peer["seconds"] / exact["seconds"]:.1f} times as fast) and {exact["memory_mb"]:,} MB, first order in
TF32 {first["seconds"]:.2f} s and {first["memory_mb"]:,} MB."""


def _others(median: dict[str, float]) -> str:
    lines = [
        "| first order, ANIL | time (s), default | time (s), tuned | speed-up over learn2learn, default |",
        "|---|---|---|---|",
    ]
    for theirs, mine in OTHERS.values():
        for name in (theirs, mine):
            comes, same = median.get(f"{name}, {COMES}"), median[f"{name}, {SAME}"]
            ratio = median[f"{theirs}, {COMES}"] / (same if comes is None else comes)
            lines.append(f"| {name} | {f'{comes:.2f}' if comes else ''} | {same:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def _profiles(profiles: list[dict[str, Any]]) -> str:
    """Return the operations with their shares of the time, and the achieved share of the machine's peak."""
    parts = []
    for found in profiles:
        rate = found["flop"] / found["seconds"] / 1e9
        shares = {key: value / found["operations_in_all"] for key, value in found["operations"].items()}
        said = ", ".join(f"{key.removeprefix('aten::')} {share:.0%}" for key, share in shares.items() if share >= 0.015)
        parts.append(
            f"- **{found['profiled']}**: {found['flop'] / 1e12:.2f} TFLOP in {found['seconds']:.1f} s are {rate:.0f} GFLOP/s, "
            f"**{rate / found['peak_gflops']:.0%}** of the {found['peak_gflops']:.0f} of a large float32 matrix product in the same process. "
            f"Time by operation: {said}."
        )
    return "\n".join(parts)


def _growth(growth: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(each["contender"] for each in growth))
    lines = ["| changed value | " + " | ".join(f"{name}, time (s) | {name}, memory (MB)" for name in names) + " |", "|---" * (1 + 2 * len(names)) + "|"]
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
        put_section(PAGE, CPU, _cpu(having("peak_mb")[0]))
    for heading, text in (
        ("## On a GPU", _gpu(gpu) if gpu else None),
        ("## Profile on the CPU", _profiles(having("profiled")) if having("profiled") else None),
        ("## Scaling with inner steps, episodes and text length", f"{GROWTH}\n\n{_growth(growth)}\n\n{GROWN}" if growth else None),
        ("## Start-up and data loading", _start(having("first_update")[0]) if having("first_update") else None),
    ):
        if text is not None:
            put_section(PAGE, heading, f"{heading}\n\n{text}")


if __name__ == "__main__":
    main(sys.argv[1:])
