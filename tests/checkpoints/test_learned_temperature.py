"""The temperature of a checkpoint: learned by `train`, kept beside the weights, used by whatever opens it."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run_once

import metatrain
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.checkpoints.recipe import Recipe, keeps_temperature
from metatrain.config.schema import AlgorithmOverrides, InnerOverrides, ModelOverrides, Overrides
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.sets_across_tasks import LEVELS
from metatrain.meta.temperature import LearnedTemperature
from metatrain.models.config import ModelConfig
from metatrain.tasks.config import EpisodeConfig

ONE_EACH = "text,label\nIt broke and is useless.,bad\nBest tool I own.,good\nIt arrived on Monday.,neutral\n"
TEXTS = ["it is loose", "quiet and strong", "came by post"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the recommended method; not to be changed by tests."""
    settings = ["debug=fast", "algorithm=recommended", "tracking=none", "evaluation.arms=[]", "report=false", "hardware.threads=1"]
    return run_once(tmp_path_factory.mktemp("temperature"), "train", *settings)


def opened(reference, settings=None, said=None):
    return open_checkpoint(str(reference), settings or Overrides(), torch.device("cpu"), torch.float32, (said if said is not None else []).append).learner


def test_train_learns_it_and_writes_it_beside_the_weights(run):
    facts = json.loads((run / "model" / "adaptation.json").read_text())["temperature"]
    assert facts["step"] == 3 and facts["made"] and facts["fitted"]
    assert (run / "run.log").read_text().count("temperature of ") >= 2
    for reference in (run, run / "model", run / "checkpoints" / "step-00000003"):
        found = opened(reference).temperature
        assert isinstance(found, LearnedTemperature) and found.made.intercept == facts["made"]["intercept"] and found.step == 3


def test_another_step_and_a_checkpoint_of_an_earlier_version_have_none(run, tmp_path):
    assert opened(run / "checkpoints" / "step-00000002").temperature is None
    old = shutil.copytree(run, tmp_path / "old")
    path = old / "model" / "adaptation.json"
    facts = json.loads(path.read_text())
    del facts["temperature"]
    path.write_text(json.dumps(facts))
    assert opened(old).temperature is None and opened(old / "model").temperature is None
    shutil.rmtree(old / "model")
    assert opened(old).temperature is None


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        (Overrides(model=ModelOverrides(pooling="first")), False),
        (Overrides(algorithm=AlgorithmOverrides(label_names=False)), False),
        (Overrides(inner=InnerOverrides(fit_head=False)), False),
        (Overrides(inner=InnerOverrides(fit_encoder=True)), True),
    ],
)
def test_it_is_of_the_same_head_on_the_same_encodings(run, settings, keeps):
    for reference in (run, run / "model"):
        said: list[str] = []
        assert (opened(reference, settings, said).temperature is not None) == keeps
        assert any("is not used" in line for line in said) != keeps


def test_a_method_that_fits_no_head_keeps_it_only_without_another_change():
    recipe = Recipe(ModelConfig(name="tiny"), AlgorithmConfig(), InnerConfig(), EpisodeConfig(), 0)
    assert keeps_temperature(recipe, replace(recipe, seed=1, model=replace(recipe.model, max_length=64)))
    assert not keeps_temperature(recipe, replace(recipe, inner=InnerConfig(steps=9)))
    assert not keeps_temperature(recipe, replace(recipe, model=replace(recipe.model, pooling="first")))


def test_finetune_predict_and_python_use_it_and_say_so(run, cli, tmp_path):
    (tmp_path / "examples.csv").write_text(ONE_EACH)
    learned = opened(run).temperature.made.at(3, 1)
    assert learned != 1
    found = cli("finetune", f"checkpoint={run}", "data.train=examples.csv", "hydra.run.dir=tuned", "hardware.threads=1", "report=false")
    assert found.code == 0, found.err
    assert f"temperature {learned:.2f}, which meta-training learned for this number of classes" in (tmp_path / "tuned" / "run.log").read_text()
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert results["temperature"] == pytest.approx(learned) and results["temperature_learned"]
    examples = [tuple(line.rsplit(",", 1)) for line in ONE_EACH.splitlines()[1:]]
    texts, labels = [text for text, _ in examples], [label for _, label in examples]
    model = metatrain.load(run)
    task = model.adapt(examples)
    plain = metatrain.api.FewShotModel(opened(run).with_temperature(None)).adapt(examples)
    expected = torch.from_numpy(np.log(plain.probabilities(TEXTS)) / learned).softmax(1).numpy()
    tuned = metatrain.load(tmp_path / "tuned")
    classifier = metatrain.FewShotClassifier(base=run).fit(texts, labels)
    for probabilities in (task.probabilities(TEXTS), tuned.probabilities(TEXTS), classifier.predict_proba(TEXTS)):
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert task.predict(TEXTS) == plain.predict(TEXTS) == tuned.predict(TEXTS)


