"""Prediction sets: the quantile of held-out scores, weights under label shift, and what is refused."""

import json
import math

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.models.decisions import decided, softmax
from metatrain.models.finetuned_folder import FINETUNED
from metatrain.models.prediction_sets import calibration, limits

LABELS = ["a", "b", "c"]


def logits_of(number: int, seed: int = 0, shares=(1 / 3, 1 / 3, 1 / 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, number, p=shares)
    return rng.normal(size=(number, 3)) + 1.5 * np.eye(3)[labels], labels


def covered(facts: dict, coverage: float, logits: np.ndarray, labels: np.ndarray) -> float:
    scores = 1 - softmax(logits)[np.arange(len(labels)), labels]
    return float(np.mean(scores <= limits("m", facts, LABELS, coverage)[labels]))


@pytest.mark.parametrize(("number", "coverage"), [(20, 0.8), (39, 0.9), (100, 0.95)])
def test_the_limit_is_the_quantile_that_counts_the_text_itself(number, coverage):
    logits, labels = logits_of(number)
    facts = calibration(logits, labels, None)
    scores = np.sort(1 - softmax(logits)[np.arange(number), labels])
    assert limits("m", facts, LABELS, coverage) == pytest.approx(np.full(3, scores[math.ceil((number + 1) * coverage) - 1]), abs=3e-6)


def test_coverage_is_as_stated_on_average():
    test = logits_of(4000, seed=1)
    found = [covered(calibration(*logits_of(40, seed), None), 0.9, *test) for seed in range(2, 102)]
    assert 0.89 < np.mean(found) < 0.93  # exact: between 0.9 and 0.9 + 1/41


def test_weights_keep_the_coverage_where_other_classes_are_frequent():
    before, after = np.array([0.8, 0.1, 0.1]), np.array([0.1, 0.1, 0.8])
    test = logits_of(4000, 1, after)
    examples = [logits_of(200, seed, before) for seed in range(2, 42)]
    shift = np.log(after / before)
    weighted = [covered(calibration(logits + shift, labels, after / before), 0.9, test[0] + shift, test[1]) for logits, labels in examples]
    ignored = [covered(calibration(logits + shift, labels, None), 0.9, test[0] + shift, test[1]) for logits, labels in examples]
    assert 0.88 < np.mean(weighted) < 0.94 < np.mean(ignored)


def test_examples_that_were_not_held_out_do_not_count():
    logits, labels = logits_of(30)
    logits[:11] = np.nan
    assert calibration(logits, labels, None) == {"held_out": 19}


def test_a_set_has_the_most_probable_label_and_out_of_scope():
    (found,) = decided(np.array([[0.0, 1.0, 0.5]]), LABELS, 2.0, limits=np.zeros(3))
    assert found.prediction_set == ("b", "none_of_these")
    (found,) = decided(np.array([[0.0, 1.0, 0.5]]), LABELS, None, limits=np.full(3, np.inf))
    assert found.prediction_set == ("b", "c", "a")


@pytest.mark.parametrize(
    ("facts", "coverage", "said"),
    [
        ({"held_out": 30, "scores": [0.5] * 30}, 1.0, "coverage=1.0 must be between 0 and 1"),
        (None, 0.9, "coverage=0.9: m has no held-out predictions of its examples; finetune it again, with a fitted head (inner.fit_head=true) and 20 or more"),
        ({"held_out": 19}, 0.9, "coverage=0.9 needs 20 or more examples that cross-validation has held out, and m has 19; add examples"),
        ({"held_out": 98, "scores": [0.5] * 98}, 0.99, "coverage=0.99 needs 99 or more examples"),
    ],
)
def test_what_is_refused(facts, coverage, said):
    with pytest.raises(UserError) as error:
        limits("m", facts, LABELS, coverage)
    assert said in str(error.value)


def test_99_examples_are_enough_for_99_percent():
    assert np.isfinite(limits("m", {"held_out": 99, "scores": [0.5] * 99}, LABELS, 0.99)).all()


@pytest.mark.slow
def test_from_finetune_to_predict_and_score(cli, tmp_path):
    rows = "".join(f"text {number} {label},{label}\n" for number in range(12) for label in ("bad", "good"))
    (tmp_path / "examples.csv").write_text(f"text,label\n{rows}")
    assert cli("finetune", "checkpoint=tiny", "data.train=examples.csv", "report=false", "hydra.run.dir=run").code == 0
    facts = json.loads((tmp_path / "run" / "model" / FINETUNED).read_text())["prediction_sets"]
    assert facts["held_out"] == len(facts["scores"]) == 24
    said = cli("predict", "model=run", "text=text 3 good", "coverage=0.9").out.splitlines()
    assert said[-1].startswith("prediction set: ")
    for name in ("out.jsonl", "out.csv"):
        assert cli("predict", "model=run", "data=examples.csv", f"output={name}", "coverage=0.9").code == 0
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert set(line["prediction_set"]) <= {"bad", "good"} and line["predicted_label"] in line["prediction_set"]
    header, first = (tmp_path / "out.csv").read_text().splitlines()[:2]
    assert header == "text,label,predicted_label,probability,prediction_set,reason" and json.dumps(line["prediction_set"]).replace('"', '""') in first
    scored = cli("score", "model=run", "data=examples.csv", "coverage=0.9", "report=false", "hydra.run.dir=scores")
    assert scored.code == 0 and "prediction sets, coverage stated 0.9, measured" in scored.out
    assert json.loads((tmp_path / "scores" / "results.json").read_text())["prediction_sets"]["examples"] == 24
    assert "coverage=0.99 needs 99 or more examples" in cli("predict", "model=run", "text=a", "coverage=0.99").err
