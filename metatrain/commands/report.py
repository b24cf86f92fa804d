"""`metatrain report [RUN]`: write the report of a run as one page, and its charts as images."""

from __future__ import annotations

from pathlib import Path

from metatrain.errors import UserError
from metatrain.run.latest import pinned

USAGE = """\
usage: metatrain report [RUN] [out=FILE.html] [images=DIR]

Write report.html for a run of train, evaluate, finetune or score, finished or not (default: outputs/latest): learning curves, arms and tasks with
intervals, errors and settings, in one file that opens offline. These commands write it themselves when they finish. With images=DIR, also
export every chart as PNG.

examples:
  metatrain report
  metatrain report outputs/latest images=figures
"""

_OPTIONS = ("out", "images")
_FORMER = {"pictures": "images"}  # former name of an option -> its name


def main(arguments: list[str]) -> None:
    """Entry point."""
    named = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    given = dict(argument.split("=", 1) for argument in arguments if argument not in named)
    for former in _FORMER.keys() & given.keys():
        print(f"{former}= is now {_FORMER[former]}=; the former name still works")
    options = {_FORMER.get(key, key): value for key, value in given.items()}
    for key in options:
        if key not in _OPTIONS:
            raise UserError(f"metatrain report has no option {key}=; it has {' and '.join(f'{each}=' for each in _OPTIONS)}")
    if len(named) > 1:
        raise UserError(f"metatrain report takes a single run, not {' '.join(named)}; metatrain compare A B html=FILE shows several")
    if not named and not Path("outputs/latest").exists():
        raise UserError("no run below outputs/ yet; give a run directory")
    run = Path(pinned(named[0] if named else "outputs/latest"))

    from metatrain.report.charts import charts
    from metatrain.report.page import images, write_report
    from metatrain.report.record import read
    from metatrain.run.atomic import folder_for, place_for

    page = place_for("out", options["out"], (".html", ".htm")) if options.get("out") else run / "report.html"
    figures = folder_for("images", options["images"]) if options.get("images") else None
    write_report(run, page)
    print(f"report: {page}")
    if figures is not None:
        for image in images(charts(read(run)), figures):
            print(f"image: {image}")
