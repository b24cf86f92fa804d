"""What a run would cost, before it is started."""

import re

import pytest


@pytest.fixture
def unmeasured(monkeypatch):
    """In place of what is measured: 0.1 s and 10 bytes for a meta-update, 1 s for each evaluation."""
    monkeypatch.setattr("metatrain.commands.plan_costs.measured", lambda *_: (0.1, 10))
    monkeypatch.setattr("metatrain.commands.plan_costs.evaluation_seconds", lambda run: 1.0)


def test_it_measures_the_run_and_what_would_be_cheaper_and_leaves_nothing(cli, tmp_path, request):
    found = cli("plan", "debug=fast", "hardware.threads=1")
    assert found.code == 0, found.err
    for words in ("as configured", "recomputed activations", "first order", "last two layers", "adapt the head", "peak memory", "disk"):
        assert words in found.out, words
    assert re.search(r"total: \d+ s, of which \d+ s for validation and the meta-test", found.out)
    assert not list(tmp_path.iterdir())
    request.getfixturevalue("unmeasured")
    found = cli("plan", "debug=fast", "hardware.processes=2")
    assert re.search(r"total: \d+ s with 2 processes, of which", found.out), found.err
    assert "hardware.processes=0 must be 1 or more" in cli("plan", "debug=fast", "hardware.processes=0").err


@pytest.mark.usefixtures("unmeasured")
def test_disk_is_what_a_run_writes(cli, tiny_run):
    """Checkpoints and the model of the finished run, against what was foretold: files have headers and tokenizers too."""
    foretold = int(re.search(r"disk: ([\d,]+) MB", cli("plan", "debug=fast", "hardware.threads=1").out)[1].replace(",", ""))
    files = [path for folder in ("checkpoints", "model") for path in (tiny_run / folder).rglob("*.safetensors")]
    # debug=fast has kept two checkpoints, one of them the best; a longer run keeps three.
    written = sum(path.stat().st_size for path in files if path.parent.name != "model") * 3 / 2
    written += sum(path.stat().st_size for path in files if path.parent.name == "model")
    assert abs(foretold - written / 1e6) < 1


def test_nothing_is_measured_twice_where_nothing_adapts(cli, monkeypatch):
    measured = []
    monkeypatch.setattr("metatrain.commands.plan_costs.measured", lambda learner, *_: measured.append(learner) or (0.1, 10))
    found = cli("plan", "debug=fast", "algorithm=recommended", "hardware.threads=1", "evaluation.arms=[]", "validation.every=0")
    assert found.code == 0, found.err
    assert len(measured) == 1 and "nothing adapts" in found.out


def test_what_does_not_go_with_the_method_is_left_out(cli, monkeypatch):
    monkeypatch.setattr("metatrain.commands.plan_costs.evaluation_seconds", lambda run: 1.0)
    found = cli("plan", "debug=fast", "algorithm=cavia", "hardware.threads=1")
    assert found.code == 0, found.err
    assert "as configured" in found.out
    found = cli("plan", "debug=fast", "algorithm.head=linear")
    assert found.code == 2 and "episode.way" in found.err


def test_first_order_on_fused_attention_is_compared_with_nothing_that_needs_second_derivatives(cli, monkeypatch):
    """The fused kernel has none: `recomputed activations` ended in an error of torch."""
    monkeypatch.setattr("metatrain.commands.plan_costs.evaluation_seconds", lambda run: 1.0)
    settings = ["model=scratch_gpt2", "model.scratch.layers=3", "model.scratch.hidden=16", "algorithm=fomaml", "algorithm.head=lm", "outer.meta_batch=1"]
    found = cli("plan", "debug=fast", "hardware.threads=1", *settings)
    assert found.code == 0, found.err
    assert "as configured" in found.out and "last two layers" in found.out and "recomputed" not in found.out
    found = cli("plan", "debug=fast", "hardware.threads=1", *settings, "model.scratch.layers=1")
    assert found.code == 0, found.err
    assert "last two layers" not in found.out
