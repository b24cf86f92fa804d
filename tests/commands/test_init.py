from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from metatrain.config.compose import conf_dir
from metatrain.config.overrides import normalise
from metatrain.config.schema import register

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_copy_is_the_same_run_under_another_name(cli, tmp_path, experiment):
    found = cli("init", experiment, "mine")
    assert found.code == 0, found.err
    assert found.out.splitlines()[-1] == "next: metatrain train --config-dir conf +experiment=mine"
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        ours = compose("train", normalise("train", [f"+experiment={experiment}"]))
        theirs = compose("train", normalise("train", [f"hydra.searchpath=[file://{tmp_path}/conf]", "+experiment=mine"]))
    assert (theirs.name, ours.name) == ("mine", experiment)
    theirs.name = experiment
    assert ours == theirs


def test_its_command_runs(cli):
    found = cli("init", "sentiment_fewshot")
    assert found.code == 0 and "metatrain has a built-in experiment=sentiment_fewshot; with --config-dir, yours replaces it" in found.out
    path = Path("conf/experiment/sentiment_fewshot.yaml")
    path.write_text(path.read_text().replace("steps:", "steps: 77 #"))
    found = cli("train", "--config-dir", "conf", "+experiment=sentiment_fewshot", "--cfg", "job")
    assert found.code == 0 and "name: sentiment_fewshot" in found.out and "steps: 77" in found.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes the name of an experiment"),
        (["sentiment_fewshit"], "did you mean 'sentiment_fewshot'?"),
        (["arsc", "../x"], "'../x' is not a valid name"),
        (["a", "b", "c"], "takes the name of an experiment"),
    ],
)
def test_what_is_wrong_is_said(cli, tmp_path, arguments, said):
    found = cli("init", *arguments)
    assert found.code == 2 and said in found.err and len(found.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(cli, tmp_path):
    assert cli("init", "arsc").code == 0
    path = tmp_path / "conf/experiment/arsc.yaml"
    path.write_text("edited")
    found = cli("init", "arsc")
    assert found.code == 2 and "already exists" in found.err and path.read_text() == "edited"
