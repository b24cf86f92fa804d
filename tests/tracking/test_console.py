import json

import pytest
from rich.console import Console

from metatrain.evaluation.arms import is_diagnostic
from metatrain.tracking import console
from metatrain.tracking.console import Display, gain_line, mean_of, results_table, verdict_lines


def arm(mean: float, balanced: float) -> dict:
    return {"mean": mean, "ci95": 0.01, "balanced": balanced, "adapt_seconds_per_episode": 0.1, "per_task": {"a": {"episodes": 2}}}


def results(balanced: float = 0.9) -> dict:
    comparison = {"arm": "meta_trained", "against": "prototypes", "difference": 0.4, "ci95": [0.3, 0.5], "verdict": "better"}
    comparison["balanced"] = {"difference": -0.1, "ci95": [-0.2, 0.1], "verdict": "not distinguishable"}
    part = {"arms": {"prototypes": arm(0.5, 0.5), "meta_trained": arm(0.9, balanced)}, "comparisons": [comparison]}
    return {"protocol": {"tasks": ["x", "y"], "episodes_per_task": 3}, "by_shots": {"5": part}}


def test_the_table_has_the_best_arm_first_and_the_paired_difference():
    console = Console(width=110)
    with console.capture() as captured:
        console.print(results_table(results(), "5"))
    lines = [line for line in captured.get().splitlines() if "│" in line]
    assert lines[0].split("│")[1].strip() == "meta_trained"
    assert "90.0 ± 1.0" in lines[0]
    assert "+40.0 [+30.0, +50.0]" in lines[1]


def test_verdicts_in_words():
    assert verdict_lines(results(), "5") == ["5-shot: meta_trained is better than prototypes: +40.0 points of accuracy, 95% interval [+30.0, +50.0]"]


def test_where_classes_are_unbalanced_balanced_accuracy_has_a_verdict_too():
    lines = verdict_lines(results(balanced=0.4), "5")
    assert len(lines) == 2
    assert lines[1] == "5-shot: meta_trained is not significantly different from prototypes: -10.0 points of balanced accuracy, 95% interval [-20.0, +10.0]"


def test_the_log_has_the_lines_from_before_it_was_there(tmp_path):
    with Display() as display:
        display.say("before")
        display.log_to(tmp_path / "run.log")
        display.say("after [bold]")
    assert [line.split(" ", 1)[1] for line in (tmp_path / "run.log").read_text().splitlines()] == ["before", "after [bold]"]


def test_progress_without_a_terminal_is_plain_lines(capsys):
    with Display() as display:
        display.start("meta-training", 2)
        display.show({"validation": "0.7"})
        display.advance({"loss": "0.5"})
        display.advance()
    assert "meta-training 2/2  validation 0.7  loss 0.5  remaining 0 s" in capsys.readouterr().out


def test_quiet_and_json(capsys, monkeypatch, tmp_path):
    for mode in ("quiet", "json"):
        monkeypatch.setenv("METATRAIN_CONSOLE", mode)
        with Display() as display:
            display.log_to(tmp_path / f"{mode}.log")
            display.say('a "line" [bold]')
            display.start("meta-training", 1)
            display.advance({"loss": "0.5"})
            display.table(results_table(results(), "5"))
        out = capsys.readouterr().out.splitlines()
        logged = (tmp_path / f"{mode}.log").read_text()
        assert 'a "line" [bold]' in logged and "meta-training 1/1" in logged and "meta_trained" in logged
        if mode == "quiet":
            assert out == []
            continue
        line, job, table = map(json.loads, out)
        assert line["line"] == 'a "line" [bold]' and line["time"]
        assert (job["job"], job["done"], job["total"], job["loss"]) == ("meta-training", 1, 1, "0.5")
        assert table["columns"][0] == "arm" and table["rows"][0][:2] == ["meta_trained", "90.0 ± 1.0"]


def test_the_live_screen_has_the_curve_and_the_tasks_with_the_lowest_scores():
    display = Display()
    display.start("meta-training", 10)
    display.validated([0.5], {"x [bold]": 0.4, "y": 0.6})
    display.validated([0.5, 0.7, 0.6], {"x [bold]": 0.5, "y": 0.7})
    console = Console(width=80)
    with console.capture() as captured:
        console.print(display._render())
    lines = captured.get().splitlines()
    assert "validation ▁█▅ 0.600" in [line.strip() for line in lines]
    assert [line.split() for line in lines[-2:]] == [["x", "[bold]", "0.500", "+0.100"], ["y", "0.700", "+0.100"]]


def test_the_gain_from_meta_training_is_one_line():
    found = {**results()["by_shots"]["5"], "protocol": {"tasks": ["x"], "shots": [5]}}
    assert gain_line(found, is_diagnostic) == "significant gain from meta-training: +40.0 points of accuracy [+30.0, +50.0] over prototypes, 5-shot"
    other = {**found["comparisons"][0], "against": "no_meta_training", "difference": 0.1, "ci95": [-0.1, 0.3]}
    for verdict, difference, word in (("not distinguishable", 0.1, "no significant gain"), ("worse", -0.1, "significant drop")):
        comparisons = [*found["comparisons"], {**other, "verdict": verdict, "difference": difference}]
        said = f"{word} from meta-training: {100 * difference:+.1f} points of accuracy [-10.0, +30.0] over no_meta_training, 5-shot"
        assert gain_line({**found, "comparisons": comparisons}, is_diagnostic) == said
    assert gain_line({**found, "comparisons": []}, is_diagnostic) is None


def test_a_table_says_how_many_classes_episodes_have():
    """95% in episodes of 5 classes says little about a task of 77."""
    for way, classes, said in (
        (5, {"x": 77}, "5-way (of up to 77 classes) 5-shot, "),
        (2, {"x": 2}, "2-way 5-shot, "),
        (None, {}, "all-way (all classes of a task) 5-shot, "),
    ):
        found = results()
        found["protocol"] |= {"way": way, "classes": classes}
        assert str(results_table(found, "5").title).startswith(said)


def test_a_brief_job_leaves_no_line_and_standard_output_is_for_results(capfd, monkeypatch):
    display = Display(stderr=True)
    for seconds in (0.0, 30.0):
        monkeypatch.setattr(console, "_MOMENT", 2.0 - seconds)  # as if the job had taken so much longer
        display.start("encoding", 2, brief=True)
        display.advance(by=2)
    said = capfd.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "encoding 2/2" in said.err and "/s" in said.err


@pytest.mark.parametrize(("episodes", "said"), [([1], "62.5"), ([1, 1], "62.5"), ([1, 1, 1], "62.5 ± 0.0"), ([4], "62.5 ± 0.0")])
def test_one_episode_has_no_interval(episodes, said):
    per_task = {str(task): {"episodes": number} for task, number in enumerate(episodes)}
    assert mean_of({"mean": 0.625, "ci95": 0.0, "per_task": per_task}) == said
