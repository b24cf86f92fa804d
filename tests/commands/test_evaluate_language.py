"""An untrained language model from the command line: evaluated without a run, finetuned to generate texts, and its prompts shown."""

import json
from pathlib import Path

import pytest
from conftest import write_jsonl

FEW = ["evaluation.shots=[2]", "evaluation.episodes=1", "evaluation.queries=2", "report=false", "hardware.threads=1", "model.max_length=16"]


@pytest.fixture
def decoder(tmp_path) -> str:
    """The folder of a small random Llama."""
    from small_models import save_preset

    return save_preset("llama", tmp_path / "llama")


@pytest.fixture
def mood(tmp_path) -> list[str]:
    rows = [{"text": f"{word} {n}", "label": label} for n in range(6) for word, label in (("fine", "good"), ("awful", "bad"))]
    write_jsonl(tmp_path / "mood.jsonl", rows)
    return ["tasks=files", "tasks.path=mood.jsonl"]


def test_a_plain_language_model_is_evaluated_as_one(cli, decoder, mood):
    found = cli("evaluate", f"model={decoder}", *mood, "prompt=labelled", *FEW, "hydra.run.dir=out")
    assert found.code == 0, found.err
    results = json.loads(Path("out/results.json").read_text())
    assert results["arms"].keys() == {"logistic_regression", "zero_shot", "zero_shot_calibrated", "in_context", "in_context_calibrated"}
    assert results["comparisons"] == []


def test_a_decoder_is_an_encoder_where_the_method_is_one(cli, decoder, mood):
    found = cli("evaluate", f"checkpoint={decoder}", *mood, "algorithm=recommended", *FEW, "evaluation.arms=[meta_trained]", "hydra.run.dir=out")
    assert found.code == 0 and "mean pooling" in found.out, found.err


def test_lora_is_finetuned_on_the_support_set(cli, decoder, mood):
    arms = ["evaluation.arms=[zero_shot,lora]", "evaluation.lora.steps=2", "evaluation.lora.rank=2"]
    found = cli("evaluate", f"model={decoder}", *mood, *FEW, *arms, "hydra.run.dir=out")
    assert found.code == 0, found.err
    arms_of = json.loads(Path("out/results.json").read_text())["arms"]
    assert arms_of["lora"]["adapt_seconds_per_episode"] > 0
    assert arms_of["lora"]["per_task"]["mood"]["loss"] != arms_of["zero_shot"]["per_task"]["mood"]["loss"]


def test_arms_that_do_not_fit_the_model_are_refused(cli, decoder, mood):
    found = cli("evaluate", "checkpoint=tiny", *mood, *FEW, "evaluation.arms=[zero_shot]")
    assert found.code == 2 and "zero_shot needs a language model" in found.err
    found = cli("evaluate", f"model={decoder}", *mood, *FEW, "prompt.scoring=channel", "evaluation.arms=[zero_shot_calibrated]")
    assert found.code == 2 and "the calibrated arms score labels after texts" in found.err


def test_a_plain_language_model_is_finetuned_to_generate_texts(cli, decoder):
    write_jsonl(Path("new.jsonl"), [{"text": "the red house", "target": "rot"}, {"text": "the blue tree", "target": "blau"}])
    tuned = ["data.train=new.jsonl", "data.target=target", "report=false", "hydra.run.dir=tuned", "model.max_length=16"]
    found = cli("finetune", f"checkpoint={decoder}", *tuned)
    assert found.code == 0 and "20 inner steps" in found.out, found.err
    assert cli("predict", "model=tuned", "text=the red house").code == 0


def test_prompts_are_shown_as_the_model_reads_them(cli, decoder, mood):
    settings = ["model=hub", f"model.name={decoder}", "model.max_length=16", "prompt=labelled", "episode.shots=1"]
    found = cli("tasks", *mood, *settings, "show=2")
    assert found.code == 0, found.err
    assert found.out.count("Label: ") == 2 * 2 and found.out.count("Label:\n--- target:") == 2
    refused = cli("tasks", *mood, *settings, "show=0")
    assert refused.code == 2 and "show=0 is the number of prompts" in refused.err
