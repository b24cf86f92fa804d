"""`metatrain report [RUN]`: a run as one page, and its charts as pictures."""

from __future__ import annotations

from pathlib import Path

from metatrain.errors import UserError
from metatrain.run.latest import pinned

USAGE = """\
usage: metatrain report [RUN] [out=FILE.html] [pictures=DIR]

Write report.html for a run of train, evaluate, finetune or score, finished or not (default: outputs/latest): learning curves, arms and tasks with
intervals, errors and settings, in one file that opens offline. These commands write it themselves when they finish. With pictures=DIR, also
export every chart as PNG.

examples:
  metatrain report
  metatrain report outputs/latest pictures=figures
"""

_OPTIONS = ("out", "pictures")


def main(arguments: list[str]) -> None:
    """Entry point."""
    named = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    options = dict(argument.split("=", 1) for argument in arguments if argument not in named)
    for key in options:
        if key not in _OPTIONS:
            raise UserError(f"metatrain report has no option {key}=; it has {' and '.join(f'{each}=' for each in _OPTIONS)}")
    if len(named) > 1:
        raise UserError(f"metatrain report takes a single run, not {' '.join(named)}; metatrain compare A B html=FILE shows several")
    if not named and not Path("outputs/latest").exists():
        raise UserError("no run below outputs/ yet; give a run directory")
    run = Path(pinned(named[0] if named else "outputs/latest"))

    from metatrain.report.charts import charts
    from metatrain.report.page import pictures, write_report
    from metatrain.report.record import read
    from metatrain.run.atomic import folder_for, place_for

    page = place_for("out", options["out"], (".html", ".htm")) if options.get("out") else run / "report.html"
    figures = folder_for("pictures", options["pictures"]) if options.get("pictures") else None
    write_report(run, page)
    print(f"report: {page}")
    if figures is not None:
        for picture in pictures(charts(read(run)), figures):
            print(f"image: {picture}")
