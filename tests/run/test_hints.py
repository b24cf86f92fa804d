"""What is printed can be pasted."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from metatrain.config.overrides import normalise
from metatrain.run.hints import resume_command, shown, typed_setting

NAMES = (
    "runs/maml-1_0.5",
    "my run",
    "a  b",
    "lr=1,2",
    "it's (a) run",
    "a${x}",
    "#1",
    "é",
    "[x]",
    'q"q',
    "a\\b",
    "null",
    "007",
    "a\nb",
    os.fsdecode(b"\xff"),
)


def pasted(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    shell = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return [os.fsdecode(word) for word in shell.stdout.split(b"\0")[:-1]]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_setting_goes_through_the_shell_and_hydra():
    words = pasted(" ".join(typed_setting("checkpoint", name) for name in NAMES))
    values = [OverridesParser.create().parse_override(item).value() for item in normalise("finetune", words)]
    assert [OmegaConf.create({"value": value}).value for value in values] == list(NAMES)
    assert typed_setting("checkpoint", Path("runs/maml-1_0.5").absolute()) == "checkpoint=runs/maml-1_0.5"


def test_a_command_names_the_run_from_the_working_directory(tmp_path):
    for name in NAMES:
        assert pasted(resume_command(tmp_path / name)) == ["metatrain", "resume", name]
    assert resume_command(Path("/x/y"), "outer.steps=...") == "metatrain resume /x/y outer.steps=..."
    assert shown(tmp_path / "-x") == os.path.join(".", "-x") and shlex.split(resume_command(tmp_path / "-x"))[2] == "./-x"
