"""Model cards say what a model is from what was measured."""

import json

import yaml


def front(text: str) -> dict:
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def test_the_card_of_a_run_has_its_tasks_cost_and_results(cli, tmp_path):
    assert cli("train", "debug=fast", "algorithm=recommended", "tracking=none", "hydra.run.dir=run").code == 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert front(card)["library_name"] == "transformers" and "metatrain" in front(card)["tags"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for name, arm in results["arms"].items():
        assert f"| {name} | {100 * arm['mean']:.1f} ± {100 * arm['ci95']:.1f} |" in card
    for task in results["protocol"]["tasks"]:
        assert f"`{task}`" in card
    assert "| reviews | meta-train, meta-validation | metatrain:reviews | not stated |" in card
    assert "| label names as support texts | yes |" in card and "| training seed | 0 |" in card and "minutes on" in card


def test_the_card_of_a_finetuned_model_has_its_labels_and_scores(cli, tiny_run, examples, tmp_path):
    assert cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", f"data.test={examples}", "hydra.run.dir=tuned").code == 0
    card = (tmp_path / "tuned" / "model" / "README.md").read_text()
    accuracy = json.loads((tmp_path / "tuned" / "results.json").read_text())["test"]["accuracy"]
    assert "2: `bad`, `good`" in card and f"| held-out accuracy | {accuracy:.3f} of 4 |" in card
    assert front(card)["library_name"] == "sentence-transformers"
    assert cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "hydra.run.dir=untested").code == 0
    assert "no held-out examples were given" in (tmp_path / "untested" / "model" / "README.md").read_text()