@pytest.fixture
def calibrated(run, tmp_path):
    """The model of the run, as if its prediction sets were calibrated on twelve tasks."""
    folder = shutil.copytree(run / "model", tmp_path / "calibrated")
    facts = json.loads((folder / "adaptation.json").read_text())
    limits = [{"level": level, "intercept": math.log(level), "shots": 0.0, "way": 0.1} for level in (0.8, 0.9)]
    facts["temperature"] |= {f"{which}_sets": {"tasks": 12, "most_classes": 3, "limits": limits} for which in ("made", "fitted")}
    (folder / "adaptation.json").write_text(json.dumps(facts))
    return folder


def test_train_calibrates_prediction_sets_on_its_validation_tasks(run):
    facts = json.loads((run / "model" / "adaptation.json").read_text())["temperature"]
    most = int(re.search(r"(\d+) meta-validation", (run / "run.log").read_text())[1])
    for sets in (facts["made_sets"], facts["fitted_sets"]):
        tasks = sets["tasks"]
        assert 1 < tasks <= most and [each["level"] for each in sets["limits"]] == [level for level in LEVELS if level <= tasks / (tasks + 1) + 1e-9]


@pytest.mark.parametrize("shots", [1, 2])
def test_finetune_below_20_examples_then_predict_with_coverage(calibrated, cli, tmp_path, shots):
    rows = ONE_EACH + "Breaks daily.,bad\nLovely.,good\nCame by van.,neutral\n" * (shots - 1)
    (tmp_path / "examples.csv").write_text(rows)
    found = cli("finetune", f"checkpoint={calibrated}", "data.train=examples.csv", "hydra.run.dir=tuned", "hardware.threads=1", "report=false")
    assert found.code == 0, found.err
    assert "prediction sets: calibrated on 12 other tasks" in (tmp_path / "tuned" / "run.log").read_text()
    model = metatrain.load(tmp_path / "tuned")
    limit = 1 / (1 + math.exp(-math.log(0.9) - 0.1 * math.log(3)))
    for probabilities, prediction_set in zip(model.probabilities(TEXTS), model.prediction_sets(TEXTS, 0.85)):
        ranked = np.argsort(-probabilities)
        expected = [model.labels[label] for label in ranked if 1 - probabilities[label] <= limit or label == ranked[0]]
        assert list(prediction_set) == expected
    shown = cli("predict", "model=tuned", f"text={TEXTS[0]}", "coverage=0.9").out.splitlines()[-1]
    assert shown == f"prediction set: {', '.join(model.prediction_sets(TEXTS[:1], 0.9)[0])}"
    refused = cli("predict", "model=tuned", "text=a", "coverage=0.95")
    assert refused.code == 2 and "was calibrated on 12 tasks, for coverage up to 0.9; add examples until cross-validation holds 20 or more out" in refused.err


def test_another_adaptation_or_class_shares_have_no_sets(calibrated, cli, tmp_path):
    assert opened(calibrated).temperature.made_sets.tasks == 12
    other = opened(calibrated, Overrides(inner=InnerOverrides(fit_encoder=True))).temperature
    assert other.made_sets is None and other.fitted_sets is None and other.made is not None
    (tmp_path / "examples.csv").write_text(ONE_EACH)
    arguments = [f"checkpoint={calibrated}", "data.train=examples.csv", "data.priors=uniform", "hydra.run.dir=tuned", "hardware.threads=1", "report=false"]
    assert cli("finetune", *arguments).code == 0
    refused = cli("predict", "model=tuned", "text=a", "coverage=0.9")
    assert refused.code == 2 and "coverage=0.9 needs 20 or more examples that cross-validation has held out" in refused.err
