"""Results of a search: a table, plots, and the best settings as an experiment."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.table import Table

BEST = "best"  # name of the experiment


def table(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> Table:
    """Return the table of trials, best first."""
    found = Table(title=f"{len(rows)} trials, best validation score first", title_justify="left")
    for column in ("trial", "score", "validations", "state", *keys):
        found.add_column(column, justify="right" if column in ("trial", "score", "validations") else "left", no_wrap=True)
    for row in sorted(rows, key=lambda row: (row["state"] != "complete", -(row["score"] or 0.0))):
        score = "" if row["score"] is None else f"{100 * row['score']:.1f}"
        found.add_row(str(row["trial"]), score, str(row["validations"]), row["state"], *(_shown(row.get(key)) for key in keys))
    return found


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write all trials as CSV, in order."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(folder: Path, study: optuna.Study, several: bool) -> list[Path]:
    """Plot scores against settings, and the importance of settings if there are `several` trials and settings; return the paths."""
    import matplotlib

    matplotlib.use("agg")
    from optuna.visualization import matplotlib as plots

    drawn: dict[str, Any] = {
        "parallel_coordinates": plots.plot_parallel_coordinate,
        "slices": plots.plot_slice,
        "history": plots.plot_optimization_history,
    }
    if several:
        drawn["importance"] = plots.plot_param_importances
    paths = []
    for name, plot in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these plots are experimental in Optuna
            axes = plot(study)
        figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        matplotlib.pyplot.close(figure)
        paths.append(folder / f"{name}.png")
    return paths


def experiment(base: Sequence[str], found: Sequence[str], groups: Sequence[str], score: float, name: str) -> str:
    """Return the best settings as an experiment file: the settings of every trial (`base`), then those of the best trial (`found`).

    groups: config groups, whose options are chosen by `GROUP=OPTION`.
    """
    chosen, values = [], []
    for item in (*base, *found):
        key, _, value = item.partition("=")
        plain = key.lstrip("+")
        if plain in groups:
            chosen.append(f"/{plain}: {value}" if key.startswith("+") else f"override /{plain}: {value}")
        else:
            values.append((plain, value))
    lines = ["# @package _global_", f"# metatrain train --config-dir FOLDER +experiment={name}", f"# Validation score: {score!r}.", "defaults:"]
    lines += [f"  - {item}" for item in sorted(chosen, key=lambda item: item.startswith("override"))]
    lines += ["  - _self_", ""]
    lines += _nested(values)
    return "\n".join(lines) + "\n"


def _nested(values: Sequence[tuple[str, str]], depth: int = 0) -> list[str]:
    """Return dotted settings as lines of nested YAML; the last value of a repeated setting wins."""
    heads: dict[str, list[tuple[str, str]]] = {}
    for key, value in values:
        head, _, rest = key.partition(".")
        heads.setdefault(head, []).append((rest, value))
    lines = []
    for head, inside in heads.items():
        if inside[-1][0] == "":
            lines.append(f"{'  ' * depth}{head}: {_yaml(inside[-1][1])}")
        else:
            lines += [f"{'  ' * depth}{head}:", *_nested(inside, depth + 1)]
    return lines


def _yaml(value: str) -> str:
    """Return the value of an override as YAML, whose quoting rules differ from Hydra's."""
    if not value.startswith(("'", '"')):
        return value
    text: Any = OverridesParser.create().parse_override(f"key={value}").value()
    return json.dumps(text, ensure_ascii=False)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
