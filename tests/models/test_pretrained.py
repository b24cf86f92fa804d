"""What is loaded is all there: weights that a directory lacks are not made up."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from metatrain.errors import UserError
from metatrain.models import scratch
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier

SIZE = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def saved(folder: Path, without: str = "nothing", model: torch.nn.Module | None = None) -> str:
    """A directory of a model and a tokenizer, without the weights whose names have this in them."""
    (model or BertModel(BertConfig(**SIZE))).save_pretrained(folder)
    scratch.train_tokenizer(["a few words", "and some more"], 300, ends=True).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in weights.items() if without not in name}, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_a_model_that_lacks_weights_is_refused(tmp_path):
    config = ModelConfig(name=saved(tmp_path, "layer.1."), max_length=16)
    with pytest.raises(UserError, match=r"has no weights for 16 of its parameters \(encoder\.layer\.1\..*, \.\.\.\)"):
        load_encoder(config, second_order=True)


def test_a_pooler_is_missed_only_where_it_is_used(tmp_path):
    name = saved(tmp_path, "pooler.")
    encoder, _ = load_encoder(ModelConfig(name=name, max_length=16, pooling="mean"), second_order=True)
    assert not any("pooler" in each for each, _ in encoder.named_parameters())
    with pytest.raises(UserError, match="2 of its parameters .*; set model.pooling=mean, which needs none"):
        load_encoder(ModelConfig(name=name, max_length=16, pooling="first"), second_order=True)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    name = saved(tmp_path, model=BertModel(BertConfig(**{**SIZE, "vocab_size": 100})))
    with pytest.raises(UserError, match=r"its tokenizer has \d+ tokens and the model 100 embeddings"):
        load_encoder(ModelConfig(name=name, max_length=16), second_order=True)


def test_an_encoder_of_t5_by_itself_gets_no_decoder(tmp_path):
    size = {"vocab_size": 300, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    model = T5EncoderModel(T5Config(**size))
    encoder, _ = load_encoder(ModelConfig(name=saved(tmp_path, model=model), max_length=16), second_order=True)
    loaded = dict(encoder.backbone.named_parameters())
    assert not any(name.startswith("decoder") for name in loaded)
    for name, value in model.named_parameters():
        assert torch.equal(loaded[name], value)


@pytest.mark.parametrize("pipeline", (False, True))
def test_a_model_without_a_classifier_predicts_nothing(tmp_path, pipeline):
    saved(tmp_path)
    if pipeline:
        (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(UserError, match="is a model that gives no labels; give what `metatrain finetune` wrote"):
        Classifier(tmp_path, torch.device("cpu"))
