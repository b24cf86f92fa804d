"""The console says what adaptation does, and nothing of it where there is none."""

from metatrain.tracking.inner_steps import adaptation_line, query_figures, steps_table

FIGURES = {"loss_before": 0.6741, "loss_after": 0.5, "accuracy_before": 0.5, "accuracy_after": 0.75}


def test_figures_of_a_meta_update_are_before_and_after_only_where_there_is_an_inner_loop():
    assert query_figures(FIGURES, adapts=True) == {"loss": "0.674 → 0.500", "accuracy": "0.50 → 0.75"}
    assert query_figures(FIGURES, adapts=False) == {"loss": "0.500", "accuracy": "0.75"}
    assert query_figures(FIGURES, adapts=False, score="micro_f1") == {"loss": "0.500", "micro F1": "0.75"}


def test_a_line_of_validation():
    query = {"query_loss": [1.0, 0.5], "query_accuracy": [0.5, 0.75]}
    support = {"support_loss": [0.9, 0.1], "support_accuracy": [0.6, 1.0]}
    said = "  inner steps 0 to 1, one episode per task: query loss 1.000 0.500, accuracy 0.50 0.75"
    assert adaptation_line(query, [0, 1]) == said
    assert adaptation_line(query | support, [0, 1]) == f"{said}; support loss 0.900 0.100, accuracy 0.60 1.00"
    assert adaptation_line(query, [0, 30]).startswith("  inner steps 0 to 30 (0, 30), one")


def test_a_table_of_the_meta_test():
    part = {"steps": {"0": 0.5, "3": 0.625}, "losses": {"0": 1.0, "3": 0.5}, "support_steps": {"0": 0.6, "3": 1.0}, "support_losses": {"0": 0.9, "3": 0.1}}
    table = steps_table({"episodes_per_task": 5, "steps_used": 3, "by_shots": {"5": part}}, "5")
    assert table.title == "meta_trained by inner step, 5-shot, 5 episodes per task; the run takes 3"
    rows = list(zip(*(column.cells for column in table.columns)))
    assert rows == [("0", "50.0", "1.000", "60.0", "0.900"), ("3", "62.5", "0.500", "100.0", "0.100")]
    columns = [column.header for column in steps_table({"episodes_per_task": 5, "steps_used": 3, "by_shots": {"5": part}}, "5", "micro F1").columns]
    assert columns == ["inner steps", "query micro F1", "query loss", "support micro F1", "support loss"]
    without = {"steps": part["steps"], "losses": part["losses"]}
    assert len(steps_table({"episodes_per_task": 1, "steps_used": 3, "by_shots": {"5": without}}, "5").columns) == 3
