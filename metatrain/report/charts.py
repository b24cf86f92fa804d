"""Charts of one run: Vega-Lite specifications, each with a data table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from metatrain.report.chart_parts import OURS, ROW, TASKS, THEIRS, Chart, Spec, colour, count, dashed, intervals, one_digit, quantity, score_axis, tip
from metatrain.report.record import Record
from metatrain.tracking.score_names import read_name, validation_name

_POINTS = 500  # maximum number of points on a curve; each is the mean over a block of meta-updates
_OF_CLASSES = {"precision": "precision", "recall": "recall", "f1": "F1"}
_LABELS = 24  # maximum number of labels on a confusion matrix


def charts(record: Record) -> list[Chart]:
    """Return the charts that the run has data for, in page order."""
    made = [chart(record) for chart in _CHARTS]
    return [chart for chart in made if chart is not None]


def of_arms(record: Record) -> Chart | None:
    """Return the chart of mean scores with intervals, by arm and number of shots."""
    rows, parts = [], []
    for shots, part in _by_shots(record):
        best_first = sorted(part["arms"].items(), key=lambda item: -item[1]["mean"])
        found = [(shots, name, 100 * arm["mean"], 100 * arm["ci95"]) for name, arm in best_first]
        rows += found
        parts.append(_arms_of(found, score_axis(record)))
    if not rows:
        return None
    score = score_axis(record)
    spec = {"vconcat": parts, "resolve": {"scale": {"x": "shared"}}}
    text = "Mean over meta-test tasks with 95% t intervals over tasks (for one or two tasks: over episodes). All arms (methods) see the same episodes."
    return Chart(
        "arms", "Arms", text, spec, ("shots", "arm", score, "± 95%"), [(shots, name, one_digit(mean), one_digit(half)) for shots, name, mean, half in rows]
    )


def _arms_of(rows: Sequence[tuple[str, str, float, float]], score: str) -> Spec:
    """Return the specification of the arms for one number of shots."""
    values = [{"arm": name, "score": mean, "low": mean - half, "high": mean + half, "ours": name == "meta_trained"} for _, name, mean, half in rows]
    both = {
        "y": {"field": "arm", "type": "nominal", "sort": [name for _, name, *_ in rows], "title": None},
        "color": {"condition": {"test": "datum.ours", "value": OURS}, "value": THEIRS},
        "tooltip": [tip("arm"), tip("score"), tip("low", "interval, low"), tip("high", "interval, high")],
    }
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {**both, "x": quantity("low", score), "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 80}, "encoding": {**both, "x": quantity("score", score)}},
    ]
    return {"title": {"text": f"{rows[0][0]}-shot", "anchor": "start"}, "data": {"values": values}, "layer": layers, "height": {"step": 22}, "width": _WIDTH}


def by_shots(record: Record) -> Chart | None:
    """Return the chart of scores by number of support examples per class."""
    parts = list(_by_shots(record))
    if len(parts) < 2:
        return None
    rows = sorted((int(shots), name, 100 * arm["mean"], 100 * arm["ci95"]) for shots, part in parts for name, arm in part["arms"].items())
    values = [{"shots": shots, "arm": name, "score": mean, "low": mean - half, "high": mean + half} for shots, name, mean, half in rows]
    score = score_axis(record)
    x = quantity("shots", "examples per class", axis={"values": sorted({shots for shots, *_ in rows}), "format": "d"})
    tooltip = [
        tip("arm"),
        tip("shots", "examples per class"),
        tip("score"),
        tip("low", "interval, low"),
        tip("high", "interval, high"),
    ]
    spec = {
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "encoding": {"x": x, "y": quantity("score", score), "color": _of_arms(record), "tooltip": tooltip},
    }
    table = [(shots, name, one_digit(mean), one_digit(half)) for shots, name, mean, half in rows]
    return Chart("shots", "Score by shots", "Score of each arm by number of support examples per class.", spec, ("shots", "arm", score, "± 95%"), table)


_STEP_SETS = {"query": ("steps", "losses"), "support": ("support_steps", "support_losses")}  # keys of analysis.json, by set


def by_steps(record: Record) -> Chart | None:
    """Return the chart of scores and log losses of the query and the support set by number of inner steps."""
    found = record.analysis.get("by_steps")
    if not found:
        return None
    rows = [
        (shots, examples, int(steps), 100 * mean, part.get(losses, {}).get(steps))  # runs of earlier versions have no losses, or no support set
        for shots, part in found["by_shots"].items()
        for examples, (scores, losses) in _STEP_SETS.items()
        for steps, mean in part.get(scores, {}).items()
    ]
    if not rows:
        return None
    score, used = score_axis(record), found["steps_used"]
    values = [{"shots": f"{shots}-shot", "set": examples, "steps": steps, "score": mean, "loss": loss} for shots, examples, steps, mean, loss in rows]
    tooltip = [tip("shots"), tip("set"), tip("steps", "inner steps"), tip("score"), tip("loss", "log loss")]
    both = {"x": count("steps", "inner steps"), "color": colour("shots"), "strokeDash": colour("set"), "tooltip": tooltip}
    parts = [
        {"layer": [dashed("steps", used), {"mark": {"type": "line", "point": True}, "encoding": {**both, "y": quantity(field, title)}}]}
        for field, title in (("score", score), *((("loss", "log loss"),) if any(loss is not None for *_, loss in rows) else ()))
    ]
    as_used = ", ".join(f"{shots}-shot {100 * part['as_used']:.1f}" for shots, part in found["by_shots"].items())
    text = (
        f"The meta-trained model before adaptation (0) and after each number of inner steps, on {found['episodes_per_task']} episodes per task; the run "
        f"uses {used} (dashed). With all evaluation settings of the run, the queries of the same episodes: {as_used}."
    )
    table = [(shots, examples, steps, one_digit(mean), "" if loss is None else round(loss, 3)) for shots, examples, steps, mean, loss in rows]
    return Chart(
        "steps", "Score by inner steps", text, {"data": {"values": values}, "vconcat": parts}, ("shots", "set", "inner steps", score, "log loss"), table
    )


def by_task(record: Record) -> Chart | None:
    """Return the chart of scores by task and arm at the first number of shots, with a selector for the arm."""
    arms = record.results.get("arms", {})
    if not arms:
        return None
    first = "meta_trained" if "meta_trained" in arms else next(iter(arms))
    order = sorted(arms[first]["per_task"], key=lambda task: arms[first]["per_task"][task]["mean"])
    rows = [(task, name, 100 * arm["per_task"][task]["mean"], 100 * arm["per_task"][task]["ci95"]) for task in order for name, arm in arms.items()]
    shown = set(order[:TASKS])
    values = [{"task": task, "arm": name, "score": mean, "low": mean - half, "high": mean + half} for task, name, mean, half in rows if task in shown]
    score = score_axis(record)
    y = {"field": "task", "type": "nominal", "sort": order, "title": None}
    tooltip = [tip("task"), tip("arm"), tip("score"), tip("low", "interval, low"), tip("high", "interval, high")]
    layers = intervals({"y": y, "color": _of_arms(record)}, score, tooltip)
    choice = {"input": "select", "options": ["all arms", *arms], "name": "arm "}
    spec = {
        "data": {"values": values},
        "params": [{"name": "arm", "value": "all arms", "bind": choice}],
        "transform": [{"filter": "arm == 'all arms' || datum.arm == arm"}],
        "layer": layers,
        "height": ROW * len(shown),
    }
    left_out = f" The chart shows the lowest {TASKS}, the table all {len(order)}." if len(order) > TASKS else ""
    protocol = record.results["protocol"]
    text = f"{protocol['shots'][0]}-shot, {protocol['episodes_per_task']} episodes per task, with 95% intervals; lowest score of {first} first.{left_out}"
    return Chart(
        "tasks", "Tasks", text, spec, ("task", "arm", score, "± 95%"), [(task, name, one_digit(mean), one_digit(half)) for task, name, mean, half in rows]
    )


def of_losses(record: Record) -> Chart | None:
    """Return the chart of query loss before and after adaptation, by meta-update."""
    return _before_and_after(record, "loss", "Meta-training loss", "query loss", 1.0)


def of_accuracies(record: Record) -> Chart | None:
    """Return the chart of query accuracy, or micro F1 with several labels per text, before and after adaptation, by meta-update."""
    name = read_name(record.score_of("meta_train"))
    return _before_and_after(record, "accuracy", f"Meta-training {name}", f"query {name}, %", 100.0)


def _before_and_after(record: Record, figure: str, title: str, axis: str, scale: float) -> Chart | None:
    """Return the chart of a figure of the queries; a method without inner steps has the same before and after, and is drawn once."""
    updates = [each for each in record.of_split("meta_train") if each.get(f"{figure}_after") is not None and each.get(f"{figure}_before") is not None]
    if not updates:
        return None
    adapts = any(each[f"{figure}_before"] != each[f"{figure}_after"] for each in updates)
    moments = ("before", "after") if adapts else ("after",)
    rows = []
    for block in _blocks(updates):
        means = (scale * sum(each[f"{figure}_{when}"] for each in block) / len(block) for when in moments)
        rows.append((block[-1]["step"], *(round(mean, 4) for mean in means)))
    values = [{"step": step, "when": when, "value": value} for step, *means in rows for when, value in zip(moments, means)]
    spec = {
        "data": {"values": values},
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {
            "x": count("step", "meta-update"),
            "y": quantity("value", axis),
            **({"color": colour("when", "adaptation")} if adapts else {}),
            "tooltip": [tip("step"), *([tip("when")] if adapts else []), tip("value", axis)],
        },
    }
    text = f"Mean over the episodes of a meta-batch{', before and after the inner loop' if adapts else ''}{_of_means(updates)}."
    columns = ("before adaptation", "after adaptation") if adapts else (axis,)
    return Chart(figure, title, text, spec, ("meta-update", *columns), rows)


def of_validation(record: Record) -> Chart | None:
    """Return the chart of meta-validation scores, with true and with shuffled support labels."""
    found = record.of_split("meta_validation")
    if not found:
        return None
    name = next(key for key in ("accuracy", "balanced_accuracy") if key in found[0])
    said = validation_name(record.score_of("meta_validation"), name)
    rows = [(each["step"], one_digit(100 * each[name]), one_digit(100 * each[f"{name}_with_shuffled_labels"])) for each in found]
    values = [{"step": step, "labels": labels, "score": score} for step, *scores in rows for labels, score in zip(("true", "shuffled"), scores)]
    best = found[-1]["best_step"]
    spec = {
        "data": {"values": values},
        "layer": [
            dashed("step", best),
            {
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "x": count("step", "meta-update"),
                    "y": quantity("score", f"{said}, %"),
                    "color": colour("labels", "support labels"),
                    "tooltip": [tip("step"), tip("labels"), tip("score")],
                },
            },
        ],
    }
    text = (
        f"Score on meta-validation tasks after adaptation; the checkpoint at meta-update {best} (dashed) is the best and is selected. With shuffled support "
        "labels, a model that uses its support set drops to chance, or to what label names reveal; a model that memorised the training tasks does not."
    )
    return Chart("validation", "Validation and memorisation", text, spec, ("meta-update", said, "with shuffled labels"), rows)


def of_rates(record: Record) -> Chart | None:
    """Return the chart of learned inner rates."""
    rates = record.analysis.get("rates")
    if not rates:
        return None
    rows, values = [], []
    for each in rates:
        name = each["parameter"].removeprefix("encoder.").removeprefix("backbone.")
        step = "every" if each["step"] is None else str(each["step"] + 1)
        rows.append((name, step, *(f"{each[key]:.3g}" for key in ("mean", "low", "high")), f"{each['began']:g}"))
        if each["began"]:
            values.append({"parameter": name, "step": step, "rate": each["mean"], **{key: each[key] / each["began"] for key in ("mean", "low", "high")}})
    order = list(dict.fromkeys(each["parameter"] for each in values))
    values = [each for each in values if each["parameter"] in set(order[:TASKS])]
    both = {"y": {"field": "parameter", "type": "nominal", "sort": order, "title": None}, "color": colour("step", "inner step")}
    title = "relative to the initial rate"
    tooltip = [tip("parameter"), tip("step", "inner step"), tip("rate", shape=".2e"), tip("mean", title, ".2f")]
    spec = {
        "data": {"values": values},
        "layer": [
            {"mark": {"type": "rule", "opacity": 0.5}, "encoding": {**both, "x": quantity("low", title), "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True}, "encoding": {**both, "x": quantity("mean", title), "tooltip": tooltip}},
        ],
        "height": ROW * len(order[:TASKS]),
    }
    left_out = f" The chart shows the first {TASKS} tensors." if len(order) > TASKS else ""
    text = f"Inner learning rates after meta-training: mean and 5% to 95% range of each tensor.{left_out}"
    return Chart("rates", "Learned inner rates", text, spec, ("parameter", "inner step", "mean", "5%", "95%", "initial"), rows)


def of_task_map(record: Record) -> Chart | None:
    """Return the map of tasks by the mean encoding of their texts."""
    tasks = record.analysis.get("task_map")
    if not tasks:
        return None
    tooltip = [tip("task"), tip("split"), tip("nearest", "most similar training task"), tip("likeness", "similarity", ".2f")]
    place = {"x": {**quantity("x", "first principal component"), "axis": _BARE}, "y": {**quantity("y", "second"), "axis": _BARE}}
    layers = [
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {**place, "color": colour("split"), "shape": colour("split"), "tooltip": tooltip},
        },
        *([{"mark": {"type": "text", "dy": -9, "fontSize": 10}, "encoding": {**place, "text": {"field": "task"}}}] if len(tasks) <= TASKS else []),
    ]
    rows = [(each["task"], each["split"], each.get("nearest", ""), round(each["likeness"], 3) if "likeness" in each else "") for each in tasks]
    text = "Principal components of the mean text encoding of each task, from the meta-trained model; nearby tasks have similar texts."
    spec = {"data": {"values": tasks}, "layer": layers, "height": 380}
    return Chart("map", "Task map", text, spec, ("task", "split", "most similar training task", "similarity"), rows)


def of_confusion(record: Record) -> Chart | None:
    """Return the confusion matrix of the tasks with the lowest scores, with a selector for the task."""
    worst = [each for each in record.analysis.get("mistakes", []) if each["pairs"]]
    if not worst:
        return None
    values, rows = [], []
    for each in worst:
        totals: dict[str, int] = {}
        for label, _, times in each["pairs"]:
            totals[label] = totals.get(label, 0) + times
        confused = [label for label, answer, _ in each["pairs"] if label != answer]
        shown = list(dict.fromkeys([*confused, *each["labels"]]))[:_LABELS] if len(each["labels"]) > _LABELS else each["labels"]
        for label, answer, times in each["pairs"]:
            if label in shown and answer in shown:
                values.append({"task": each["task"], "label": label, "answer": answer, "share": times / totals[label], "count": times})
            if label != answer:
                rows.append((each["task"], label, answer, times, one_digit(100 * times / totals[label])))
    first = worst[0]["task"]
    spec = {
        "data": {"values": values},
        "params": [{"name": "task", "value": first, "bind": {"input": "select", "options": [each["task"] for each in worst], "name": "task "}}],
        "transform": [{"filter": "datum.task == task"}],
        "mark": {"type": "rect"},
        "encoding": {
            "x": {"field": "answer", "type": "nominal", "title": "prediction", "axis": {"labelAngle": -40}},
            "y": {"field": "label", "type": "nominal", "title": "label"},
            "color": {"field": "share", "type": "quantitative", "title": "fraction of label", "scale": {"scheme": "blues", "domain": [0, 1]}},
            "tooltip": [tip("label"), tip("answer", "prediction"), tip("share", "fraction", ".0%"), tip("count", "queries")],
        },
        "height": ROW * max(3, *(min(_LABELS, len(each["labels"])) for each in worst)),
    }
    protocol = record.results.get("protocol")
    text = "The test examples." if protocol is None else f"The tasks with the lowest scores, over all episodes, {protocol['shots'][0]}-shot."
    if (most := max(len(each["labels"]) for each in worst)) > _LABELS:
        text += f" The chart shows the {_LABELS} of {most} labels that are confused most often, the table all confused pairs."
    return Chart("confusion", "Confusion matrix", text, spec, ("task", "label", "prediction", "queries", "% of label"), sorted(rows, key=lambda row: -row[3]))


def of_classes(record: Record) -> Chart | None:
    """Return the chart of accuracy by class of a test file."""
    classes = record.analysis.get("classes")
    if not classes:
        return None
    rows = [(each["label"], one_digit(100 * each["accuracy"]), each["examples"]) for each in classes]
    values = [{"label": label, "score": score, "examples": examples} for label, score, examples in rows]
    y = {"field": "label", "type": "nominal", "sort": [label for label, *_ in rows], "title": None}
    x = quantity("score", "accuracy, %", scale={"domain": [0, 100]})
    spec = {
        "data": {"values": values},
        "mark": {"type": "bar", "color": OURS},
        "encoding": {"y": y, "x": x, "tooltip": [tip("label"), tip("score"), tip("examples")]},
        "height": ROW * len(rows),
    }
    text = f"All {len(rows)} classes with test examples, lowest accuracy first."
    return Chart("classes", "Accuracy by class", text, spec, ("label", "accuracy, %", "test examples"), rows)


def of_class_scores(record: Record) -> Chart | None:
    """Return the chart of precision, recall and F1 by class."""
    classes = record.analysis.get("class_scores")
    if not classes:
        return None
    rows = [(each["label"], *("" if each[key] is None else one_digit(100 * each[key]) for key in _OF_CLASSES), each["examples"]) for each in classes]
    values = [
        {"label": each["label"], "score": 100 * each[key], "measure": name, "examples": each["examples"]}
        for each in classes[:TASKS]
        for key, name in _OF_CLASSES.items()
        if each[key] is not None
    ]
    y = {"field": "label", "type": "nominal", "sort": [each["label"] for each in classes], "title": None}
    x = quantity("score", "%", scale={"domain": [0, 100]})
    tooltip = [tip("label"), tip("measure"), tip("score"), tip("examples")]
    spec = {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 70},
        "encoding": {"y": y, "x": x, "color": colour("measure"), "shape": colour("measure"), "tooltip": tooltip},
        "height": ROW * len(classes[:TASKS]),
    }
    left_out = f" The chart shows the lowest {TASKS}, the table all {len(classes)}." if len(classes) > TASKS else ""
    text = f"Each class that is a label or a prediction, lowest F1 first.{left_out} Without predictions there is no precision, without examples no recall."
    return Chart("class_scores", "Scores by class", text, spec, ("label", "precision, %", "recall, %", "F1, %", "examples"), rows)


def of_reliability(record: Record) -> Chart | None:
    """Return the reliability diagram of a test file: accuracy by confidence."""
    bins = record.analysis.get("reliability")
    if not bins:
        return None
    rows = [(one_digit(100 * each["confidence"]), one_digit(100 * each["accuracy"]), each["examples"]) for each in bins]
    values = [{"confidence": confidence, "score": accuracy, "examples": examples} for confidence, accuracy, examples in rows]
    both = {"x": quantity("confidence", "mean confidence, %", scale={"domain": [0, 100]})}
    y = quantity("score", "accuracy, %", scale={"domain": [0, 100]})
    tooltip = [tip("confidence"), tip("score"), tip("examples")]
    diagonal = {"data": {"values": [{"confidence": 0, "score": 0}, {"confidence": 100, "score": 100}]}, "mark": {"type": "line", "strokeDash": [4, 4]}}
    layers = [
        {**diagonal, "encoding": {**both, "y": y, "color": {"value": THEIRS}}},
        {"mark": {"type": "line", "point": True}, "encoding": {**both, "y": y, "color": {"value": OURS}, "tooltip": tooltip}},
    ]
    text = f"Test examples binned by confidence; dashed: perfect calibration. Calibration error (ECE) {record.results['test']['calibration_error']:.3f}."
    spec = {"data": {"values": values}, "layer": layers}
    return Chart("reliability", "Calibration", text, spec, ("mean confidence, %", "accuracy, %", "test examples"), rows)


def of_learning_curve(record: Record) -> Chart | None:
    """Return the learning curve of the examples of `finetune`."""
    curve = record.results.get("learning_curve")
    if not curve:
        return None
    rows = [(each["examples"], *(one_digit(100 * value) for value in (each["accuracy"], *each["ci95"]))) for each in curve["points"]]
    values = [{"examples": examples, "score": score, "low": low, "high": high} for examples, score, low, high in rows]
    both = {"x": count("examples", "training examples")}
    tooltip = [tip("examples"), tip("score", "accuracy"), tip("low", "interval, low"), tip("high", "interval, high")]
    layers = [
        {"mark": {"type": "rule", "opacity": 0.6}, "encoding": {**both, "y": quantity("low", "accuracy, %"), "y2": {"field": "high"}}},
        {"mark": {"type": "line", "point": True}, "encoding": {**both, "y": quantity("score", "accuracy, %"), "tooltip": tooltip}},
    ]
    low, high = (100 * value for value in curve["last_doubling"]["ci95"])
    text = (
        "Cross-validated accuracy of logistic regression on the encodings before adaptation, with 95% Wilson intervals. "
        f"The last doubling of examples added {100 * curve['last_doubling']['gain']:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]."
    )
    columns = ("training examples", "accuracy, %", "interval, low", "interval, high")
    return Chart("learning_curve", "Learning curve", text, {"data": {"values": values}, "layer": layers}, columns, rows)


def of_speed(record: Record) -> Chart | None:
    """Return the chart of seconds and memory by meta-update."""
    updates = [each for each in record.timings if "seconds" in each]
    if not updates:
        return None
    rows = []
    for block in _blocks(updates):
        seconds = sum(each["seconds"] for each in block) / len(block)
        rows.append((block[-1]["step"], round(seconds, 3), max(each["peak_memory_mb"] for each in block)))
    spec = {
        "data": {"values": [{"step": step, "seconds": seconds, "memory": memory} for step, seconds, memory in rows]},
        "mark": {"type": "line", "strokeWidth": 1.5, "color": OURS},
        "encoding": {
            "x": count("step", "meta-update"),
            "y": {**quantity("seconds", "seconds"), "scale": {"zero": True}},
            "tooltip": [tip("step"), tip("seconds", shape=".3f"), tip("memory", "peak memory, MB")],
        },
    }
    text = f"Time per meta-update, and peak memory so far{_of_means(updates)}."
    return Chart("speed", "Time and memory", text, spec, ("meta-update", "seconds", "peak memory, MB"), rows)


# In page order.
_CHARTS: tuple[Callable[[Record], Chart | None], ...] = (
    *(of_arms, by_shots, by_steps, by_task, of_classes, of_class_scores, of_learning_curve, of_reliability, of_confusion),
    *(of_validation, of_losses, of_accuracies, of_rates, of_task_map, of_speed),
)

_WIDTH = 460  # width of concatenated charts, which cannot take the width of the page
_BARE = {"labels": False, "ticks": False, "grid": False, "domain": True}


def _blocks(records: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    size = _block_size(records)
    for begin in range(0, len(records), size):
        yield records[begin : begin + size]


def _block_size(records: Sequence[dict[str, Any]]) -> int:
    return -(-len(records) // _POINTS)


def _of_means(records: Sequence[dict[str, Any]]) -> str:
    size = _block_size(records)
    return f"; means of {size} meta-updates" if size > 1 else ""


def _by_shots(record: Record) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from record.results.get("by_shots", {}).items()


def _of_arms(record: Record) -> dict[str, Any]:
    """Return the colour encoding of arms, which is the same on all charts."""
    arms = record.results["arms"]
    return colour("arm", first=sorted(arms, key=lambda name: (name != "meta_trained", name)))
