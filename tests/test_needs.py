"""What needs a package of an extra is refused before work begins, and what does not need it is not."""

import json
import sys

import pytest

from metatrain.errors import UserError
from metatrain.evaluation.text_scores import check_score


@pytest.fixture
def without(monkeypatch):
    """Takes a package away; reading tasks or a model from here on is a fault."""

    def take(module: str) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        for user in ("commands.meta_train", "commands.plan_costs", "checkpoints.opening"):  # first: they keep the functions that they import
            monkeypatch.setattr(f"metatrain.{user}.build_learner", lambda *_, **__: pytest.fail("work has begun"))
        for work in ("tasks.distribution.load_tasks", "checkpoints.building.build_learner"):
            monkeypatch.setattr(f"metatrain.{work}", lambda *_, **__: pytest.fail("work has begun"))

    return take


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("optuna", ["sweep", "search=rates"], "sweep"),
        ("matplotlib", ["sweep", "search=rates"], "sweep"),
        ("peft", ["train", "algorithm=maml_lora", "model=tiny"], "peft"),
        ("peft", ["plan", "algorithm.adapt=ia3", "model=tiny"], "peft"),
        ("sacrebleu", ["train", "tasks=text_to_text", "algorithm.head=lm", "model=scratch_t5"], "text"),
        ("rouge_score", ["train", "tasks=text_to_text", "algorithm.head=lm", "model=scratch_t5", "tasks.target=target", "tasks.score=rouge1"], "text"),
        ("setfit", ["train", "model=tiny", "evaluation.arms=[meta_trained,setfit]"], "compare"),
        ("setfit", ["evaluate", "checkpoint=tiny", "tasks=reviews", "evaluation.arms=[setfit]"], "compare"),
        ("sacrebleu", ["evaluate", "checkpoint=tiny", "tasks=text_to_text"], "text"),
        ("matplotlib", ["tasks", "map=map.png"], "explore"),
        ("onnxscript", ["export", "model=m"], "onnx"),
        ("uvicorn", ["serve"], "serve"),
        ("sacrebleu", ["finetune", "checkpoint=tiny", "data.train=words.jsonl", "data.test=words.jsonl", "data.target=target"], "text"),
    ],
)
def test_needs_are_checked_before_work_begins(cli, without, module, command, extra):
    without(module)
    found = cli(*command)
    assert found.code == 2 and module in found.err and f"pip install 'metatrain-nlp[{extra}]'" in found.err, found.err


def test_what_is_not_needed_is_not_asked_for(cli, monkeypatch, tmp_path):
    for module in ("sacrebleu", "rouge_score", "peft", "setfit", "optuna", "matplotlib"):
        monkeypatch.setitem(sys.modules, module, None)
    check_score("exact_match")
    check_score("chrf", computed=False)
    with pytest.raises(UserError, match="unknown"):
        check_score("chrff", computed=False)
    rows = [{"text": f"word {number}", "target": f"drow {number}"} for number in range(4)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["algorithm=in_context", "data.train=words.jsonl", "data.target=target", "report=false", "hardware.threads=1"]
    found = cli("finetune", "checkpoint=tiny", *settings, "hydra.run.dir=run")
    assert found.code == 0, found.err  # there is no test, so nothing is scored
