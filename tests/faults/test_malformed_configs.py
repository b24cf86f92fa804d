# ruff: noqa: SIM905  lists as words, which are read more easily
"""Settings that make no sense, of every key: one line that names the key, exit code 2, no traceback, and nothing left behind."""

import os

import pytest
from config.test_compose import composed
from faults.injection import FULL, report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from metatrain.cli import run
from metatrain.run.directory import RunDirectory

BASE = ["debug=fast", "hardware.threads=1", "tracking=none"]


class Reached(Exception):
    """The configuration, the tasks and the model are right: the run would begin."""


def keys(node: DictConfig, prefix: str = "") -> list[str]:
    found = []
    for name in node:
        path = f"{prefix}{name}"
        value = node._get_node(name)
        found += keys(value, f"{path}.") if isinstance(value, DictConfig) and len(value) else [path]
    return found


KEYS = sorted(set(keys(composed("train", "debug=fast"))) - {"name"})
NUMBERS = "-1 0 1 2 0.5 -0.5 nan inf -inf 1e308 -1e308 1e-320 99999999999999999999 -99999999999999999999 2147483648 1e400 0x10".split()
WORDS = ["", " ", "a b", "5" + "0" * 5000, *"null true false x é漢🙂 ' '' a/b ../.. / ~ \\\\ %s {0} <script> None - *".split()]
SHAPES = ["[]", "[x]", "[1,2]", "[[]]", "[null]", "{}", "{a:1}", "{a:{b:[c]}}", "[nan]", "[-1]", "[99999999999999999999]"]
REFERENCES = (
    "${seed} ${nothing.there} ${oc.env:HOME} ${oc.env:NOT_THERE} ${SELF} ${ $ ${oc.decode:x} ${oc.select:seed} ${run_id:} ${hydra:job.name} ???".split()
)
VALUES = st.one_of(*(st.sampled_from(values) for values in (NUMBERS, WORDS, SHAPES, REFERENCES)), st.text(max_size=8).filter(lambda text: "\0" not in text))


@pytest.fixture
def begins(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def create(*_, **__):
        raise Reached

    monkeypatch.setattr(RunDirectory, "create", create)
    return tmp_path


@settings(max_examples=500 if FULL else 25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KEYS), VALUES, st.sampled_from(["", "", "", "+", "++", "~"]))
def test_any_value_of_any_key(begins, capfd, key, value, prefix):
    setting = f"~{key}" if prefix == "~" else f"{prefix}{key}={value.replace('SELF', key)}"
    check(capfd, begins, setting)


@settings(max_examples=100 if FULL else 20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: not text.startswith("-")))
def test_any_words(begins, capfd, words):
    check(capfd, begins, words)


def check(capfd, folder, setting: str) -> None:
    capfd.readouterr()
    try:
        code = run(["train", *BASE, setting])
    except Reached:
        code = None
    said = capfd.readouterr()
    if code is not None:
        assert code == 2, said.err
        lines = [line for line in said.err.splitlines() if line]
        assert len(lines) == 1 and lines[0].startswith("metatrain: error: "), said.err
    assert "Traceback" not in said.err
    assert not [path for path in (folder / "outputs").rglob("*") if path.is_file()]
    assert not {name for name in os.listdir(folder)} - {"outputs"}
    report("malformed_configs", made=1)
