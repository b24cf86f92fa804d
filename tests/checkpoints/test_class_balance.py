"""Class weights and class priors of finetuning: what is added to the logits, and settings that cannot be."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metatrain import FewShotClassifier
from metatrain.checkpoints.class_balance import balance_of
from metatrain.config.schema import DataConfig
from metatrain.errors import UserError
from metatrain.meta import head_fit
from metatrain.meta.head_fit import Fit, fit_head
from metatrain.tasks.episodes import given_episode

TEXTS = ["it broke", "awful thing", "broken again", "terrible", "lovely", "great quality"]
LABELS = ["bad"] * 4 + ["good"] * 2


def balance(**settings):
    return balance_of(DataConfig(train="x", **settings), given_episode(TEXTS, LABELS, len(TEXTS)))


def fit(l2: float, held_out: torch.Tensor | None = None) -> Fit:
    return Fit({}, 0.0, l2, 1.0, held_out)


def test_bayes_rule_takes_the_predictions_to_other_class_shares():
    found = balance(priors={"bad": 0.1, "good": 0.9})
    before = torch.tensor([[0.8, 0.2]]).double()
    parameters = {"head.bias": before.log()[0], "head.weight": torch.zeros(2, 1)}
    after, fitted = found.applied(parameters, fit(0.1, before.log()))
    expected = before[0] * torch.tensor([0.1 / (4 / 6), 0.9 / (2 / 6)])
    assert torch.allclose(after["head.bias"].softmax(0), expected / expected.sum())
    assert fitted.held_out is not None and torch.allclose(fitted.held_out[0].softmax(0), expected / expected.sum())


@pytest.mark.parametrize(
    ("settings", "l2", "learned"),
    [
        ({}, 0.1, [4 / 6, 2 / 6]),
        ({}, math.inf, [0.5, 0.5]),
        ({"class_weights": "balanced"}, 0.1, [0.5, 0.5]),
        ({"class_weights": {"bad": 1, "good": 4}}, 0.1, [1 / 3, 2 / 3]),
    ],
)
def test_the_learned_prior_is_the_weighted_shares_or_uniform_for_prototypes(settings, l2, learned):
    assert np.allclose(balance(priors="uniform", **settings).shift(fit(l2)), np.log(0.5 / np.array(learned)))
    observed = balance(priors="observed", **settings).shift(fit(l2))
    assert np.allclose(observed, np.log(np.array([4, 2]) / 6 / learned))


def test_weights_have_mean_one_over_the_examples():
    assert np.allclose(balance(class_weights="balanced").weights, [0.75, 1.5])
    assert np.allclose(balance(class_weights={"bad": 3, "good": 3}).weights, 1)
    assert balance() == replace(balance(), weights=None, priors=None, shares=None)


def test_a_weight_counts_as_copies_of_an_example(monkeypatch):
    monkeypatch.setattr(head_fit, "STRENGTHS", (0.3,))
    monkeypatch.setattr(head_fit, "best_temperature", lambda *_, **__: 1.0)
    monkeypatch.setattr(head_fit, "_ITERATIONS", 200)
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0] * 8 + [1] * 4)

    def start(rows):
        return {"weight": torch.zeros(2, 4, dtype=torch.float64), "bias": torch.zeros(2, dtype=torch.float64)}

    weighted = fit_head(start, features, labels, np.zeros(12, dtype=bool), 0, weights=torch.tensor([1.0, 2.0]))
    copies = torch.cat([torch.arange(12), torch.arange(8, 12)])
    repeated = fit_head(start, features[copies], labels[copies], np.zeros(16, dtype=bool), 0)
    assert torch.allclose(weighted.head["weight"], repeated.head["weight"], atol=1e-4)
    assert weighted.loss == pytest.approx(float(F.cross_entropy(features[copies] @ weighted.head["weight"].T + weighted.head["bias"], labels[copies])))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"priors": "obs"}, "data.priors=obs is unknown; choose observed or uniform, or give a share for each label: data.priors={bad: 0.5, ...}"),
        ({"priors": {"bad": 0.1}}, "data.priors: the label 'good' has no share; give one for each of the 2 labels"),
        ({"priors": {"bad": 0.1, "good": 0.5}}, "data.priors: the shares sum to 0.6; they must sum to 1"),
        ({"priors": {"bad": 0.5, "god": 0.5}}, "data.priors: no example has the label 'god'; there are bad, good"),
        ({"class_weights": {"bad": 0, "good": 1}}, "data.class_weights: the weight of 'bad' is 0; it must be a number above 0"),
        ({"class_weights": {"bad": "a", "good": 1}}, "data.class_weights: the weight of 'bad' is 'a'; it must be a number above 0"),
        ({"class_weights": 3}, "data.class_weights=3 is unknown; choose balanced"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(UserError) as error:
        balance(**settings)
    assert said in str(error.value)


@pytest.mark.slow
def test_the_saved_model_has_the_priors_and_the_command_reports_them(cli, tmp_path):
    (tmp_path / "examples.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS)))
    settings = ["checkpoint=tiny", "data.train=examples.csv", "report=false", "hydra.run.dir=run", "data.priors={bad:0.1,good:0.9}"]
    found = cli("finetune", *settings, "data.class_weights=balanced")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["priors"] == {"bad": 0.1, "good": 0.9} and results["class_weights"] == {"bad": 0.75, "good": 1.5}
    assert 0 <= results["cross_validation_for_priors"] <= 1
    given = {"data.class_weights": "balanced"}
    plain = FewShotClassifier("tiny", device="cpu", settings=given).fit(TEXTS, LABELS).decision_function(["a thing"])
    shifted = FewShotClassifier("tiny", device="cpu", settings={**given, "data.priors": {"bad": 0.1, "good": 0.9}}).fit(TEXTS, LABELS)
    assert shifted.decision_function(["a thing"]) == pytest.approx(plain + math.log(9), abs=1e-4)
    said = cli("predict", "model=run/model", "text=a thing").out
    assert float(said.split("good\t")[1].split()[0]) == pytest.approx(shifted.predict_proba(["a thing"])[0, 1], abs=1e-3)


def test_priors_need_a_fitted_head(cli, tiny_run, examples):
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "data.priors=uniform")
    assert found.code == 2
    assert "data.priors needs a head fitted to the examples: set inner.fit_head=true algorithm.adapt=head" in found.err
