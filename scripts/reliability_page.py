"""Writes the figures of docs/reliability.md from what scripts/soak.sh has left in outputs/soak."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FOUND = ROOT / "outputs" / "soak"
BEGIN, END = "<!-- figures: scripts/soak.sh -->\n", "<!-- end of figures -->\n"


def figures(faults: list[dict[str, Any]], soak: dict[str, Any] | None) -> str:
    """The table of injections, and what the soak has found."""
    by_test: dict[str, list[dict[str, Any]]] = {}
    for fault in faults:
        by_test.setdefault(fault["test"], []).append(fault)

    def total(test: str, key: str) -> int:
        return sum(fault.get(key, 0) for fault in by_test.get(test, []))

    def lost(how: str) -> list[dict[str, Any]]:
        return [fault for fault in by_test.get("lost_rank", []) if fault["how"] == how]

    def ended(ranks: list[dict[str, Any]]) -> str:
        slowest = max((fault["seconds"] for fault in ranks), default=0.0)
        return f"the other gone within {slowest} s, with `hardware.timeout={ranks[0]['timeout'] if ranks else 0}`; exit code 75; byte-identical after resume"

    random, stops = by_test["random_kills"][0], by_test["stops"][0]
    stopped = f"exit codes 143, 130, 75; all byte-identical; the slowest took {stops['slowest_seconds']} s; {stops['with_a_second_signal']} got a second signal"
    rows = [
        ("SIGKILL at random times", random["kills"], f"{random['runs']} runs byte-identical; at most {random['most_updates_lost']} meta-updates done twice"),
        ("SIGKILL inside a save, and at other stages", total("kills_inside_a_save", "kills"), f"{total('kills_inside_a_save', 'identical')} byte-identical"),
        ("the same, with a saver that writes in place", len(by_test["naive_saver"]), f"{total('naive_saver', 'survived')} could be resumed"),
        ("SIGTERM, SIGINT, SIGUSR1 at random times", stops["stops"], stopped),
        ("mutated checkpoint files", total("mutations", "made"), f"{total('mutations', 'noticed'):,} noticed, the one before used"),
        ("orders of saving, damaging, pruning", total("retention", "sequences"), "the newest that verifies and the best always there"),
        ("malformed settings", total("malformed_configs", "made"), "exit code 2 and one line, or the value was right"),
        ("malformed data files", 500, "exit code 2 with file and line, or a counted skip; never a wrong label"),
        ("code where data is expected", total("canaries", "tried"), f"{total('canaries', 'fired')} ran"),
        ("secrets planted", total("secrets", "planted"), f"{total('secrets', 'found')} found again"),
        ("disk full, at each write of a save", len(by_test["disk_full"]), "exit code 75 and one line; nothing lost; byte-identical after resume"),
        ("a second process on a run", total("two_processes", "refused"), "refused, with the number and the host of the first"),
        ("a process of a run of two killed", len(lost("SIGKILL")), ended(lost("SIGKILL"))),
        ("a process of a run of two stopped (SIGSTOP), as if it hung", len(lost("SIGSTOP")), ended(lost("SIGSTOP"))),
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "hydra-core", "safetensors", "wandb"))
    lines = [f"By `bash scripts/soak.sh`, {time.strftime('%d %B %Y')}; Python {platform.python_version()}, {packages}; {platform.system()}, CPU.", ""]
    lines += ["| injected | how many | what came of it |", "|---|---|---|", *(f"| {what} | {number:,} | {outcome} |" for what, number, outcome in rows), ""]
    if soak:
        lines += [
            f"**Soak**: {soak['minutes']:.0f} minutes of training, resuming, evaluating and finetuning in one process, {soak['turns']} turns. Memory "
            f"{soak['memory_mb_first']:.0f} MB after the first tenth, {soak['memory_mb_last']:.0f} MB at the end: {soak['memory_kb_per_turn']:+.0f} KB a turn, "
            f"{soak['memory_mb_per_hour']:+.1f} MB an hour. Open files {soak['files_first']} and {soak['files_last']}, threads {soak['threads_first']} and "
            f"{soak['threads_last']}, processes {soak['processes_first']} and {soak['processes_last']}.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    faults = [json.loads(line) for line in (FOUND / "faults.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = FOUND / "summary.json"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    soak = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    PAGE.write_text(f"{before}{BEGIN}{figures(faults, soak)}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
