"""Names of tasks, labels and files are names first, and patterns only where nothing has the name."""

import pytest

from metatrain.paths import local_path
from metatrain.tasks.names import ExactName, named, named_by_any

NAMES = ["c++", "c*", "cat", "cow", "a[1]", "a1", "what?", "whats", "*", "[!a]", "b"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "*"])
def test_a_name_names_itself_only(name):
    assert named(name, NAMES) == {name}


def test_what_is_no_name_is_a_pattern():
    assert named("c?*", NAMES) == {"c++", "c*", "cat", "cow"}
    assert named("[ab]?", NAMES) == {"a1"}
    assert named("*", NAMES) == set(NAMES)
    assert named("d*", NAMES) == set()
    assert named_by_any(["b", "wha*"], NAMES) == {"b", "what?", "whats"}


def test_an_exact_name_is_no_pattern():
    assert [named(ExactName(name), NAMES) for name in ("*", "c?*", "a[1]")] == [{"*"}, set(), {"a[1]"}]


def test_a_name_in_another_unicode_form():
    assert named("cafe\u0301", ["caf\u00e9", "tea"]) == {"caf\u00e9"} == named("caf\u00e9", ["caf\u00e9"])
    assert named("cafe\u0301.csv", ["caf\u00e9.csv", "cafe\u0301.csv"]) == {"cafe\u0301.csv"}  # names of files as they are
    assert named("cafe\u0301*", ["caf\u00e9s", "tea"]) == {"caf\u00e9s"}


def test_a_path_is_a_name(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert list(map(str, map(local_path, ("~/a.csv", "~nobody.csv", "p[1]*", "a::b", "~")))) == ["/home/me/a.csv", "~nobody.csv", "p[1]*", "a::b", "/home/me"]
