"""The meaning of a setting, its value, and which file or override set it."""

import pytest


def test_a_setting(cli):
    found = cli("explain", "outer.lr", "+experiment=sentiment_fewshot")
    assert found.code == 0, found.err
    assert "peak learning rate of the outer optimiser after warm-up" in found.out
    assert "type     float, default 4e-05" in found.out
    assert "value    0.0001, set by conf/experiment/sentiment_fewshot.yaml" in found.out
    assert "recommended (0.0001)" in found.out and "text_to_text (0.002)" in found.out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["outer.weight_interpolation"], "value    1.0, set by its default"),
        (["outer.weight_interpolation", "algorithm=recommended"], "value    0.6, set by conf/algorithm/recommended.yaml"),
        (["outer.weight_interpolation", "+experiment=reviews_leave_domains_out"], "value    1.0, set by conf/experiment/reviews_leave_domains_out.yaml"),
        (["outer.weight_interpolation", "algorithm=recommended", "outer.weight_interpolation=0.3"], "value    0.3, set by the command line"),
        (["model.name", "debug=fast"], "value    tiny, set by conf/model/tiny.yaml"),
        (["outer.steps", "debug=fast", "+experiment=arsc"], "value    3, set by conf/debug/fast.yaml"),
        (["tracking.mode"], "value    auto, set by conf/tracking/auto.yaml"),
    ],
)
def test_who_has_set_it(cli, tmp_path, given, said):
    found = cli("explain", *given)
    assert found.code == 0, found.err
    assert said in found.out
    assert not list(tmp_path.iterdir())


def test_a_group_and_all_groups(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = cli("explain", "episode")
    assert "episode.shots" in found.out and "Support examples per class" in found.out
    found = cli("explain")
    assert all(group in found.out for group in ("algorithm", "tasks", "inner", "outer", "hardware", "seed"))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("oos_false_rejection_rate", ["oos_false_rejection_rate, of metatrain finetune", "value    null, set by its default"]),
        ("data.train", ["data.train, of metatrain finetune", "value    must be given"]),
        ("model.path", ["in predict: finetuned model: the run directory of `metatrain finetune`"]),
        ("compare", ["of metatrain tasks", "task2vec"]),
        ("inner.lr", ["set by conf/inner/sgd.yaml", "in finetune: learning rate of the encoder; null: as in the checkpoint (default null)"]),
        ("checkpoint", ["checkpoint.every", "in evaluate: checkpoint to start from: a run directory"]),
        ("data", ["data.label", "in predict: File to label"]),
    ],
)
def test_a_setting_of_any_command(cli, tmp_path, key, said):
    found = cli("explain", key)
    assert found.code == 0, found.err
    assert all(words in found.out for words in said), found.out
    assert not list(tmp_path.iterdir())


def test_a_config_group_that_is_no_setting(cli):
    found = cli("explain", "experiment")
    assert found.code == 2 and "a config group of metatrain train" in found.err and "sentiment_fewshot" in found.err


@pytest.mark.parametrize(
    ("key", "hint"),
    [("lr", "there are inner.lr, outer.lr"), ("outer.stepz", "did you mean 'outer.steps'?"), ("zzz", "lists the groups"), ("hydra.run.dir", "--cfg hydra")],
)
def test_a_setting_that_is_not_there(cli, key, hint):
    found = cli("explain", key)
    assert found.code == 2 and hint in found.err and len(found.err.splitlines()) == 1
