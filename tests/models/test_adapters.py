"""Adapters folded into their model give a plain model that computes the same."""

import numpy as np
import pytest
import torch

from metatrain.errors import UserError
from metatrain.models.adapted import attach
from metatrain.models.adapters import ROWS, AdapterSettings, folded, is_adapter, is_lost_by_folding
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import Encoder, load_encoder
from metatrain.models.export import read_recipe, save_meta_trained

TEXTS = ["a wonderful plot", "the brakes are unpredictable and the dealer shrugged", "cold"]


def with_adapters(kind: str, name: str = "tiny") -> Encoder:
    """An encoder whose adapters are not where they begin."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, max_length=64)
    encoder, _ = load_encoder(config, second_order=True, dtype=torch.float64)
    attach(encoder.backbone, kind, AdapterSettings(rank=2, targets=None, context_size=3))
    with torch.no_grad():
        for parameter_name, value in encoder.named_parameters():
            if is_adapter(parameter_name):
                value += 0.3 * torch.randn_like(value)
    return encoder


def encode(encoder: Encoder) -> torch.Tensor:
    with torch.no_grad():
        return encoder(encoder.batch([np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]))


@pytest.mark.parametrize("kind", list(ROWS))
def test_folding_gives_a_plain_model_that_computes_the_same(kind):
    encoder = with_adapters(kind)
    config = ModelConfig(name="tiny", max_length=64)
    different = encode(load_encoder(config, second_order=True, dtype=torch.float64)[0])
    before = encode(encoder)
    plain = Encoder(folded(encoder.backbone), encoder.tokenizer, config)
    assert not [name for name, _ in plain.named_parameters() if is_adapter(name) or is_lost_by_folding(name)]
    torch.testing.assert_close(encode(plain), before, rtol=0, atol=1e-12)
    assert torch.equal(encode(encoder), before)  # the original keeps its adapters
    assert (different - before).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_what_folding_loses_is_saved_beside_the_plain_model(tmp_path, kind):
    encoder = with_adapters(kind)
    save_meta_trained(tmp_path, encoder, "encoder.", {}, {"format": 1})
    _, saved = read_recipe(tmp_path)
    again = with_adapters(kind, str(tmp_path))
    with torch.no_grad():
        for name, value in again.named_parameters():
            if f"encoder.{name}" in saved:
                value.copy_(saved[f"encoder.{name}"])
    assert torch.equal(encode(again), encode(encoder))


def test_a_model_without_adapters_is_its_own_folding():
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    assert folded(encoder.backbone) is encoder.backbone


def test_targets_that_are_not_in_the_model():
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    with pytest.raises(UserError, match=r"algorithm.adapt=lora: .*algorithm.targets"):
        attach(encoder.backbone, "lora", AdapterSettings(rank=2, targets=["no_such_module"], context_size=1))


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_chosen_targets(kind):
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    attach(encoder.backbone, kind, AdapterSettings(rank=2, targets=["key"], context_size=1))
    names = [name for name, _ in encoder.named_parameters() if is_adapter(name)]
    assert names and all(".key." in name for name in names)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    encoder, _ = load_encoder(ModelConfig(name="tiny"), second_order=True)
    with pytest.raises(UserError, match="pip install"):
        attach(encoder.backbone, "lora", AdapterSettings(rank=2, targets=None, context_size=1))
