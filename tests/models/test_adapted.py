import pytest

from metatrain.errors import UserError
from metatrain.models.adapted import lowest_adapted_layer, select

NAMES = ["embeddings.word.weight", *(f"encoder.layer.{n}.{part}" for n in range(12) for part in ("query.weight", "query.bias")), "pooler.weight"]


def test_choices():
    assert select(NAMES, "all", 2) == NAMES
    assert select(NAMES, "head", 2) == []
    # By number, not by name: layer 11 is later than layer 2.
    assert {name.split(".")[2] for name in select(NAMES, "last_layers", 2)} == {"10", "11"}


def test_layer_norms_and_patterns():
    names = [*NAMES, "embeddings.LayerNorm.weight", "encoder.layer.3.output.LayerNorm.bias", "h.0.ln_1.weight", "model.norm.weight"]
    assert select(names, "layer_norm") == names[-4:]
    assert select(names, "pattern", pattern=r"\.1\d?\.query\.bias") == [f"encoder.layer.{n}.query.bias" for n in (1, 10, 11)]
    assert select(names, "body") == names
    with pytest.raises(UserError, match="no parameters that match"):
        select(names, "pattern", pattern="adapter")


def test_all_layers_adapt_where_there_are_fewer():
    assert select(NAMES, "last_layers", 13) == select(NAMES, "last_layers", 12)
    with pytest.raises(UserError, match="algorithm.last_layers=0 must be 1 or more"):
        select(NAMES, "last_layers", 0)


def test_what_lies_below_the_adapted_layers():
    assert lowest_adapted_layer(select(NAMES, "last_layers", 3)) == 9
    assert lowest_adapted_layer(NAMES) == 0
    assert lowest_adapted_layer([NAMES[-2], "embeddings.word.weight"]) == 0
