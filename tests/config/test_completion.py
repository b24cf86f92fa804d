import pytest


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
