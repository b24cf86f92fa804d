"""Former keys of settings work wherever settings are read, and are said once."""

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from metatrain.checkpoints.recipe import saved_recipe
from metatrain.commands.sweep import _overrides
from metatrain.config.overrides import normalise
from metatrain.config.renamed import NOTES, RENAMED, current, current_key, former, said_of
from metatrain.config.schema import SCHEMAS, TrainConfig
from metatrain.config.settings import settings_of
from metatrain.errors import UserError
from metatrain.run.directory import RunDirectory

LEGACY = Path(__file__).parents[1] / "legacy" / "files"
FAST = ["debug=fast", "algorithm.head=prototype", "hardware.threads=1", "evaluation.arms=[]", "report=false"]


@pytest.fixture(autouse=True)
def no_notes():
    yield
    NOTES.reset()


def test_each_former_key_names_a_setting_of_the_same_group():
    keys = {setting.key for schema in SCHEMAS.values() for setting in settings_of(schema)}
    for old, new in RENAMED.items():
        plain = new.replace("sources.*.", "")
        assert plain in keys and old.replace("sources.*.", "") not in keys
        assert old.rpartition(".")[0] == new.rpartition(".")[0]


def test_settings_are_translated_and_back():
    found, old = current({"outer": {"blend": 0.5, "lr": 1}, "tasks": {"sources": {"x": {"pictures": True}}}, "none_of_these": None})
    assert found == {"outer": {"weight_interpolation": 0.5, "lr": 1}, "tasks": {"sources": {"x": {"images": True}}}, "oos_false_rejection_rate": None}
    assert old == ["outer.blend", "tasks.sources.x.pictures", "none_of_these"]
    assert former(found)["outer"] == {"blend": 0.5, "lr": 1}
    assert current({"blend": 0.5}, "outer")[0] == {"weight_interpolation": 0.5} and current({"blend": 1}, "inner") == ({"blend": 1}, [])
    assert current_key("tasks.label_words.LOC") == "tasks.label_descriptions.LOC"
    with pytest.raises(UserError, match=r"outer.blend is the former name of outer.weight_interpolation, and both are given; remove outer.blend"):
        current({"outer": {"blend": 0.5, "weight_interpolation": 0.5}})


def test_overrides_are_translated():
    given = ["outer.blend=0.5", "+tasks.label_words={1: bad}", "+tasks.sources={a: {path: x.csv, pictures: true}}", "name=blend"]
    assert normalise("train", given) == [
        "outer.weight_interpolation=0.5", "+tasks.label_descriptions={1: bad}", "+tasks.sources={a: {path: x.csv, images: true}}", "name=blend",
    ]  # fmt: skip
    assert list(NOTES.take()) == [said_of("outer.blend"), said_of("tasks.label_words"), said_of("tasks.sources.NAME.pictures")]
    assert _overrides({"outer.blend": 0.5}) == ["outer.weight_interpolation=0.5"]  # proposed in a search


def test_a_command_says_it_once(cli):
    found = cli("train", *FAST, "outer.blend=0.5", "hydra.run.dir=run")
    assert found.code == 0 and found.out.count("outer.blend is now outer.weight_interpolation; the former name still works") == 1
    assert OmegaConf.load("run/config.yaml").outer.weight_interpolation == 0.5
    found = cli("train", *FAST, "outer.blend=0.5", "outer.weight_interpolation=0.5")
    assert found.code == 2 and "outer.blend is the former name of outer.weight_interpolation, and both are given" in found.err


def test_files_of_the_user(cli, tmp_path):
    for name, text in (("experiment/own", "# @package _global_\nepisode:\n  mix: 0.25\n"), ("outer/own", "defaults: [adamw]\nblend: 0.5\n")):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    found = cli("train", "--config-dir", "conf", "+experiment=own", "outer=own", *FAST, "hydra.run.dir=run")
    assert found.code == 0, found.err
    assert "experiment/own.yaml: episode.mix is now episode.cross_task_fraction; the former name still works" in found.out
    assert "outer/own.yaml: outer.blend is now outer.weight_interpolation" in found.out
    saved = OmegaConf.load("run/config.yaml")
    assert saved.episode.cross_task_fraction == 0.25 and saved.outer.weight_interpolation == 0.5
    found = cli("explain", "outer.blend", "--config-dir", "conf", "outer=own")
    assert found.code == 0 and "former name still works" in found.out and f"value    0.5, set by {tmp_path}/conf/outer/own.yaml" in found.out
    (tmp_path / "conf/outer/own.yaml").write_text("blend: 0.5\nweight_interpolation: 0.5\n")
    found = cli("train", "--config-dir", "conf", "outer=own", *FAST)
    assert found.code == 2 and "both are given" in found.err


def test_saved_runs_and_models_are_read_without_a_word(tmp_path):
    shutil.copytree(LEGACY / "encoder", tmp_path / "run")
    assert "blend" in OmegaConf.load(tmp_path / "run/config.yaml").outer
    assert RunDirectory(tmp_path / "run").load_config(TrainConfig).outer.weight_interpolation == 0.5
    recipe = json.loads((LEGACY / "exported/adaptation.json").read_text())
    recipe["episode"]["mix"] = 0.75
    assert saved_recipe(LEGACY / "exported", recipe).episode.cross_task_fraction == 0.75
    assert list(NOTES.take()) == []
