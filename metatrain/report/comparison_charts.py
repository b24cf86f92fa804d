"""Charts of several runs, for the page of `metatrain compare`."""

from __future__ import annotations

from collections.abc import Sequence

from metatrain.report.chart_parts import ROW, TASKS, Chart, colour, count, intervals, one_digit, quantity, score_axis, tip
from metatrain.report.record import Record
from metatrain.tracking.metrics import validation_scores


def curves(named: Sequence[tuple[str, Record]]) -> Chart | None:
    """Return the chart of validation scores of several runs."""
    rows = []
    for name, record in named:
        validated = record.of_split("meta_validation")
        rows += [(name, each["step"], one_digit(100 * score)) for each, score in zip(validated, validation_scores(validated))]
    if not rows:
        return None
    spec = {
        "data": {"values": [{"run": name, "step": step, "score": score} for name, step, score in rows]},
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": count("step", "meta-update"),
            "y": quantity("score", "validation score, %"),
            "color": colour("run"),
            "tooltip": [tip("run"), tip("step"), tip("score")],
        },
    }
    return Chart("validation", "Validation", "Score after adaptation on the meta-validation tasks.", spec, ("run", "meta-update", "score, %"), rows)


def compared_tasks(named: Sequence[tuple[str, Record, str]]) -> Chart | None:
    """Return the chart of scores by task, for the tasks and the first number of shots common to all runs; named: (name, record, arm) of each."""
    results = [(name, record.results["by_shots"], arm) for name, record, arm in named]
    shots = next((each for each in results[0][1] if all(each in by_shots for _, by_shots, _ in results)), None)
    if shots is None:
        return None
    arms = {name: by_shots[shots]["arms"][arm]["per_task"] for name, by_shots, arm in results}
    first = arms[named[0][0]]
    order = sorted((task for task in first if all(task in tasks for tasks in arms.values())), key=lambda task: first[task]["mean"])
    if not order:
        return None
    rows = [(task, name, 100 * tasks[task]["mean"], 100 * tasks[task]["ci95"]) for task in order for name, tasks in arms.items()]
    shown = set(order[:TASKS])
    values = [{"task": task, "run": name, "score": mean, "low": mean - half, "high": mean + half} for task, name, mean, half in rows if task in shown]
    score = score_axis(named[0][1])
    both = {"y": {"field": "task", "type": "nominal", "sort": order, "title": None}, "color": colour("run")}
    tooltip = [tip("task"), tip("run"), tip("score"), tip("low", "interval, low"), tip("high", "interval, high")]
    spec = {
        "data": {"values": values},
        "layer": intervals(both, score, tooltip),
        "height": ROW * len(shown),
    }
    text = f"{shots}-shot, with 95% intervals over episodes; tasks are sorted by the score of {named[0][0]}, lowest first."
    return Chart(
        "tasks", "Tasks", text, spec, ("task", "run", score, "± 95%"), [(task, name, one_digit(mean), one_digit(half)) for task, name, mean, half in rows]
    )


def by_setting(setting: str, compared: Sequence[tuple[float, Record, str]]) -> Chart | None:
    """Return the chart of scores against a numeric setting, by number of shots; compared: (value, record, arm) of each run."""
    common = [shots for shots in compared[0][1].results["by_shots"] if all(shots in record.results["by_shots"] for _, record, _ in compared)]
    rows = []
    for shots in common:
        for value, record, arm in sorted(compared, key=lambda each: each[0]):
            score = record.results["by_shots"][shots]["arms"][arm]
            rows.append((f"{shots}-shot", value, 100 * score["mean"], 100 * score["ci95"]))
    if not rows:
        return None
    axis = score_axis(compared[0][1])
    positive = all(value > 0 for _, value, *_ in rows)
    values = [{"shots": shots, "setting": value, "score": mean, "low": mean - half, "high": mean + half} for shots, value, mean, half in rows]
    both = {"x": quantity("setting", setting, **({"scale": {"type": "log"}} if positive else {})), "color": colour("shots")}
    told = [tip("shots"), tip("setting", setting, "~g"), tip("score"), tip("low", "interval, low"), tip("high", "interval, high")]
    layers = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**both, "y": quantity("low", axis), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True}, "encoding": {**both, "y": quantity("score", axis), "tooltip": told}},
    ]
    text = f"Score against {setting}, with 95% intervals over tasks; these do not show whether two values differ, which the paired table above does."
    table = [(shots, f"{value:g}", one_digit(mean), one_digit(half)) for shots, value, mean, half in rows]
    return Chart("setting", f"Score by {setting}", text, {"data": {"values": values}, "layer": layers}, ("shots", setting, axis, "± 95%"), table)
