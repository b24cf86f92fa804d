"""Heads that are not linear, and of masked language models, from training to a finetuned model that only metatrain loads."""

import json
from pathlib import Path

import pytest
import torch

import metatrain
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, Overrides
from metatrain.models.export import Classifier
from metatrain.tasks.encoded_episode import encode_episode
from metatrain.tasks.episodes import given_episode

EXAMPLES = [("works well", "good"), ("a joy to use", "good"), ("very quiet", "good"), ("broke at once", "bad"), ("far too loud", "bad")]
TEXTS = ["quiet and sharp", "it broke", "a joy"]


@pytest.mark.parametrize("name", ["matching", pytest.param("relation", marks=pytest.mark.nightly), "cloze"])
def test_a_finetuned_model_predicts_as_the_adapted_learner(cli, tmp_path, name):
    rows = "".join(f"{text},{label}\n" for text, label in EXAMPLES)
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    found = cli("finetune", "checkpoint=tiny", f"algorithm.name={name}", "data.train=rows.csv", "report=false", "hydra.run.dir=run", "hardware.threads=1")
    assert found.code == 0, found.err
    assert "(loads with metatrain)" in found.out and 'text="..."' in (tmp_path / "run" / "model" / "README.md").read_text()

    learner = open_checkpoint("tiny", Overrides(AlgorithmOverrides(name=name)), torch.device("cpu"), torch.float32, lambda line: None).learner
    tokens = learner.model.tokens()
    adapted, _ = learner.adapt(encode_episode(given_episode(*map(list, zip(*EXAMPLES)), len(EXAMPLES)), tokens))
    expected = learner.logits(adapted, tokens.encode(TEXTS))
    classifier = Classifier(tmp_path / "run" / "model", torch.device("cpu"))
    assert classifier.labels == ["bad", "good"] and not classifier.of_images
    torch.testing.assert_close(classifier.scores(TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert metatrain.load(tmp_path / "run").predict(TEXTS) == [classifier.labels[label] for label in expected.argmax(1).tolist()]
    assert cli("predict", "model=run/model", "text=it broke").code == 0


@pytest.mark.nightly  # in every test run, a run of feat_names is evaluated from its export, and runs of other heads are resumed
@pytest.mark.parametrize("name", ["matching", "feat", "cloze", "feat_names", "relation"])
def test_a_resumed_run_is_evaluated_as_one_that_never_stopped(cli, tmp_path, name):
    settings = ["debug=fast", f"algorithm={name}", "hardware.threads=1", "outer.schedule=constant", "outer.lr=1e-3", "checkpoint.every=2", "validation.every=2"]
    assert cli("train", *settings, "outer.steps=4", "hydra.run.dir=whole").code == 0
    assert cli("train", *settings, "outer.steps=2", "hydra.run.dir=run").code == 0
    resumed = cli("resume", "run", "outer.steps=4")
    assert resumed.code == 0, resumed.err

    def arms(folder: str) -> dict:
        found = json.loads((Path(folder) / "results.json").read_text())["arms"]
        return {arm: {key: value for key, value in each.items() if "seconds" not in key} for arm, each in found.items()}

    assert arms("run") == arms("whole")
    weights = [(tmp_path / run / "checkpoints" / "step-00000004" / "model.safetensors").read_bytes() for run in ("run", "whole")]
    assert weights[0] == weights[1]
    again = ["evaluation.shots=[2]", "evaluation.episodes=2", "evaluation.queries=4", "hardware.threads=1", "tasks=reviews"]
    for source in ("run", "run/model"):
        found = cli("evaluate", f"checkpoint={source}", *again, f"hydra.run.dir=of_{Path(source).name}")
        assert found.code == 0, found.err
        assert arms(f"of_{Path(source).name}")["meta_trained"]["per_task"] == arms("run")["meta_trained"]["per_task"]
