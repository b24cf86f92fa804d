"""Charts of a study."""

from __future__ import annotations

from collections.abc import Sequence

from metatrain.report.chart_parts import Chart, Spec, one_digit, quantity

Row = tuple[str, int, float, float]  # name of a line, number of shots, score and half-width of its interval, in points


def against_shots(rows: Sequence[Row]) -> Chart | None:
    """Return the chart of scores by number of support examples per class, with intervals; None: there is only one number."""
    if len({shots for _, shots, *_ in rows}) < 2:
        return None
    values = [{"name": name, "shots": shots, "score": mean, "low": mean - half, "high": mean + half} for name, shots, mean, half in sorted(rows)]
    axis = {"values": sorted({shots for _, shots, *_ in rows}), "format": "d"}
    both = {
        "x": quantity("shots", "examples per class", axis=axis),
        "color": {"field": "name", "type": "nominal", "title": None, "sort": list(dict.fromkeys(name for name, *_ in rows))},
    }
    layers: list[Spec] = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**both, "y": quantity("low", "score"), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True}, "encoding": {**both, "y": quantity("score", "score")}},
    ]
    spec = {"data": {"values": values}, "layer": layers}
    text = "Score by number of support examples per class, with 95% intervals over tasks and training seeds."
    table = [(name, shots, one_digit(mean), one_digit(half)) for name, shots, mean, half in rows]
    return Chart("shots", "Score by shots", text, spec, ("name", "shots", "score", "± 95%"), table)
