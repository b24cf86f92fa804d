"""Write the fault-injection results into docs/reliability.md from the output of scripts/soak.sh in outputs/soak."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metatrain.report.sections import put_between

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FOUND = ROOT / "outputs" / "soak"
BEGIN, END = "<!-- figures: scripts/soak.sh -->", "<!-- end of figures -->"


def figures(faults: list[dict[str, Any]], soak: dict[str, Any] | None) -> str:
    """Return the table of injected faults and the result of the soak test."""
    by_test: dict[str, list[dict[str, Any]]] = {}
    for fault in faults:
        by_test.setdefault(fault["test"], []).append(fault)

    def total(test: str, key: str) -> int:
        return sum(fault.get(key, 0) for fault in by_test.get(test, []))

    def lost(how: str) -> list[dict[str, Any]]:
        return [fault for fault in by_test.get("lost_rank", []) if fault["how"] == how]

    def ended(ranks: list[dict[str, Any]]) -> str:
        slowest = max((fault["seconds"] for fault in ranks), default=0.0)
        return f"the other exits within {slowest} s, with `hardware.timeout={ranks[0]['timeout'] if ranks else 0}`; exit code 75; byte-identical after resume"

    random, stops = by_test["random_kills"][0], by_test["stops"][0]
    signalled = f"{stops['with_a_second_signal']} received a second signal"
    stopped = f"exit codes 143, 130, 75; all byte-identical after resume; slowest exit {stops['slowest_seconds']} s; {signalled}"
    rows = [
        ("SIGKILL at random times", random["kills"], f"{random['runs']} runs byte-identical; at most {random['most_updates_lost']} meta-updates repeated"),
        ("SIGKILL during a save and at other stages", total("kills_inside_a_save", "kills"), f"{total('kills_inside_a_save', 'identical')} byte-identical"),
        ("the same with a naive saver that writes in place (control)", len(by_test["naive_saver"]), f"{total('naive_saver', 'survived')} could be resumed"),
        ("SIGTERM, SIGINT, SIGUSR1 at random times", stops["stops"], stopped),
        ("corrupted checkpoint files", total("mutations", "made"), f"{total('mutations', 'noticed'):,} detected, previous checkpoint used"),
        (
            "sequences of saving, corrupting and deleting checkpoints",
            total("retention", "sequences"),
            "the newest valid and the best checkpoint always available",
        ),
        ("malformed settings", total("malformed_configs", "made"), "exit code 2 and one line, or the value was valid"),
        ("malformed data files", 500, "exit code 2 with file and line, or the row is skipped and counted; never a wrong label"),
        ("code injected as data", total("canaries", "tried"), f"{total('canaries', 'fired')} executed"),
        ("planted secrets", total("secrets", "planted"), f"{total('secrets', 'found')} found in outputs"),
        ("disk full, at each write of a save", len(by_test["disk_full"]), "exit code 75 and one line; nothing lost; byte-identical after resume"),
        ("second process on the same run directory", total("two_processes", "refused"), "rejected, with process id and host of the first"),
        ("one of two processes killed (SIGKILL)", len(lost("SIGKILL")), ended(lost("SIGKILL"))),
        ("one of two processes hung (SIGSTOP)", len(lost("SIGSTOP")), ended(lost("SIGSTOP"))),
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "hydra-core", "safetensors", "wandb"))
    lines = [f"By `bash scripts/soak.sh`, {time.strftime('%d %B %Y')}; Python {platform.python_version()}, {packages}; {platform.system()}, CPU.", ""]
    lines += ["| injected fault | count | outcome |", "|---|---|---|", *(f"| {what} | {number:,} | {outcome} |" for what, number, outcome in rows), ""]
    if soak:
        lines += [
            f"**Soak**: {soak['minutes']:.0f} minutes of training, resuming, evaluating and finetuning in one process, {soak['turns']} cycles. Memory "
            f"{soak['memory_mb_first']:.0f} MB after the first 10%, {soak['memory_mb_last']:.0f} MB at the end: "
            f"{soak['memory_kb_per_turn']:+.0f} KB per cycle, {soak['memory_mb_per_hour']:+.1f} MB per hour. "
            f"Open files {soak['files_first']} and {soak['files_last']}, threads {soak['threads_first']} and "
            f"{soak['threads_last']}, processes {soak['processes_first']} and {soak['processes_last']}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    faults = [json.loads(line) for line in (FOUND / "faults.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = FOUND / "summary.json"
    soak = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    put_between(PAGE, BEGIN, END, figures(faults, soak))


if __name__ == "__main__":
    main()
