"""Parts of charts: Vega-Lite encodings and layers, with the colours of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metatrain.report.record import Record
from metatrain.tracking.console import score_name

Spec = dict[str, Any]
TASKS = 40  # maximum number of tasks on a chart; the table has all
ROW = 20  # pixels per task, tensor or label
# From the colour-blind-safe palette of Okabe and Ito (2008).
OURS, THEIRS = "#0072B2", "#8a8a8a"


@dataclass(frozen=True)
class Chart:
    """One chart of a report."""

    key: str  # identifies the chart in file names and on the page
    title: str
    text: str  # caption
    spec: Spec
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def score_axis(record: Record) -> str:
    return f"{score_name(record.results['protocol'])}, %"


def quantity(field: str, title: str, **options: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}, **options}


def count(field: str, title: str) -> dict[str, Any]:
    return quantity(field, title, axis={"tickMinStep": 1, "format": "d"})


def colour(field: str, title: str | None = None, first: Sequence[str] = ()) -> dict[str, Any]:
    """Return a colour encoding; first: all values in the order in which they get colours, or empty for their order in the data."""
    return {"field": field, "type": "nominal", "title": title or field, "sort": None, **({"scale": {"domain": list(first)}} if first else {})}


def intervals(both: dict[str, Any], title: str, tooltip: list[dict[str, Any]]) -> list[Spec]:
    """Return the layers of points at `score` with lines from `low` to `high`; both: encodings of both layers."""
    return [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**both, "x": quantity("low", title), "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {**both, "x": quantity("score", title), "tooltip": tooltip}},
    ]


def dashed(field: str, value: float) -> Spec:
    """Return a layer with a dashed vertical line at this value of the x axis."""
    mark = {"type": "rule", "strokeDash": [4, 4], "color": THEIRS}
    return {"data": {"values": [{field: value}]}, "mark": mark, "encoding": {"x": {"field": field, "type": "quantitative"}}}


def tip(field: str, title: str | None = None, shape: str | None = None) -> dict[str, Any]:
    """Return a tooltip field."""
    numeric = field in ("score", "low", "high", "value", "loss")
    return {"field": field, "title": title or field, **({"format": shape or ".2f"} if shape or numeric else {})}


def one_digit(value: float) -> float:
    return round(value, 1)
