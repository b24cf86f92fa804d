"""TensorBoard's event files, read back, have the numbers of the run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from metatrain.commands.trackers import group_of
from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.tracking.config import TrackingConfig
from metatrain.tracking.tensorboard import TensorBoardRun, _markdown
from metatrain.tracking.weights_and_biases import Attached, check_tracking

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path):
    return accumulator.EventAccumulator(str(folder)).Reload()


def scalars(found, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in found.Scalars(tag)}


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path):
    first = TensorBoardRun(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"train/loss": float(step), "train/skipped": "a reason"})
    first.close()
    again = TensorBoardRun(tmp_path, done=1)
    for step in (2, 3, 4):
        again.log(step, {"train/loss": 10.0 * step})
    again.finish({"meta_test/meta_trained": 0.5}, Attached(tables={"5-shot": {"columns": ["arm", "score"], "rows": [["meta_trained", "50.0"]]}}))
    found = read(tmp_path)
    assert scalars(found, "train/loss") == {1: 1, 2: 20, 3: 30, 4: 40} and scalars(found, "meta_test/meta_trained") == {4: 0.5}
    assert found.Tags()["scalars"] == ["train/loss", "meta_test/meta_trained"]
    (text,) = found.Tensors("tables/5-shot/text_summary")
    assert b"| meta_trained | 50.0 |" in text.tensor_proto.string_val[0]
    silent = TensorBoardRun(None)
    silent.log(1, {"a": 1.0})
    silent.finish({})
    assert not silent.is_on and again.is_on


@pytest.mark.slow
def test_a_run_writes_its_figures_and_rates(cli):
    settings = ["inner.rule=lslr", "inner.steps=2", "tracking=tensorboard", "hardware.threads=1", "hydra.run.dir=run"]
    found = cli("train", "debug=fast", *settings)
    assert found.code == 0, found.err
    events = read(Path("run/tensorboard"))
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    expected = {record["step"]: record["loss_after"] for record in records if record["split"] == "meta_train"}
    assert scalars(events, "train/loss_after") == pytest.approx(expected, rel=1e-6)
    tags = events.Tags()["scalars"]
    assert "rates/outer_rate" in tags and "rates/head.weight/step 1" in tags and "meta_test/meta_trained" in tags
    mean = json.loads(Path("run/results.json").read_text())["arms"]["meta_trained"]["mean"]
    assert list(scalars(events, "meta_test/meta_trained").values()) == pytest.approx([mean], rel=1e-6)


def test_a_cell_of_a_table_keeps_to_its_column():
    table = {"columns": ["label", "score"], "rows": [["a|b", 1], ["two\nlines", 2]]}
    assert _markdown(table) == "| label | score |\n| --- | --- |\n| a\\|b | 1 |\n| two lines | 2 |"


def test_runs_that_differ_only_in_the_seed_share_a_group():
    config = composed("train", ["model=tiny"], TrainConfig)
    groups = {group_of(replace(config, seed=seed, tracking=TrackingConfig(mode="none"))) for seed in range(3)}
    assert len(groups) == 1 and groups != {group_of(replace(config, inner=replace(config.inner, steps=7)))}
    assert next(iter(groups)).startswith("maml-")


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("metatrain.plugins.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"tracking=tensorboard needs tensorboard, .*metatrain-nlp\[tensorboard\]"):
        check_tracking(TrackingConfig(mode="tensorboard"))
