"""The scikit-learn estimator: the same results as `metatrain finetune`, and at home among scikit-learn's tools."""

import json
import pickle

import numpy as np
import pytest
from conftest import ROOT
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import metatrain
from metatrain.estimator import FewShotClassifier

TEXTS = ["a fine, good film", "good and quiet", "I liked it, good", "a bad, dull film", "bad and loud", "I hated it, bad"]
LABELS = np.array(["good"] * 3 + ["bad"] * 3)
NEW = ["good film", "bad film", "quiet"]
FAST = {"base": "tiny", "device": "cpu"}


@pytest.fixture(scope="module")
def fitted():
    return FewShotClassifier(**FAST).fit(TEXTS, LABELS)


def test_it_gives_what_the_command_gives(cli, tmp_path):
    rows = [f'"{text}",{label}' for text, label in zip(TEXTS, LABELS)]
    (tmp_path / "examples.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "new.csv").write_text("\n".join(["text", *NEW]) + "\n")
    settings = ("seed=3", "inner.steps=4", "inner.lr=0.02", "inner.fit_head=false", "report=false")
    assert cli("finetune", "checkpoint=tiny", "data.train=examples.csv", "hydra.run.dir=run", *settings).code == 0
    found = cli("predict", "model=run", "data=new.csv", "top=2")
    classifier = FewShotClassifier(**FAST, inner_steps=4, inner_lr=0.02, fit_head=False, random_state=3).fit(TEXTS, LABELS)
    assert classifier._files["3_Dense/model.safetensors"] == (tmp_path / "run" / "model" / "3_Dense" / "model.safetensors").read_bytes()
    probabilities = classifier.predict_proba(NEW)
    for line, label, row in zip(found.out.splitlines(), classifier.predict(NEW), probabilities, strict=True):
        expected = json.loads(line)
        assert expected["label"] == label and expected["probability"] == pytest.approx(row.max(), abs=2e-6)
    classifier.save(tmp_path / "saved")
    assert cli("predict", "model=saved", "data=new.csv", "top=2").out == found.out


def test_random_state_is_the_seed():
    """It draws the folds that choose the strength of the fitted head."""
    texts, labels = TEXTS * 3, np.tile(LABELS, 3)
    labels[::5] = "bad"
    fits = [FewShotClassifier(**FAST, fit_head=True, adapt="head", random_state=seed).fit(texts, labels).predict_proba(NEW) for seed in (0, 7, 7)]
    np.testing.assert_array_equal(fits[1], fits[2])
    assert np.abs(fits[0] - fits[1]).max() > 0
    drawn = FewShotClassifier(**FAST, random_state=np.random.RandomState(5)).fit(TEXTS, LABELS)
    assert drawn.seed_ == np.random.RandomState(5).randint(2**31 - 1)


@pytest.mark.parametrize(
    "labels", [np.array([7, 7, 7, 12, 12, 12]), np.array([True] * 3 + [False] * 3), ["good"] * 3 + ["bad"] * 3], ids=["int", "bool", "str"]
)
def test_labels_keep_their_type(labels, tmp_path):
    classifier = FewShotClassifier(**FAST).fit(np.array(TEXTS), labels)
    np.testing.assert_array_equal(classifier.classes_, np.unique(labels))
    predicted = classifier.predict(NEW)
    assert predicted.dtype == classifier.classes_.dtype and classifier.predict_proba(NEW).shape == (3, 2)
    np.testing.assert_array_equal(predicted, classifier.classes_[classifier.predict_proba(NEW).argmax(1)])
    np.testing.assert_array_equal(predicted, classifier.classes_[(classifier.decision_function(NEW) > 0).astype(int)])
    classifier.save(tmp_path / "saved")
    again = metatrain.load(tmp_path / "saved")
    assert again.classes_.dtype.kind == classifier.classes_.dtype.kind and again.get_params()["base"] == "tiny"
    np.testing.assert_array_equal(again.predict(NEW), predicted)


def test_columns_are_in_the_order_of_classes():
    """Of whole numbers 10 comes after 9; label names are sorted as strings."""
    labels = np.array([9, 9, 10, 10, 2, 2])
    classifier = FewShotClassifier(**FAST, fit_head=True, adapt="head").fit(TEXTS, labels)
    assert classifier.classes_.tolist() == [2, 9, 10] and classifier._classifier.labels == ["10", "2", "9"]
    named = FewShotClassifier(**FAST, fit_head=True, adapt="head").fit(TEXTS, np.array(["b", "b", "c", "c", "a", "a"]))
    np.testing.assert_allclose(classifier.predict_proba(NEW), named.predict_proba(NEW), atol=1e-5)
    assert classifier.decision_function(NEW).shape == (3, 3)


def test_it_is_copied_and_stored_without_code(fitted, tmp_path):
    expected = fitted.predict_proba(NEW)
    state = fitted.__getstate__()
    assert all(isinstance(content, bytes) for content in state["_files"].values())
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in state["_files"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(NEW), expected)
    fitted.save(tmp_path / "saved")
    fitted.save(tmp_path / "saved")  # again: it replaces itself
    np.testing.assert_array_equal(metatrain.load(tmp_path / "saved").predict_proba(NEW), expected)
    assert not hasattr(clone(fitted), "classes_") and clone(fitted).get_params() == fitted.get_params()
    outside = FewShotClassifier(**FAST)
    outside.__setstate__({**state, "_files": {"../outside.txt": b""}})
    with pytest.raises(ValueError, match="'../outside.txt' lies outside"):
        outside.predict(NEW)


def test_saving_replaces_nothing_else(fitted, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for place in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(ValueError, match="holds something else than a saved classifier; choose a new directory"):
            fitted.save(place)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "classifier.json").write_text('{"format": "other"}')
    with pytest.raises(metatrain.errors.UserError, match="classifier.json cannot be read: its format is 'other'"):
        metatrain.load(tmp_path / "broken")


def test_pairs_are_tuples_or_two_columns():
    pairs = [(text, "a question") for text in TEXTS]
    from_tuples = FewShotClassifier(**FAST).fit(pairs, LABELS)
    table = np.array(pairs, dtype=object)
    np.testing.assert_array_equal(from_tuples.predict_proba(table), from_tuples.predict_proba(pairs))
    assert np.abs(from_tuples.predict_proba([("good film", "is it")]) - from_tuples.predict_proba([("good film is it", "")])).max() > 0


def test_out_of_scope(fitted):
    assert fitted.predict([]).shape == (0,) and fitted.predict_proba([]).shape == (0, 2)
    classifier = FewShotClassifier(**FAST, fit_head=True, adapt="head", oos_false_rejection_rate=0.9).fit(TEXTS, LABELS)
    assert set(classifier.predict([*TEXTS, "", "good bad"])) == {"good", "bad", "none_of_these"}
    with pytest.raises(ValueError, match="predicts none_of_these, which is a string; use labels that are strings"):
        FewShotClassifier(**FAST, oos_false_rejection_rate=0.1).fit(TEXTS, [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ("good film", LABELS, r"X must be a list of strings, not a string; use \[text\]"),
        ([*TEXTS[:5], None], LABELS, r"X\[5\] must be a string, not None"),
        ([*TEXTS[:5], " "], LABELS, r"X\[5\] is empty"),
        ([*TEXTS[:5], "\ud800"], LABELS, r"X\[5\] has half a character"),
        (np.zeros((6, 3)), LABELS, r"X must be a column of texts.*\(6, 3\)"),
        ([], [], "X has 0 texts"),
        (TEXTS, None, "requires y to be passed, but the target y is None"),
        (TEXTS, ["good"] * 6, r"y has only one class \('good'\); a classifier needs examples of at least two"),
        (TEXTS, [*LABELS[:5], "bad\u200b"], "y has two labels that are read as 'bad'"),
        (TEXTS, [*LABELS[:5], ""], "y has the label '', which cannot be read"),
        (TEXTS, np.array([*LABELS[:5], 1], dtype=object), "y has labels of several types"),
        (TEXTS, [*([label] for label in LABELS[:5]), ["good", "bad"]], "y has several labels for a text, and FewShotClassifier predicts one"),
        (TEXTS, np.linspace(0, 1, 6), "Unknown label type"),
        (TEXTS, LABELS[:5], "inconsistent numbers of samples"),
    ],
)
def test_wrong_input_is_a_value_error(texts, labels, said):
    with pytest.raises(ValueError, match=said):
        FewShotClassifier(**FAST).fit(texts, labels)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"base": "./nothing"}, "checkpoint=./nothing: no such run or model directory"),
        ({"settings": {"inner.stepz": 3}}, "no setting named 'inner.stepz'; did you mean 'inner.steps'?"),
        ({"inner_steps": "many"}, "inner.steps: Value 'many' of type 'str' could not be converted to Integer"),
        ({"random_state": -1}, "seed=-1 must be between 0"),
        ({"device": "toaster"}, "hardware.device=toaster"),
        ({"oos_false_rejection_rate": 2.0}, "oos_false_rejection_rate=2.0 is the fraction"),
    ],
)
def test_wrong_parameters_are_a_value_error_with_the_line_of_the_command(parameters, said):
    with pytest.raises(ValueError, match=said):
        FewShotClassifier(**{**FAST, **parameters}).fit(TEXTS, LABELS)


