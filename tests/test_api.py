"""metatrain in Python: many tasks from one model."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import metatrain
from metatrain.api import FewShotModel
from metatrain.checkpoints.opening import open_checkpoint
from metatrain.config.schema import AlgorithmOverrides, Overrides
from metatrain.errors import UserError
from metatrain.inputs import read_text

EXAMPLES = [
    *(("a fine, good film", "good"), ("good and quiet", "good"), ("I liked it, good", "good")),
    *(("a bad, dull film", "bad"), ("bad and loud", "bad"), ("I hated it, bad", "bad")),
]
TEXTS = ["good film", "bad film", "quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from metatrain.cli import run as metatrain_command

    folder = tmp_path_factory.mktemp("api") / "run"
    assert metatrain_command(["train", "debug=fast", "algorithm=recommended", "tracking=none", "hardware.threads=1", f"hydra.run.dir={folder}"]) == 0
    return folder


def test_five_lines(run, tmp_path):
    model = metatrain.load(run)
    task = model.adapt(EXAMPLES)
    assert set(task.predict(TEXTS)) <= {"good", "bad"}
    np.testing.assert_allclose(task.probabilities(TEXTS).sum(1), 1, atol=1e-6)
    assert [task.labels[row.argmax()] for row in task.probabilities(TEXTS)] == task.predict(TEXTS)
    assert task.predict([]) == []


def test_what_is_no_list_of_examples_or_texts_is_refused(run):
    model = metatrain.load(run)
    for wrong in ([("a", "x"), "by"], [("a", "x"), ("b", 1)], {"ab": "x", "b": "y"}, [("a", "x", "y")]):
        with pytest.raises(UserError, match=r"examples\[\d\] must be a pair of strings \(text, label\), not "):
            model.adapt(wrong)
    with pytest.raises(UserError, match=r"the labels 'good' and 'good\\u200b' look the same"):
        model.adapt([*EXAMPLES, ("fine", "good\u200b")])
    task = model.adapt(EXAMPLES)
    for asked in (task.predict, task.probabilities):
        with pytest.raises(UserError, match=r"not a string; use \[text\]"):
            asked("good film")
        with pytest.raises(UserError, match=r"texts\[1\] must be a string, not None"):
            asked(["good film", None])


def test_odd_characters_mean_nothing(run):
    """A character that once stood for a masked word, a pair or an image here is a character like any other."""
    model = metatrain.load(run)
    odd = ["a\ufffcb", "good\x1efilm", "\x1dgood", "\x1d", "\ufdd0", "\ufdd2/etc/passwd", "  good  "]
    task = model.adapt([*EXAMPLES, *((text, "good") for text in odd)])
    ids = [task.model._tokens.tokenizer(text)["input_ids"] for text in ("a\ufffcb", "good\x1efilm", "\x1dgood", "", "", "/etc/passwd", "good")]
    assert [read.tolist() for read in task.model._tokens.encode([read_text(text, "") for text in odd])] == ids
    np.testing.assert_allclose(task.probabilities(odd).sum(1), 1, atol=1e-6)


def test_half_a_character_is_refused(run):
    model = metatrain.load(run)
    for examples in ([("a \ud83d b", "x"), ("c", "y")], [(("a", "\udc00"), "x"), ("c", "y")], [("a", "\ud800"), ("c", "y")]):
        with pytest.raises(UserError, match=r"examples\[0\].*half a character"):
            model.adapt(examples)
    with pytest.raises(UserError, match=r"texts\[1\] has half a character"):
        model.adapt(EXAMPLES).predict(["a", "\udfff"])


def test_text_pairs_are_read_as_one_input(run):
    model = metatrain.load(run)
    task = model.adapt([((text, "a question"), label) for text, label in EXAMPLES])
    pairs = [("good film", "is it"), ("good film is it", "")]
    first, second = task.probabilities(pairs)
    assert np.abs(first - second).max() > 0  # a separator stands between them
    ids = task.model._tokens.encode([read_text(pair, "") for pair in pairs])
    assert [read.tolist() for read in ids] == [task.model._tokens.tokenizer(*pair)["input_ids"] for pair in pairs]


def test_texts_may_be_a_column_of_a_table(run):
    task = metatrain.load(run).adapt(EXAMPLES)
    wanted = task.predict(TEXTS)
    assert task.predict(np.array(TEXTS)) == task.predict(iter(TEXTS)) == wanted
    assert task.probabilities(np.array(TEXTS)).argmax(1).tolist() == [task.labels.index(label) for label in wanted]


def test_tasks_keep_what_changed_and_do_not_touch_each_other(run):
    model = metatrain.load(run)
    first = model.adapt(EXAMPLES)
    before = first.probabilities(TEXTS)
    second = model.adapt([(text, {"good": "x", "bad": "y"}[label]) for text, label in EXAMPLES] + [("the weather is wet", "z")])
    assert second.labels == ["x", "y", "z"] and second.probabilities(TEXTS).shape == (3, 3)
    np.testing.assert_array_equal(first.probabilities(TEXTS), before)
    assert set(first.own) == {"head.weight", "head.bias"}  # of 0.2M parameters of the model, none


def test_a_saved_task_answers_as_before_and_belongs_to_its_model(run, tmp_path):
    task = metatrain.load(run).adapt(EXAMPLES, none_of_these=0.2)
    task.save(tmp_path / "task.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "task.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode  # others may read it too
    again = metatrain.load(run / "model").load_task(tmp_path / "task.safetensors")  # the export has the same weights
    assert again.labels == task.labels and again.threshold == task.threshold
    np.testing.assert_allclose(again.probabilities(TEXTS), task.probabilities(TEXTS), atol=1e-6)
    other = metatrain.load("tiny", fit_head=False)
    with pytest.raises(UserError, match="a model with different weights"):
        other.load_task(tmp_path / "task.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="broken.safetensors cannot be read"):
        other.load_task(tmp_path / "broken.safetensors")


def test_a_task_may_have_an_encoder_of_its_own(run, tmp_path, monkeypatch):
    monkeypatch.setattr("metatrain.meta.encoder_fit._numbers", lambda examples: [20])  # among which is not none
    model = metatrain.load(run, fit_encoder=True)
    task = model.adapt(EXAMPLES)
    assert len(task.own) > 10
    task.save(tmp_path / "task.safetensors")
    again = metatrain.load(run).load_task(tmp_path / "task.safetensors")
    np.testing.assert_allclose(again.probabilities(TEXTS), task.probabilities(TEXTS), atol=1e-6)
    plain = metatrain.load(run).adapt(EXAMPLES)
    assert np.abs(plain.probabilities(TEXTS) - task.probabilities(TEXTS)).max() > 1e-3


def test_none_of_these(run):
    model = metatrain.load(run)
    task = model.adapt(EXAMPLES, none_of_these=0.01)
    assert task.threshold is not None
    all_of_them = model.adapt(EXAMPLES, none_of_these=0.99)
    assert all_of_them.threshold > task.threshold
    assert model.adapt([EXAMPLES[0], EXAMPLES[3]], none_of_these=0.05).threshold is not None  # by the names, which this model reads
    with pytest.raises(UserError, match="fit_head=True"):
        metatrain.load(run, fit_head=False).adapt(EXAMPLES, none_of_these=0.05)


def test_methods_of_which_more_adapts_work_too():
    model = metatrain.load("tiny", fit_head=False)  # a plain model in an inner loop: everything adapts
    task = model.adapt(EXAMPLES)
    assert len(task.own) > 2
    assert len(task.predict(TEXTS)) == 3


def test_a_plain_encoder_takes_a_method_and_a_run_keeps_its_own(run):
    task = metatrain.load("tiny", algorithm="recommended").adapt(EXAMPLES, none_of_these=0.2)
    assert set(task.predict(TEXTS)) <= {"good", "bad", "none_of_these"}
    assert metatrain.load("tiny", fit_head=True, adapt="head").adapt(EXAMPLES).predict(TEXTS)
    for checkpoint in (run, run / "model"):
        with pytest.raises(
            UserError, match="algorithm=protonet selects the method of a plain model, but this checkpoint was meta-trained with algorithm=recommended"
        ):
            metatrain.load(checkpoint, algorithm="protonet")
        with pytest.raises(UserError, match='set algorithm.adapt=head .Python: adapt="head".'):
            metatrain.load(checkpoint, fit_head=True, adapt="all")
        settings = Overrides(AlgorithmOverrides(head="ridge"))
        with pytest.raises(UserError, match="algorithm.head=ridge does not fit checkpoint=.* meta-trained with other parameters"):
            open_checkpoint(str(checkpoint), settings, torch.device("cpu"), torch.float32, lambda line: None)


def test_what_cannot_be_is_refused(run):
    with pytest.raises(UserError, match="at least two labels"):
        metatrain.load(run).adapt(EXAMPLES[:3])
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        metatrain.nothing  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys; sys.modules['torch'] = None; import metatrain; print('imported'); metatrain.load"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "imported\n" and "import of torch halted" in done.stderr.splitlines()[-1], done.stderr


def test_whatever_was_written_is_loaded_and_predicts(run, tmp_path):
    """A finetuned classifier by its run or its model, a saved task, a folder of tasks."""
    from metatrain.cli import run as metatrain_command

    (tmp_path / "examples.csv").write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in EXAMPLES))
    settings = [f"checkpoint={run}", f"data.train={tmp_path / 'examples.csv'}", "hardware.threads=1", "report=false"]
    assert metatrain_command(["finetune", *settings, f"hydra.run.dir={tmp_path / 'tuned'}"]) == 0
    adapted = metatrain.load(run)
    with pytest.raises(UserError, match="no labels yet; adapt it to examples"):
        adapted.predict(TEXTS)
    task = adapted.adapt(EXAMPLES)
    for path in (tmp_path / "tuned", tmp_path / "tuned" / "model"):
        model = metatrain.load(path)
        assert model.labels == task.labels and model.predict(TEXTS) == task.predict(TEXTS)
        np.testing.assert_allclose(model.probabilities(TEXTS), task.probabilities(TEXTS), atol=1e-5)
        assert model.predict([]) == [] and model.probabilities([]).shape == (0, 2)
        assert model.predict(TEXTS, threshold=1.0) == [None] * 3
    for wrong, why in (("good film", r"use \[text\]"), ([1], r"texts\[0\] must be a string"), (pd.DataFrame({"a": TEXTS}), r"it has 'a': use table\[COLUMN\]")):
        with pytest.raises(UserError, match=why):
            model.predict(wrong)
    assert model.predict(pd.Series(TEXTS)) == model.predict(pd.DataFrame({"id": [1, 2, 3], "review": TEXTS})) == model.predict(TEXTS)
    frame = pd.DataFrame({"id": range(6), "review": [text for text, _ in EXAMPLES], "sentiment": [label for _, label in EXAMPLES]})
    assert adapted.adapt(frame).predict(TEXTS) == task.predict(TEXTS)
    with pytest.raises(UserError, match=r"no column with a usual name for labels; it has 'id', 'review': use zip\(table\[TEXT\]"):
        adapted.adapt(frame.drop(columns=["sentiment"]))
    with pytest.raises(UserError, match="threshold=2 must be above 0"):
        model.predict(TEXTS, threshold=2)
    assert metatrain.load(tmp_path / "tuned" / "model", fit_head=True).adapt(EXAMPLES).predict(TEXTS)  # its encoder, for other tasks

    (tmp_path / "tasks").mkdir()
    task.save(tmp_path / "tasks" / "films.safetensors")
    adapted.adapt([(text, {"good": "x", "bad": "y"}[label]) for text, label in EXAMPLES]).save(tmp_path / "tasks" / "letters.safetensors")
    assert metatrain.load(tmp_path / "tasks" / "films.safetensors").predict(TEXTS) == task.predict(TEXTS)
    tasks = metatrain.load(tmp_path / "tasks")
    assert list(tasks) == ["films", "letters"] and tasks["films"].model is tasks["letters"].model
    assert tasks.predict(iter(TEXTS)) == {name: tasks[name].predict(TEXTS) for name in tasks}


def test_a_task_whose_model_is_gone_or_unknown_says_so(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    metatrain.load(copy).adapt(EXAMPLES).save(tmp_path / "task.safetensors")
    shutil.rmtree(copy)
    with pytest.raises(UserError, match="task.safetensors: the model that it was adapted from cannot be opened: checkpoint=.*copy: no such run"):
        metatrain.load(tmp_path / "task.safetensors")
    FewShotModel(metatrain.load(run)._learner).adapt(EXAMPLES).save(tmp_path / "task.safetensors")
    with pytest.raises(UserError, match=r"does not say which model it was adapted from; use metatrain.load\(MODEL\).load_task"):
        metatrain.load(tmp_path / "task.safetensors")
    (tmp_path / "text.txt").write_text("no tensors")
    with pytest.raises(UserError, match="text.txt cannot be read as a file of Task.save"):
        metatrain.load(tmp_path / "text.txt")
