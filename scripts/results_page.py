"""Shared by the scripts that write docs/results.md: sections with their runs, which are made once, and formatted numbers."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metatrain.evaluation.protocol import compared, paired_difference
from metatrain.report.sections import put_section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"

# Joint training on the same tasks, episodes and updates as an experiment of the recommended recipe.
JOINT = [
    *("algorithm=multitask", "algorithm.label_names=false", "inner.fit_head=false", "outer.blend=1.0", "outer.lr=1e-4", "episode.mix=0"),
    *("validation.every=0", "evaluation.arms=[meta_trained]", "evaluation.episodes=1", "evaluation.queries=5", "evaluation.shots=[5]", "report=false"),
]


@dataclass(frozen=True)
class Run:
    """`metatrain COMMAND SETTINGS`."""

    command: str
    settings: Sequence[str]


def train(experiment: str, *settings: str) -> Run:
    """A training run of an experiment."""
    return Run("train", [f"+experiment={experiment}", *settings, "tracking=none"])


@dataclass(frozen=True)
class Section:
    """A section of the page, `### HEADING` and its text, and the runs that it is computed from, by the names of their directories."""

    heading: str
    text: Callable[[], str]
    runs: dict[str, Run] = field(default_factory=dict)  # in an order in which each needs only those before it
    make: Callable[[Sequence[str]], None] | None = None  # makes further runs, with these settings,
    made: Sequence[str] = ()  # which have these names; or a file that another script has written


def write_page(doc: str | None, heading: str, introduction: str, folder: Path, sections: Sequence[Section]) -> None:
    """The command line of such a script: make the runs of the sections that are missing below `folder`, then write those sections.

    A section some of whose runs are not there stays as it is on the page.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", default=[], metavar="WORDS", help="only those whose heading has these words")
    parser.add_argument("--write", action="store_true", help="run nothing")
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="for every run, hardware.threads=1 say")
    arguments = parser.parse_args()
    put_section(PAGE, heading, f"{heading}\n\n{introduction}", inner=False)
    for section in sections:
        if arguments.section and not any(words.lower() in section.heading.lower() for words in arguments.section):
            continue
        if not arguments.write:
            for name, run in section.runs.items():
                run_once(folder / name, run.command, [*run.settings, *arguments.settings])
            if section.make is not None:
                section.make(arguments.settings)
        missing = [name for name in (*section.runs, *section.made) if not is_made(folder / name)]
        if missing:
            print(f"unchanged: {section.heading} (missing {', '.join(missing)})")
        else:
            put_section(PAGE, f"### {section.heading}", f"### {section.heading}\n\n{section.text()}", below=heading)


def run_once(folder: Path, command: str, settings: Sequence[str]) -> None:
    """`metatrain COMMAND SETTINGS` into this run directory, unless its results are there."""
    if is_made(folder):
        return
    print(folder.name, flush=True)
    subprocess.run([sys.executable, "-m", "metatrain", command, *settings, f"hydra.run.dir={folder}"], cwd=ROOT, check=True)


def is_made(folder: Path) -> bool:
    """Whether a run is there, or a file."""
    return folder.is_file() or (folder / "results.json").exists()


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a run."""
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def percent(arm: dict[str, Any]) -> str:
    return f"{100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f}"


def mean(arm: Mapping[str, float]) -> str:
    return f"{100 * arm['mean']:.1f}"


def difference(comparison: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in comparison["ci95"])
    return f"{100 * comparison['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"


def meta_trained(folder: Path, shots: str) -> dict[str, Any]:
    """Return the results of a run's meta-trained arm for a number of examples per class."""
    return read_results(folder)["by_shots"][shots]["arms"]["meta_trained"]


def paired(ours: Path, theirs: Path, shots: str) -> str:
    """The meta-trained arm of one run minus that of another on the same episodes, with an interval over tasks and episodes within them."""
    one, other = ({task: found["scores"] for task, found in meta_trained(run, shots)["per_task"].items()} for run in (ours, theirs))
    (found,) = compared([paired_difference(one, other)])
    return difference(found)


def table(folder: Path, shots: str, seconds: bool = False) -> str:
    """Return the table of a run's arms for a number of examples per class, best first."""
    part = read_results(folder)["by_shots"][shots]
    against = {each["against"]: difference(each) for each in part["comparisons"]}
    lines = [
        f"| arm | accuracy | calibration error | gain |{' adaptation time (s) |' if seconds else ''}",
        f"|---|---|---|---|{'---|' if seconds else ''}",
    ]
    for arm, found in sorted(part["arms"].items(), key=lambda item: -item[1]["mean"]):
        line = f"| `{arm}` | {percent(found)} | {100 * found['calibration_error']:.1f} | {against.get(arm, '')} |"
        lines.append(line + (f" {found['adapt_seconds_per_episode']:.2f} |" if seconds else ""))
    return "\n".join(lines)


def candidates_table(
    folder: Path, prefix: str, candidates: Mapping[str, Sequence[str]], shots: Sequence[str], cell: Callable[[dict[str, Any]], str] = mean
) -> str:
    """Return a row per candidate, named by its settings: scores of the meta-trained arm in the runs PREFIX_NAME."""
    lines = [f"| candidate | {' | '.join(f'{count}-shot' for count in shots)} |", f"|---|{'---|' * len(shots)}"]
    for name, settings in candidates.items():
        cells = [cell(meta_trained(folder / f"{prefix}_{name}", count)) for count in shots]
        lines.append(f"| `{' '.join(settings) or 'unchanged'}` | {' | '.join(cells)} |")
    return "\n".join(lines)