@pytest.mark.slow
def test_it_works_with_the_tools_of_scikit_learn():
    texts, labels = TEXTS * 2, np.tile(LABELS, 2)
    pipeline = make_pipeline(FunctionTransformer(lambda rows: [text.lower() for text in rows]), FewShotClassifier(**FAST))
    assert set(pipeline.fit(texts, labels).predict(NEW)) <= {"good", "bad"}
    assert cross_val_score(FewShotClassifier(**FAST), texts, labels, cv=2).shape == (2,)
    choices = [{"settings": [None], "inner_steps": [1]}, {"settings": [{"inner.head_lr": 0.5}], "inner_steps": [3]}]
    search = GridSearchCV(FewShotClassifier(**FAST), choices, cv=2, error_score="raise")
    assert search.fit(texts, labels).best_estimator_.predict(NEW).shape == (3,)
    calibrated = CalibratedClassifierCV(FewShotClassifier(**FAST), cv=2).fit(texts, labels)
    np.testing.assert_allclose(calibrated.predict_proba(NEW).sum(1), 1)


@pytest.mark.nightly
def test_it_is_fitted_in_processes_of_their_own():
    texts, labels = TEXTS * 2, np.tile(LABELS, 2)
    assert cross_val_score(FewShotClassifier(**FAST), texts, labels, cv=2, n_jobs=2).shape == (2,)


