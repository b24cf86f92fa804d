"""Draw the images of README.md into docs/images from a run of sentiment_fewshot: python scripts/docs/images.py RUN

console.svg: what a terminal shows during the run and at its end; report.png: the top of its report.html, by a headless Chromium.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from metatrain.evaluation.arms import is_diagnostic
from metatrain.report.record import Record, read
from metatrain.tracking.console import Display, gain_line, results_table, verdict_lines
from metatrain.tracking.inner_steps import query_figures
from metatrain.tracking.metrics import validation_scores

FOLDER = Path(__file__).parents[2] / "docs" / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SHOWN = 0.7  # of the run that is over when the live screen is shown


def console(record: Record) -> None:
    """The live screen, then the end of the run."""
    screen = Console(record=True, width=124, file=io.StringIO(), force_terminal=True)
    display = Display()
    updates = record.of_split("meta_train")
    now = updates[int(_SHOWN * len(updates))]
    validated = [each for each in record.of_split("meta_validation") if each["step"] <= now["step"]]
    timing = record.timings[now["step"] - 1]
    display.start("meta-training", len(updates), now["step"])
    for before in validated[-2:]:
        display.validated(validation_scores(validated), before["per_task"])
    display.show(
        {
            **query_figures(now, adapts=record.settings["inner"]["steps"] > 0),
            "episodes/s": f"{len(now['tasks']) / timing['seconds']:.2f}",
            "memory": f"{timing['peak_memory_mb'] / 1000:.1f} GB",
        }
    )
    screen.print("$ metatrain train +experiment=sentiment_fewshot", style="bold", highlight=False)
    screen.print(display._render())
    screen.print()
    shots = str(record.results["protocol"]["shots"][0])
    screen.print(results_table(record.results, shots))
    for line in [*verdict_lines(record.results, shots), gain_line(record.results, is_diagnostic) or ""]:
        screen.print(line, highlight=False, soft_wrap=True)
    svg = re.sub(r"@font-face \{.*?\}", "", screen.export_svg(title="metatrain"), flags=re.DOTALL)  # which would be fetched
    (FOLDER / "console.svg").write_text(svg, encoding="utf-8")


def report(run: Path) -> None:
    """The top of the page."""
    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    settings = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,1250", "--virtual-time-budget=10000"]
    page = (run / "report.html").resolve().as_uri()
    subprocess.run([browser, *settings, f"--screenshot={FOLDER / 'report.png'}", page], check=True, capture_output=True)


def main() -> None:
    """Both."""
    run = Path(sys.argv[1])
    FOLDER.mkdir(exist_ok=True)
    console(read(run))
    report(run)


if __name__ == "__main__":
    main()
