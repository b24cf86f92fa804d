"""Charts say what the run's files say, and Vega-Lite can draw them."""

import json
from pathlib import Path

import made_up
import pytest
import vl_convert

from metatrain.report.charts import charts
from metatrain.report.comparison_charts import by_setting, compared_tasks, curves
from metatrain.report.page import images
from metatrain.report.record import Record, read


@pytest.fixture
def record(tmp_path):
    return read(made_up.run(tmp_path / "run"))


def test_a_complete_run_has_every_chart_and_each_is_drawn(record, tmp_path):
    found = charts(record)
    assert [chart.key for chart in found] == ["arms", "shots", "steps", "tasks", "confusion", "validation", "loss", "accuracy", "rates", "map", "speed"]
    for chart in found:
        assert chart.rows and all(len(row) == len(chart.columns) for row in chart.rows)
        svg = vl_convert.vegalite_to_svg(chart.spec)
        assert svg.count("<path") > 1, chart.key
    made = images(found, tmp_path / "figures")
    assert [path.name for path in made] == [f"{chart.key}.png" for chart in found]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def test_numbers_are_those_of_the_files(record):
    rows = {chart.key: chart.rows for chart in charts(record)}
    assert rows["arms"][:2] == [("1", "meta_trained", 80.0, 5.0), ("1", "prototypes", 70.0, 5.0)]
    assert rows["shots"][0] == (1, "meta_trained", 80.0, 5.0) and rows["shots"][-1] == (5, "prototypes", 70.0, 5.0)
    of_query, of_support = [("5", "query", 0, 50.0, 0.693), ("5", "query", 2, 80.0, 0.4)], [("5", "support", 0, 60.0, 0.5), ("5", "support", 2, 100.0, 0.01)]
    assert rows["steps"] == [*of_query, *of_support]
    assert rows["tasks"][0] == (made_up.HOSTILE, "meta_trained", 70.0, 2.0)  # the lowest first
    assert rows["confusion"][0] == (made_up.HOSTILE, "good", made_up.HOSTILE, 3, 60.0)
    assert rows["validation"] == [(3, 53.0, 50.0), (6, 56.0, 50.0)]
    assert rows["loss"][1] == (2, 1.0, 0.5) and rows["accuracy"][1] == (2, 50.0, 75.0)
    assert rows["rates"][0] == ("w", "every", "0.02", "0.01", "0.04", "0.01")
    assert rows["speed"][-1] == (6, 0.5, 106)


def test_earlier_runs_have_no_support_scores_by_inner_step(record):
    (part,) = record.analysis["by_steps"]["by_shots"].values()
    for key in ("support_steps", "support_losses", "losses"):
        del part[key]
    (chart,) = [chart for chart in charts(record) if chart.key == "steps"]
    assert chart.rows == [("5", "query", 0, 50.0, ""), ("5", "query", 2, 80.0, "")] and "<path" in vl_convert.vegalite_to_svg(chart.spec)


def test_without_inner_steps_there_is_no_before_and_after(record):
    for each in record.metrics:
        if "loss_before" in each:
            each |= {"loss_before": each["loss_after"], "accuracy_before": each["accuracy_after"]}
    found = {chart.key: chart for chart in charts(record)}
    assert found["loss"].columns == ("meta-update", "query loss") and found["loss"].rows[1] == (2, 0.5)
    assert found["accuracy"].columns == ("meta-update", "query accuracy, %") and found["accuracy"].rows[1] == (2, 75.0)
    assert "adaptation" not in json.dumps(found["loss"].spec) + found["loss"].text and "inner loop" not in found["loss"].text
    assert "<path" in vl_convert.vegalite_to_svg(found["loss"].spec)


def test_rates_are_drawn_as_multiples_of_where_they_began(record):
    (chart,) = [chart for chart in charts(record) if chart.key == "rates"]
    assert {each["parameter"]: each["mean"] for each in chart.spec["data"]["values"]} == {"w": 2.0, "head.bias": 1.0}


def test_long_curves_are_drawn_as_means_of_stretches(tmp_path):
    chart = {chart.key: chart for chart in charts(read(made_up.run(tmp_path / "run", updates=1250)))}["loss"]
    assert len(chart.rows) == -(-1250 // 3) and chart.rows[0] == (3, 1.0, round((1 + 1 / 2 + 1 / 3) / 3, 4))
    assert "means of 3 meta-updates" in chart.text


def test_a_run_that_has_just_begun_has_no_charts(tmp_path):
    run = made_up.run(tmp_path / "run")
    for name in ("results.json", "analysis.json", "metrics.jsonl", "timings.jsonl"):
        (run / name).unlink()
    assert charts(read(run)) == []


def test_one_number_of_shots_has_no_curve_over_shots(record):
    del record.results["by_shots"]["1"]
    assert "shots" not in [chart.key for chart in charts(record)]


def test_runs_over_one_another(record, tmp_path):
    other = json.loads(json.dumps(record.results))
    del other["by_shots"]["1"]["arms"]["prototypes"]["per_task"]["x"]
    run = made_up.run(tmp_path / "other")
    (run / "results.json").write_text(json.dumps(other))
    both = [("A", record), ("B", read(run))]
    assert curves(both).rows == [("A", 3, 53.0), ("A", 6, 56.0), ("B", 3, 53.0), ("B", 6, 56.0)]
    tasks = compared_tasks([("A", record, "meta_trained"), ("B", read(run), "prototypes")])
    assert tasks.rows[:2] == [(made_up.HOSTILE, "A", 70.0, 2.0), (made_up.HOSTILE, "B", 60.0, 2.0)]
    for chart in (curves(both), tasks):
        assert "<path" in vl_convert.vegalite_to_svg(chart.spec)
    del other["by_shots"]["5"]
    (run / "results.json").write_text(json.dumps(other))
    only = compared_tasks([("A", record, "meta_trained"), ("B", read(run), "prototypes")])
    assert [row[0] for row in only.rows] == [made_up.HOSTILE] * 2 and only.text.startswith("1-shot")


def test_scores_against_the_setting_that_differs():
    runs = []
    for rate, mean in ((0.1, 0.8), (0.01, 0.7), (1.0, 0.4)):
        arms = {"meta_trained": {"mean": mean, "ci95": 0.05, "per_task": {}}}
        results = {"protocol": {"scores": {"x": "accuracy"}}, "arms": arms, "by_shots": {"5": {"arms": arms}, **({"1": {"arms": arms}} if rate < 1 else {})}}
        runs.append((rate, Record(Path("run"), {}, [], {}, results, {}, [], []), "meta_trained"))
    chart = by_setting("inner.lr", runs)
    assert chart is not None and chart.rows == [("5-shot", "0.01", 70.0, 5.0), ("5-shot", "0.1", 80.0, 5.0), ("5-shot", "1", 40.0, 5.0)]
    assert chart.spec["layer"][1]["encoding"]["x"]["scale"] == {"type": "log"}
    assert by_setting("inner.steps", [(0.0, runs[0][1], "meta_trained"), *runs[1:]]).spec["layer"][1]["encoding"]["x"]["scale"] == {"zero": False}
