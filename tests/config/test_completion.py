import pytest

from metatrain.cli import COMMANDS
from metatrain.config.compose import groups_of
from metatrain.config.overrides import SHORTHANDS
from metatrain.config.schema import SCHEMAS
from metatrain.config.settings import settings_of


@pytest.fixture
def completions(cli, monkeypatch):
    def call(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        found = cli("-sc", "query=bash")
        assert found.code == 0 and found.err == ""
        return found.out.split()

    return call


def test_commands(completions):
    assert "train" in completions("metatrain ")
    assert completions("metatrain tr") == ["train"]


def test_settings_and_options(completions):
    assert "inner.lr=" in completions("metatrain train inner.")
    assert completions("metatrain train seed=1 model=ti") == ["model=tiny"]
    assert "experiment=sentiment_fewshot" in completions("metatrain train experiment=")
    assert "data.train=" in completions("metatrain finetune data.")
    assert "outer.steps=" in completions("metatrain resume outer.")


@pytest.mark.parametrize("command", ["finetune", "predict", "tasks"])
def test_a_command_takes_every_group_that_is_proposed_and_every_setting(completions, command):
    keys = {setting.key for setting in settings_of(SCHEMAS[command])}
    proposed = completions(f"metatrain {command} ")
    for word in proposed:
        assert word.rstrip("=.") in keys | groups_of(command).keys() | SHORTHANDS.get(command, {}).keys(), word
    assert {word.rstrip(".=") for word in proposed} >= {key for key in keys if "." not in key}


def test_options_are_proposed_where_a_command_takes_them_only(completions):
    assert completions("metatrain finetune algorithm=rec") == ["algorithm=recommended"]
    assert completions("metatrain finetune algorithm=recommended inner.fit_") == ["inner.fit_encoder=", "inner.fit_head="]
    assert completions("metatrain train experiment=arsc outer.l") == ["outer.lr="]
    for line in ("finetune model=", "finetune experiment=", "predict model=t", "evaluate debug=", "resume algorithm="):
        assert not [word for word in completions(f"metatrain {line}") if not word.endswith("=")], line


def test_commands_of_their_own_words(completions):
    assert completions("metatrain ls ") == ["experiments", "algorithms", "models", "tasks", "arms", "plugins", "runs"]
    assert completions("metatrain ls models ti") == ["tiny"]
    assert completions("metatrain init cross") == ["cross_lingual"]
    assert completions("metatrain explain oos") == ["oos_false_rejection_rate"]
    for command in COMMANDS.keys() - {*SCHEMAS, "resume"}:
        assert not [word for word in completions(f"metatrain {command} ") if word.endswith("=")], command


def test_nothing_for_lines_that_mean_nothing(completions):
    assert completions("metatrain nothing ") == []
    assert completions("metatrain train a[") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_to_install(cli, shell):
    found = cli("-sc", f"install={shell}")
    assert found.code == 0
    assert "metatrain" in found.out


def test_an_unknown_shell(cli):
    assert cli("-sc", "install=csh").code == 2
