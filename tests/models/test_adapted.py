import pytest

from metatrain.errors import UserError
from metatrain.models.adapted import lowest_adapted_layer, select

NAMES = ["embeddings.word.weight", *(f"encoder.layer.{n}.{part}" for n in range(12) for part in ("query.weight", "query.bias")), "pooler.weight"]


def test_choices():
    assert select(NAMES, "all", 2) == NAMES
    assert select(NAMES, "head", 2) == []
    # By number, not by name: layer 11 is later than layer 2.
    assert {name.split(".")[2] for name in select(NAMES, "last_layers", 2)} == {"10", "11"}


def test_more_layers_than_there_are():
    with pytest.raises(UserError, match="12 layers"):
        select(NAMES, "last_layers", 13)


def test_what_lies_below_the_adapted_layers():
    assert lowest_adapted_layer(select(NAMES, "last_layers", 3)) == 9
    assert lowest_adapted_layer(NAMES) == 0
    assert lowest_adapted_layer([NAMES[-2], "embeddings.word.weight"]) == 0
