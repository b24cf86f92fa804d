"""The front door: help, versions, unknown commands, exit codes."""

import json
import os
import subprocess
import sys

import pytest

from metatrain import __version__
from metatrain.cli import COMMANDS


def test_help_names_every_command_and_three_examples(cli):
    found = cli("--help")
    assert found.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in found.out
    assert found.out.count("\n  metatrain ") >= 3 + 3  # examples, and where to look next


def test_no_arguments_show_the_help(cli):
    assert cli().out == cli("--help").out


def test_version(cli):
    assert cli("--version").out == f"metatrain {__version__}\n"


def test_a_misspelt_command_is_guessed(cli):
    found = cli("trian")
    assert (found.code, found.err) == (2, "metatrain: error: unknown command 'trian'; did you mean 'train'?\n")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(cli, command):
    found = cli(command, "--help")
    assert found.code == 0
    assert f"metatrain {command}" in found.out


def test_a_reader_that_goes_away_is_no_error():
    done = subprocess.run(f"{sys.executable} -m metatrain --help | true", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_quiet_and_json_modes(cli, monkeypatch, tiny_run):
    monkeypatch.setenv("METATRAIN_CONSOLE", "auto")  # so that what the command sets is undone
    settings = ["checkpoint=" + str(tiny_run), "evaluation.shots=[1]", "evaluation.episodes=1", "evaluation.queries=2", "hardware.threads=1", "report=false"]
    quiet = cli("--quiet", "evaluate", *settings)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    lines = [json.loads(line) for line in cli("--json", "evaluate", *settings).out.splitlines()]
    assert any("line" in line for line in lines) and any("1-shot" in line.get("table", "") for line in lines)
    assert cli("--quiet", "evaluate").code == 2


@pytest.mark.parametrize(("given", "found"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_threads_do_not_wait_long_for_a_core_unless_the_user_has_said_so(given, found):
    script = "import os, sys; sys.argv = ['metatrain', '-V']; from metatrain.cli import main\ntry: main()\nfinally: print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    answer = subprocess.run([sys.executable, "-c", script], env={**environment, **given}, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == found


def test_letters_that_the_locale_does_not_have_are_printed():
    script = "import sys; sys.argv = ['metatrain', 'ls', 'experiments', 'arsc']; from metatrain.cli import main\nmain()"
    answer = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    assert "± 4.6" in answer.stdout.decode("utf-8")


def test_a_name_that_is_no_text_is_named_all_the_same():
    answer = subprocess.run([sys.executable, "-m", "metatrain", "report", b"no\xffthing"], capture_output=True, check=False)
    assert answer.returncode == 2 and answer.stderr.startswith(b"metatrain: error: no\\udcffthing is not a run directory")
