"""A report as one HTML file that needs no network, and its charts as images."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from omegaconf import OmegaConf

from metatrain.report.chart_parts import Chart
from metatrain.report.charts import charts
from metatrain.report.record import Record, read
from metatrain.run.atomic import write_text
from metatrain.tracking.console import result_rows, verdict_lines
from metatrain.tracking.durations import duration
from metatrain.tracking.metrics import validation_scores
from metatrain.tracking.weights_and_biases import Attached

_PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8a8a", "#7a5195", "#b8860b", "#2f4b7c"]
_WIDTH = 640  # width of a PNG chart in pixels, before scaling


def write_report(run: Path, path: Path, at_end: bool = False) -> None:
    """Write the report of a run directory; at_end: called by the run itself at its end, so that its state is shown as done.

    Raises:
        UserError: there is no run, or one of its files cannot be read.
    """
    record = read(run)
    if at_end:
        record = replace(record, facts={**record.facts, "state": "done", "exit": 0})
    results = record.results
    context = {
        "record": record,
        "title": record.title,
        "charts": charts(record),
        "headline": _headline(record),
        "tables": [(shots, *result_rows(results, shots)) for shots in results.get("by_shots", {})],
        "verdicts": [line for shots in results.get("by_shots", {}) for line in verdict_lines(results, shots)],
        "mistakes": [each for each in record.analysis.get("mistakes", []) if each["examples"]],
        "settings": OmegaConf.to_yaml(OmegaConf.create(record.settings)),
        "again": again(record),
        "facts": list(_facts(record)),
    }
    write_text(path, _page("run.html.jinja", context))


def write_comparison(context: dict[str, Any], found: Sequence[Chart], path: Path) -> None:
    """Write a comparison of runs; context: the variables of compare.html.jinja."""
    write_text(path, _page("compare.html.jinja", {**context, "charts": found}))


def images(found: Sequence[Chart], folder: Path) -> list[Path]:
    """Write each chart as KEY.png and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for chart in found:
        path = folder / f"{chart.key}.png"
        path.write_bytes(vl_convert.vegalite_to_png(_of_fixed_width(chart.spec), scale=2, config=_config()))
        made.append(path)
    return made


def svg(chart: Chart) -> str:
    """Return a chart as SVG."""
    return vl_convert.vegalite_to_svg(_of_fixed_width(chart.spec), config=_config())


def attached(run: Path, page: Path | None, model: Path | None) -> Attached:
    """Return the files for W&B: the report with its charts as PNG (written to `charts/` of the run) and tables, if page is not None; the model
    directory, if model is not None."""
    record = read(run)
    if record.command == "finetune":
        base = record.results.get("base", {}).get("checkpoint") or record.settings["checkpoint"]  # of several bases, the chosen one
    else:
        base = record.settings["model"]["name"]
    facts = {"base_model": base, "algorithm": record.settings["algorithm"]["name"], "run": str(record.path)}
    model_sent = None if model is None else str(model)
    if page is None:
        return Attached(model=model_sent, model_facts=facts)
    tables: dict[str, dict[str, list[Any]]] = {}
    for shots in record.results.get("by_shots", {}):
        _, columns, rows = result_rows(record.results, shots)
        tables[f"{shots}-shot"] = {"columns": columns, "rows": rows}
    made = {path.stem: str(path) for path in images(charts(record), record.path / "charts")}
    files = {"report.html": str(page), "results.json": str(record.path / "results.json")}
    return Attached(str(page), {name: path for name, path in files.items() if Path(path).is_file()}, made, tables, model_sent, facts)


def again(record: Record) -> str:
    """Return the command that repeats the run."""
    return shlex.join(["metatrain", record.command, *record.overrides])


