"""Charts of a study."""

from __future__ import annotations

from collections.abc import Sequence

from metatrain.report.chart_parts import Chart, Spec, colour, count, one_digit, quantity, tip

Row = tuple[str, int, float, float]  # name of a line, number of shots, score and half-width of its interval, in points
Point = tuple[str, int, float, float, float]  # name, number of shots, value on the x axis, score and half-width of its interval, in points
Step = tuple[str, int, int, float]  # name, number of shots, number of inner steps, score in points


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


def against_steps(rows: Sequence[Step]) -> Chart | None:
    """Return the chart of scores after each number of inner steps; None: no run makes inner steps."""
    if not rows:
        return None
    values = [{"name": name, "shots": f"{shots}-shot", "steps": steps, "score": score} for name, shots, steps, score in rows]
    spec = {
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": count("steps", "inner steps"),
            "y": quantity("score", "score"),
            "color": {**colour("name"), "title": None},
            "strokeDash": colour("shots"),
        },
    }
    text = "Score of the meta-trained model after each number of inner steps, on the first episodes of each task; means over training seeds."
    table = [(name, shots, steps, one_digit(score)) for name, shots, steps, score in rows]
    return Chart("steps", "Score by inner steps", text, spec, ("name", "shots", "inner steps", "score"), table)


def against_value(points: Sequence[Point], key: str, title: str, is_time: bool = False) -> Chart | None:
    """Return the chart of scores against a value of each run, with intervals; None: all have the same value.

    key: of the file; title: of the x axis; is_time: a logarithmic axis.
    """
    if len({value for _, _, value, *_ in points}) < 2:
        return None
    values = [
        {"name": name, "shots": f"{shots}-shot", "x": value, "score": mean, "low": mean - half, "high": mean + half}
        for name, shots, value, mean, half in points
    ]
    x = quantity("x", title, scale={"type": "log"}) if is_time else count("x", title)
    both = {"x": x, "color": {**colour("name"), "title": None}, "tooltip": [tip("name"), tip("shots"), tip("x", title, "~g"), tip("score")]}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**both, "y": quantity("low", "score"), "y2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 60}, "encoding": {**both, "y": quantity("score", "score"), "shape": colour("shots")}},
    ]
    text = f"Score against {title}, with 95% intervals over tasks and training seeds."
    table = [(name, shots, f"{value:.4g}", one_digit(mean), one_digit(half)) for name, shots, value, mean, half in points]
    return Chart(key, f"Score by {title}", text, {"data": {"values": values}, "layer": layers}, ("name", "shots", title, "score", "± 95%"), table)
