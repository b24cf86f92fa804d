"""Names of scores: the keys in files stay, and a person reads what was measured."""

import pytest

from metatrain.tracking.score_names import common_score, read_name, validation_name


def test_tasks_with_different_scores_have_no_common_one():
    assert [common_score(keys) for keys in ([], ["micro_f1"] * 2, ["accuracy", "micro_f1"])] == ["accuracy", "micro_f1", "score"]
    assert [read_name(key) for key in ("micro_f1", "accuracy", "worst_class")] == ["micro F1", "accuracy", "worst_class"]


@pytest.mark.parametrize(
    ("key", "chosen", "said"),
    [
        ("accuracy", "accuracy", "accuracy"),
        ("accuracy", "balanced_accuracy", "balanced accuracy"),
        ("micro_f1", "accuracy", "micro F1"),
        ("micro_f1", "balanced_accuracy", "macro F1"),
        ("chrf", "accuracy", "chrf"),
        ("chrf", "balanced_accuracy", "chrf"),
    ],
)
def test_the_validation_score_is_that_of_the_tasks(key, chosen, said):
    assert validation_name(key, chosen) == said
