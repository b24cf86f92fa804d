"""Every configuration composes, and what a user writes means what it says."""

import re

import pytest
from conftest import ROOT, write_jsonl
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from metatrain.config.compose import conf_dir
from metatrain.config.overrides import normalise
from metatrain.config.schema import SCHEMAS, register

GROUPS = [(path.parent.name, path.stem) for path in sorted((ROOT / "conf").glob("*/*.yaml")) if path.parent.name not in ("experiment", "debug")]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


def composed(command: str, *overrides: str):
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(command, normalise(command, list(overrides)))


@pytest.mark.parametrize("command", list(SCHEMAS))
def test_every_command_composes(command):
    config = composed(command)
    assert set(config) == set(SCHEMAS[command].__dataclass_fields__)


def test_every_option_of_every_group_composes():
    assert len(GROUPS) >= 30
    for group, option in GROUPS:
        composed("sweep" if group == "search" else "train", f"{group}={option}")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_short_file_that_names_its_paper_and_can_be(name):
    from metatrain.gradient.config import InnerConfig
    from metatrain.meta.algorithm import check_algorithm
    from metatrain.meta.config import AlgorithmConfig
    from metatrain.models.config import ModelConfig

    lines = (ROOT / "conf" / "algorithm" / f"{name}.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 14
    assert re.search(r"\(.* 20\d\d\)", lines[1]) or name == "multitask"
    config = composed("train", f"algorithm={name}")
    assert config.algorithm.name == name
    made = [OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config[key])) for kind, key in
            ((AlgorithmConfig, "algorithm"), (InnerConfig, "inner"), (ModelConfig, "model"))]  # fmt: skip
    check_algorithm(*made)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_compose_with_and_without_the_plus(name):
    assert composed("train", f"+experiment={name}") == composed("train", f"experiment={name}")


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_begins_with_its_command_and_what_it_measured(path):
    head = [line for line in path.read_text().splitlines()[:40] if line.startswith("#")]
    text = "\n".join(head)
    assert head[0] == "# @package _global_"
    assert head[1] == f"# metatrain train +experiment={path.stem}"
    for words in ("Shows:", "Result:", "Cost:"):
        assert words in text, words
    if "# Result: not measured yet." in head:
        assert "# Cost: not measured yet." in head and head[2].endswith("not measured yet.")
        return
    assert "GB" in text
    assert any(words in text for words in ("95%", "by t over", "one training seed")), "how sure the result is"
    short, rest = head[2], "\n".join(head[3:])
    assert short.startswith("# In short: ") and len(short) <= 125
    for number in re.findall(r"\d+\.\d+", short):
        assert number in rest, f"{number} is measured nowhere"


def test_debug_wins_over_an_experiment_and_an_explicit_setting_over_both():
    for overrides in (("debug=fast", "+experiment=sentiment_fewshot"), ("experiment=sentiment_fewshot", "+debug=fast")):
        config = composed("train", *overrides)
        assert (config.outer.steps, config.model.name) == (3, "tiny")
        assert composed("train", "outer.steps=5", "model.pooling=first", *overrides).outer.steps == 5


def test_shorthands():
    assert normalise("predict", ["model=x/y", "text=model=z"]) == ["model.path=x/y", 'text="model=z"']
    assert normalise("train", ["model=tiny"]) == ["model=tiny"]


def test_flags_may_stand_anywhere():
    assert normalise("train", ["a=1", "-m", "debug=fast", "b=2"]) == ["a=1", "b=2", "+debug=fast", "-m"]
    assert normalise("train", ["--config-dir", "mine", "a=1", "--cfg", "job", "-p", "inner", "b=2", "--resolve"]) == [
        "a=1", "b=2", "--config-dir", "mine", "--cfg", "job", "-p", "inner", "--resolve",
    ]  # fmt: skip
    assert normalise("train", ["--info", "a=1"]) == ["a=1", "--info"]


def test_a_users_own_folder_is_searched_too(cli, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "quick.yaml").write_text("# @package _global_\nouter:\n  steps: 7\n")
    found = cli("train", "--config-dir", "mine", "experiment=quick", "--cfg", "job")
    assert found.code == 0
    assert "steps: 7" in found.out


@pytest.mark.parametrize("flag", [["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]])
def test_a_users_own_folder_comes_first(cli, tmp_path, flag):
    for name, text in {
        "tasks/reviews": "name: mine\npath: my.csv\n",
        "experiment/arsc": "# @package _global_\nname: my_arsc\n",
        "outer/adamw": "lr: 0.5\n",
    }.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = cli("train", *flag, "tasks=reviews", "experiment=arsc", "--cfg", "job")
    assert found.code == 0, found.err
    assert "path: my.csv" in found.out and "name: my_arsc" in found.out and "lr: 0.5" in found.out
    found = cli("train", "tasks=reviews", "experiment=arsc", "--cfg", "job")  # a folder of an earlier command is forgotten
    assert "my" not in re.findall(r"(?m)^(?:name|  path): (.*)$", found.out) and "my_arsc" not in found.out


def test_files_that_take_the_place_of_packaged_ones_are_said(cli, tmp_path):
    (tmp_path / "mine" / "tasks").mkdir(parents=True)
    rows = [{"text": f"{area} {n}", "label": "ab"[n % 2], "area": area} for area in "vwxyz" for n in range(4)]
    write_jsonl(tmp_path / "my.jsonl", rows)
    (tmp_path / "mine" / "tasks" / "reviews.yaml").write_text("name: mine\npath: my.jsonl\ntask: area\nmeta_train: {tasks: ['*']}\n")
    packaged = (conf_dir() / "tasks" / "arsc.yaml").read_bytes()
    (tmp_path / "mine" / "tasks" / "arsc.yaml").write_bytes(packaged)  # no other contents
    found = cli("tasks", "--config-dir", "mine")
    assert found.code == 0, found.err
    said, title = found.out.splitlines()[:2]
    assert said == "--config-dir mine: used in place of the packaged files of the same names: tasks/reviews.yaml"
    assert title.strip() == "mine (my.jsonl)"
    found = cli("explain", "tasks.path", "--config-dir", "mine")
    assert "value    my.jsonl, set by " in found.out and "/mine/tasks/reviews.yaml" in found.out, found.err
    assert "in place of" not in cli("tasks").out


def test_an_option_of_the_users_own_is_suggested_and_a_file_that_builds_on_itself_is_refused(cli, tmp_path):
    (tmp_path / "mine" / "tasks").mkdir(parents=True)
    (tmp_path / "mine" / "tasks" / "tickets.yaml").write_text("name: mine\npath: my.jsonl\n")
    found = cli("tasks", "--config-dir", "mine", "tasks=ticket")
    assert found.code == 2 and "did you mean 'tickets'?" in found.err
    (tmp_path / "mine" / "tasks" / "reviews.yaml").write_text("defaults:\n  - reviews\nsize_power: 1\n")
    found = cli("tasks", "--config-dir", "mine")
    assert found.code == 2 and "refers back to the file itself; mine is searched first" in found.err and len(found.err.splitlines()) == 1


def test_the_settings_can_be_shown_without_running(cli, tmp_path):
    found = cli("train", "inner.lr=0.125", "--cfg", "job")
    assert found.code == 0
    assert "lr: 0.125" in found.out
    assert not (tmp_path / "outputs").exists()
