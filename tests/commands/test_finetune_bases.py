"""Bases side by side: which one is used, why, and what is refused."""

import json

import numpy as np
import pytest

from metatrain.checkpoints.finetuning import open_for
from metatrain.commands import finetune_bases
from metatrain.commands.finetune_bases import Candidate, bases_of, best_of, on_shared_examples, reason
from metatrain.config.schema import DataConfig, FinetuneConfig
from metatrain.errors import UserError


def candidate(name: str, correct: str, log_loss: float = 0.5) -> Candidate:
    """A base by its examples: 1 was held out and predicted correctly, 0 wrongly, and - was not held out; each has this log loss."""
    held_out = [row for row, each in enumerate(correct) if each != "-"]
    is_correct = np.array([correct[row] == "1" for row in held_out], dtype=bool)
    return Candidate(name, np.array(held_out, dtype=np.int64), is_correct, np.full(len(held_out), log_loss), None, 1.0)


def test_a_base_without_held_out_examples_has_no_log_loss_in_results():
    assert candidate("a", "", float("nan")).results()["cross_validation"] == {"examples": 0, "accuracy": None, "log_loss": None}
    assert candidate("a", "10", 0.5).results()["cross_validation"]["log_loss"] == 0.5


def test_the_most_accurate_base_is_used_then_the_one_with_the_lowest_log_loss():
    few, many = candidate("few", "1" * 12 + "0" * 8), candidate("many", "1" * 18 + "0" * 2)
    assert best_of([few, many]).checkpoint == "many"
    assert "many is used" in reason([few, many], many) and "difference to few on the same 20 examples is significant" in reason([few, many], many)
    equal = candidate("equal", "0" * 2 + "1" * 18, 0.4)
    assert best_of([many, equal]).checkpoint == "equal"
    assert "is not significant (McNemar's exact test, p = 1.00)" in reason([many, equal], equal)


def test_bases_that_held_out_different_examples_are_compared_on_those_of_both():
    some = candidate("some", "1" * 15 + "0" * 10 + "-" * 25)  # more accurate than the other one on its own held-out examples, less on those of both
    every = candidate("every", "1" * 25 + "0" * 25)
    some, every = on_shared_examples([some, every])
    assert (some.accuracy, every.accuracy) == (0.6, 1.0) and every.results()["cross_validation"]["examples"] == 25
    assert best_of([some, every]) is every
    assert "difference to some on the same 25 examples is significant" in reason([some, every], every)
    assert on_shared_examples([some, candidate("none", "-" * 50)])[0].accuracy is None


def test_few_examples_choose_nothing():
    first, second = candidate("first", "0" * 19), candidate("second", "1" * 19)
    assert best_of([first, second]).checkpoint == "first"
    assert reason([first, second], first).startswith("19 held-out examples are too few to choose a base by cross-validation, which needs 20: first is used")


@pytest.mark.parametrize(("given", "said"), [([], "checkpoint=[] names no base"), (["a", "b", "a"], "checkpoint: a is named twice")])
def test_lists_that_cannot_be(given, said):
    with pytest.raises(UserError) as error:
        bases_of(FinetuneConfig(checkpoint=given))
    assert said in str(error.value)
    assert [bases_of(FinetuneConfig(checkpoint=each)) for each in ("minilm", ["a", 2])] == [["minilm"], ["a", "2"]]


def test_several_bases_are_for_one_label():
    with pytest.raises(UserError, match="data.kind=labels takes one base"):
        bases_of(FinetuneConfig(checkpoint=["a", "b"], data=DataConfig(kind="labels")))


def test_a_base_that_fits_no_head_is_refused_before_the_run(cli, tiny_run, examples, tmp_path):
    found = cli("finetune", f"checkpoint=[tiny,{tiny_run}]", f"data.train={examples}", "hydra.run.dir=run")
    assert found.code == 2 and not (tmp_path / "run" / "run.json").exists()
    assert "by cross-validation, which needs a head fitted to the examples: set inner.fit_head=true algorithm.adapt=head" in found.err


@pytest.mark.slow
def test_the_model_is_that_of_the_chosen_base(cli, tiny_run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(finetune_bases, "open_for", lambda config, *rest: opened.append(config.checkpoint) or open_for(config, *rest))
    rows = "".join(f"text {number} {label},{label}\n" for number in range(12) for label in ("bad", "good"))
    (tmp_path / "examples.csv").write_text(f"text,label\n{rows}")
    settings = ["data.train=examples.csv", "data.test=examples.csv", "report=false", "inner.fit_head=true", "algorithm.adapt=head"]
    found = cli("finetune", f"checkpoint=[tiny,{tiny_run}]", "hydra.run.dir=both", *settings)
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "both" / "results.json").read_text())
    assert opened == [each["checkpoint"] for each in results["bases"]] == ["tiny", str(tiny_run)]  # each once
    assert all(each["test"] is not None for each in results["bases"])
    chosen = results["base"]["checkpoint"]
    alone = cli("finetune", f"checkpoint={chosen}", "hydra.run.dir=alone", *settings)
    assert alone.code == 0
    said = [cli("predict", f"model={name}", "text=text 3 good").out for name in ("both", "alone")]
    assert said[0] == said[1]
    assert json.loads((tmp_path / "alone" / "results.json").read_text())["cross_validation"] == results["cross_validation"]
    assert "(used)" in (tmp_path / "both" / "run.log").read_text()
