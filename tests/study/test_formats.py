"""Tables of a study as LaTeX and csv, and its chart."""

import csv
import io

from metatrain.report.page import svg
from metatrain.report.study_charts import against_shots, against_steps, against_value
from metatrain.study.formats import csv_text, latex
from metatrain.study.tables import MarkdownTable

TABLE = MarkdownTable(
    "5-shot",
    ["run", "score", "difference from `one_a`", "p"],
    [["`one_a`", "80.1 ± 2.0", "", ""], ["`outer.lr=1e-2 & x`", "79.0", "-1.1 [-2.0, +0.5]", "< 0.001"]],
)


def test_latex():
    lines = latex(TABLE, "Two rates, 50% of `x`.", "rates").splitlines()
    assert r"\caption{Two rates, 50\% of \texttt{x}.}" in lines and r"\label{tab:rates}" in lines and r"\begin{tabular}{lrrr}" in lines
    rows = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert rows == [
        r"run & score & difference from \texttt{one\_a} & p \\",
        r"\midrule",
        r"\texttt{one\_a} & 80.1 $\pm$ 2.0 &  &  \\",
        r"\texttt{outer.lr=1e-2 \& x} & 79.0 & $-$1.1 [$-$2.0, +0.5] & $<$ 0.001 \\",
    ]


def test_csv_has_a_column_for_each_number():
    rows = list(csv.reader(io.StringIO(csv_text(TABLE))))
    of_difference = ["difference from one_a", "difference from one_a low", "difference from one_a high"]
    assert rows[0] == ["run", "score", "score ±", *of_difference, "p"]
    assert rows[1:] == [["one_a", "80.1", "2.0", "", "", "", ""], ["outer.lr=1e-2 & x", "79.0", "", "-1.1", "-2.0", "+0.5", "< 0.001"]]


def test_the_chart_of_scores_by_shots():
    rows = [("one", 1, 60.0, 2.0), ("one", 5, 70.0, 1.0), ("two", 1, 50.0, 0.0), ("two", 5, 75.0, 3.0)]
    chart = against_shots(rows)
    assert chart.rows == rows and svg(chart).startswith("<svg") and "two" in svg(chart)
    assert against_shots(rows[::2]) is None


def test_the_chart_of_scores_by_inner_steps():
    rows = [("one", 5, 0, 50.0), ("one", 5, 3, 70.0), ("two", 5, 0, 55.0), ("two", 5, 3, 60.0)]
    chart = against_steps(rows)
    assert chart.key == "steps" and chart.rows == rows and "inner steps" in svg(chart)
    assert against_steps([]) is None


def test_the_chart_of_scores_by_a_value_of_each_run():
    points = [("few", 1, 3.0, 60.0, 2.0), ("many", 1, 30.0, 71.0, 1.5)]
    chart = against_value(points, "training_tasks", "meta-training tasks")
    assert chart.rows == [("few", 1, "3", 60.0, 2.0), ("many", 1, "30", 71.0, 1.5)] and "meta-training tasks" in svg(chart)
    assert against_value(points[:1], "training_tasks", "meta-training tasks") is None
    timed = against_value(points, "training_time", "seconds", is_time=True)
    assert timed.spec["layer"][0]["encoding"]["x"]["scale"] == {"type": "log"} and svg(timed).startswith("<svg")