def test_the_example_of_the_page_is_five_lines(tmp_path, monkeypatch, examples):
    """The block of docs/python.md, with the tiny model."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    block = page.split("<!-- estimator -->\n```python\n")[1].split("```")[0]
    assert len([line for line in block.splitlines() if line and not line.startswith("import")]) <= 5
    exec(block.replace('"minilm"', '"tiny"'))
    assert (tmp_path / "my_classifier" / "classifier.json").is_file()


class OfNumbers(FewShotClassifier):
    """Reads rows of numbers as texts, so that scikit-learn's checks, which give numbers, can be run."""

    def fit(self, X, y):
        X = self._texts(X, reset=True)
        return super().fit(X, y)

    def _scores(self, X):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return super()._scores(self._texts(X, reset=False))

    def _texts(self, X, reset):
        from sklearn.utils.validation import validate_data

        return [" ".join(f"{'minus' if value < 0 else 'plus'} {abs(value):.1f}" for value in row) for row in validate_data(self, X, reset=reset)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        return tags


NOT_FOR_TEXTS = {
    "check_classifiers_train": "asks for an accuracy of 0.83 on numbers; the text of a number does not hold its size",
}
LONGEST = ("check_classifier_data_not_an_array", "check_classifiers_classes", "check_classifiers_train", "check_estimators_dtypes")  # 10 to 14 seconds each


@pytest.mark.slow
@parametrize_with_checks([FewShotClassifier("tiny", device="cpu")])
def test_the_checks_of_scikit_learn_for_columns_of_texts(estimator, check):
    check(estimator)


def of_tables():
    for estimator, check in estimator_checks_generator(OfNumbers("tiny", device="cpu", inner_steps=1)):
        name = check.func.__name__
        marks = [
            pytest.mark.nightly if name in LONGEST else pytest.mark.slow,
            *([pytest.mark.xfail(reason=NOT_FOR_TEXTS[name])] if name in NOT_FOR_TEXTS else []),
        ]
        yield pytest.param(estimator, check, marks=marks, id="-".join([name, *(f"{key}={value}" for key, value in check.keywords.items())]))


@pytest.mark.parametrize(("estimator", "check"), of_tables())
def test_the_checks_of_scikit_learn_for_tables(estimator, check):
    check(estimator)
