"""Overrides as users type them."""

import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import OmegaConf

from metatrain.config.overrides import quoted, readable


def value_of(override: str):
    value = OverridesParser.create().parse_override(f"key={override}").value()
    if isinstance(value, ChoiceSweep):
        return tuple(each.text if isinstance(each, QuotedString) else each for each in value.list)
    return value


@pytest.mark.parametrize(
    "name",
    [
        "données.csv",
        "l'été.csv",
        "O'Brien.csv",
        "a#b",
        "R&D;x",
        "~/x.csv",
        "p[1].csv",
        "data (1).csv",
        "a=b.csv",
        "x{y}.csv",
        "日本語",
        "hub:ORG/é",
        "C:\\données",
    ],
)
def test_a_name_stands_for_itself(name):
    assert value_of(readable(name)) == name


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("[é,b, c d]", ["é", "b", "c d"]),
        ("{a: é, b: [c,été]}", {"a": "é", "b": ["c", "été"]}),
        ("é.csv,b.csv", ("é.csv", "b.csv")),
        ("choice(é,b)", ("é", "b")),
        ("${oc.env:HOME}/é", "${oc.env:HOME}/é"),
        ("a\\,é", "a,é"),
        ("'é, b'", "é, b"),
        ('"é"', "é"),
    ],
)
def test_brackets_commas_and_quotes_keep_their_meaning(typed, value):
    assert value_of(readable(typed)) == value
    assert readable(readable(typed)) == readable(typed)


@pytest.mark.parametrize("typed", ["null", "1e-3", "a b", "[1,2]", "{a: 1}", "tag(log,interval(1e-3,1))", "[file:///tmp/x]", "", "[1", "'a'b", '"open'])
def test_what_hydra_reads_and_what_it_explains_stay_as_typed(typed):
    assert readable(typed) == typed


def test_any_text_can_be_quoted():
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice("ab\\\\\"'${}x,[]#é \n") for _ in range(draw.randint(0, 9)))
        assert OmegaConf.create({"key": value_of(quoted(text))}).key == text
