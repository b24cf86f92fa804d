import json

import pytest
from conftest import write_jsonl


def test_a_run_is_evaluated_on_its_own_test_tasks_at_several_shots(cli, tiny_run, tmp_path):
    found = cli(
        "evaluate", f"checkpoint={tiny_run}", "evaluation.shots=[1,3]", "evaluation.episodes=2", "evaluation.queries=3", "report=false", "hydra.run.dir=out"
    )
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["by_shots"]) == {"1", "3"}
    assert results["protocol"]["tasks"] == ["delivery", "films", "headphones", "restaurants"]
    assert "1-shot" in found.out and "3-shot" in found.out


def test_evaluation_after_training_gives_the_numbers_of_training(cli, tiny_run, tmp_path):
    settings = ["evaluation.shots=[2]", "evaluation.episodes=2", "evaluation.queries=4", "hardware.threads=1", "report=false"]
    assert cli("evaluate", f"checkpoint={tiny_run}", *settings, "hydra.run.dir=out").code == 0
    ours, theirs = (json.loads((path / "results.json").read_text()) for path in (tmp_path / "out", tiny_run))
    for name, arm in theirs["arms"].items():
        assert {**ours["arms"][name], "adapt_seconds_per_episode": 0} == {**arm, "adapt_seconds_per_episode": 0}


def test_other_tasks_without_texts_that_were_trained_on(cli, tiny_run, tmp_path):
    from metatrain.tasks.embedded import embedded_path
    from metatrain.tasks.files import Columns, read_file

    trained = [
        text
        for text, task in zip(*(lambda t: (t.texts, t.tasks))(read_file(embedded_path("metatrain:reviews"), Columns("text", "label", "domain"))))
        if task == "books"
    ]
    rows = [{"text": f"a lamp, number {n}", "label": n % 2} for n in range(12)] + [{"text": text, "label": 0} for text in trained[:5]]
    write_jsonl(tmp_path / "lamps.jsonl", rows)
    found = cli(
        "evaluate", f"checkpoint={tiny_run}", "tasks=files", "tasks.path=lamps.jsonl", "evaluation.shots=[2]", "evaluation.episodes=2", "hydra.run.dir=out"
    )
    assert found.code == 0, found.err
    assert "5 texts removed from the test tasks: the model was trained on them" in found.out
    assert json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]["tasks"] == ["lamps"]


def test_a_plain_model_needs_tasks(cli):
    found = cli("evaluate", "checkpoint=tiny")
    assert found.code == 2 and "add tasks=reviews" in found.err


@pytest.mark.nightly  # in every test run, tests/checkpoints/test_recipe.py has the learner of this arm
def test_leave_one_out_from_the_encoder_before_meta_training_is_an_arm_of_every_method(cli, tiny_run, tmp_path):
    settings = ["evaluation.shots=[3]", "evaluation.episodes=2", "evaluation.queries=4", "report=false"]
    found = cli("evaluate", f"checkpoint={tiny_run}", *settings, "evaluation.arms=[meta_trained,leave_one_out]", "hydra.run.dir=out")
    assert found.code == 0, found.err
    arms = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]
    assert 0 < arms["leave_one_out"]["mean"] < 1
    both = "evaluation.arms=[no_meta_training,leave_one_out]"  # of the method itself: the same
    found = cli("evaluate", "checkpoint=tiny", "tasks=reviews", "algorithm=leave_one_out", *settings, both, "hydra.run.dir=same")
    assert found.code == 0, found.err
    arms = json.loads((tmp_path / "same" / "results.json").read_text())["arms"]
    assert arms["leave_one_out"]["mean"] == arms["no_meta_training"]["mean"]


def test_adaptation_that_does_not_stay_finite_is_counted_and_said(cli, tiny_run, tmp_path):
    settings = ["evaluation.shots=[2]", "evaluation.episodes=2", "evaluation.queries=4", "inner.lr=1e30"]
    found = cli("evaluate", f"checkpoint={tiny_run}", *settings, "evaluation.arms=[meta_trained,prototypes]", "hydra.run.dir=out")
    assert found.code == 0, found.err
    arms = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]
    assert (arms["meta_trained"]["diverged_episodes"], arms["prototypes"]["diverged_episodes"]) == (8, 0)
    assert arms["meta_trained"]["mean"] == 0.5  # the first of two classes, always
    assert "adaptation of meta_trained diverges (non-finite values) in 8 episodes" in found.out


def test_a_full_finetune_chooses_its_rate_on_the_meta_validation_tasks_of_the_run(cli, tiny_run, tmp_path):
    settings = ["evaluation.shots=[2]", "evaluation.episodes=1", "evaluation.queries=4", "evaluation.full_finetune.steps=1", "report=false"]
    arms = "evaluation.arms=[meta_trained,full_finetune]"
    found = cli("evaluate", f"checkpoint={tiny_run}", *settings, arms, "evaluation.full_finetune.rates=[1e-4,2e-4]", "hydra.run.dir=out")
    assert found.code == 0, found.err
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["protocol"]["full_finetune"]
    assert facts["updates"] == 1 and facts["learning_rates"]["full_finetune"] in (1e-4, 2e-4)
    assert "chosen on meta-validation tasks" in found.out and "learning rate of full_finetune 12/12" in found.out
    refused = cli("evaluate", f"checkpoint={tiny_run}", arms, "evaluation.full_finetune.rule=sgd")
    assert refused.code == 2 and "full finetuning always uses Adam" in refused.err