def _page(template: str, context: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("metatrain.report"), autoescape=select_autoescape(["jinja"]), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    specs = {chart.key: chart.spec for chart in context["charts"]}
    return environment.get_template(template).render({**context, "library": _library(), "specs": specs, "config": _config()})


@functools.cache
def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default


def _config() -> dict[str, Any]:
    """Return the common Vega configuration of all charts; the page sets text and line colours for a light or a dark background."""
    return {"range": {"category": _PALETTE}, "font": "system-ui, sans-serif", "view": {"stroke": None}, "axis": {"grid": True, "labelLimit": 200}}


def _of_fixed_width(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a chart for PNG: with a fixed width, a white background, and without input elements."""
    fixed = {"background": "white", **spec, "params": [{key: value for key, value in each.items() if key != "bind"} for each in spec.get("params", [])]}
    return fixed if "vconcat" in spec else {**fixed, "width": _WIDTH}


def _headline(record: Record) -> list[tuple[str, str, str]]:
    """Return (number, name, detail) for the key numbers at the top of the page."""
    results, found = record.results, []
    for shots, part in results.get("by_shots", {}).items():
        name = "meta_trained" if "meta_trained" in part["arms"] else max(part["arms"], key=lambda arm: part["arms"][arm]["mean"])
        arm = part["arms"][name]
        others = {other: each["mean"] for other, each in part["arms"].items() if other != name}
        more = f"best other arm: {max(others, key=lambda other: others[other])} {100 * max(others.values()):.1f}" if others else ""
        found.append((f"{100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f}", f"{name}, {shots}-shot", more))
    found += _of_finetuning(record)
    validated = record.of_split("meta_validation")
    if validated:
        found.append((f"{100 * max(validation_scores(validated)):.1f}", "best validation score", f"at meta-update {validated[-1]['best_step']}"))
    seconds = sum(each.get("seconds", 0.0) for each in record.timings)
    if seconds:
        updates = max(each["step"] for each in record.timings)
        found.append((duration(seconds), "meta-training time", f"{updates} meta-updates"))
    return found


def _of_finetuning(record: Record) -> list[tuple[str, str, str]]:
    """Return the key numbers of a run of `finetune` or `score`, as `_headline`."""
    results, found = record.results, []
    beside = results.get("logistic_regression", {}).get("cross_validation")
    found += [(number, name, more) for number, name, more in record.analysis.get("key_numbers", [])]
    folds = results.get("cross_validation") or {}
    if "accuracy" in folds:
        more = f"; logistic regression {100 * beside:.1f}" if beside is not None else ""
        found.append((f"{100 * folds['accuracy']:.1f}", "cross-validated accuracy", f"{folds['examples']} examples{_interval(folds)}{more}"))
    test: dict[str, Any] = results.get("test", {})
    data = record.settings.get("data")
    score = data["score"] if isinstance(data, dict) and data.get("target") else "accuracy"
    if score in test:
        more = f"; logistic regression {100 * test['logistic_regression']:.1f}" if "logistic_regression" in test else ""
        if "majority_class" in test:
            more += f"; most frequent class {100 * test['majority_class']:.1f}"
        source = f"from {results['examples']} examples" if "examples" in results else f"of {results['data']}"
        before = ", before none_of_these" if "accuracy_with_rejection" in test else ""
        said = f"{score} on {test['examples']} test examples{before}"
        found.append((f"{100 * test[score]:.1f}", said, f"{source}{_interval(test)}{more}"))
        if before:
            lost = f"{100 * test['false_rejection_rate']:.1f}% of the same test examples are rejected"
            found.append((f"{100 * test['accuracy_with_rejection']:.1f}", "accuracy with none_of_these", lost))
    if "weighted_f1" in test:
        found.append((f"{100 * test['macro_f1']:.1f}", "macro F1", f"mean of the classes; weighted by examples {100 * test['weighted_f1']:.1f}"))
    return found


def _interval(score: dict[str, Any]) -> str:
    """Return the 95% interval of a score as text, or an empty string."""
    return f", 95% interval [{100 * score['ci95'][0]:.1f}, {100 * score['ci95'][1]:.1f}]" if "ci95" in score else ""


def _facts(record: Record) -> Any:
    """Yield (name, value) for time, state, hardware and versions of the run."""
    facts = record.facts
    for key in ("started", "ended", "state", "exit", "seed", "git"):
        if facts.get(key) is not None:
            yield key, facts[key]
    yield from facts.get("hardware", {}).items()
    yield from facts.get("versions", {}).items()
    yield "run directory", record.path
    if facts.get("resumed_with"):
        yield "resumed with", " ".join(facts["resumed_with"])
