"""What is loaded is all there: weights that a directory lacks are not made up."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5Config, T5EncoderModel

from metatrain.errors import UserError
from metatrain.models import scratch, tiny
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier
from metatrain.models.language_loading import load_language_model

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
    with pytest.raises(UserError, match="is not a classifier; give the output of `metatrain finetune`"):
        Classifier(tmp_path, torch.device("cpu"))


def with_added_tokens(folder: Path, model: torch.nn.Module, **special: str) -> str:
    """A directory of a model that was not resized for the tokens that its tokenizer was given."""
    name = saved(folder, model=model)
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.add_tokens(["<NUM>", "<URL>"])
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return name


@pytest.mark.parametrize("writes", (False, True))
def test_tokens_that_the_model_has_no_embedding_for_are_read_as_ordinary_text(tmp_path, writes):
    own, text = scratch.train_tokenizer(["a few words", "and some more"], 300, ends=True), "call <NUM> now"
    size = {"vocab_size": len(own), "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**size)) if writes else BertModel(BertConfig(**{**SIZE, "vocab_size": len(own)}))
    config = ModelConfig(name=with_added_tokens(tmp_path, model, pad_token="<new pad>"), max_length=32)
    made, notes = load_language_model(config, True, torch.float32, ()) if writes else load_encoder(config, second_order=True)
    assert any("3 tokens of the tokenizer have no embedding in the model and are tokenised as ordinary text: <NUM>, <URL>, <new pad>" in note for note in notes)
    (found,) = made.tokens().encode([text])
    assert found.tolist() == own(text)["input_ids"] and made.tokenizer.pad_token_id < len(own)


def test_tokens_that_the_model_was_resized_for_stay(tmp_path):
    own = scratch.train_tokenizer(["a few words", "and some more"], 300, ends=True)
    name = with_added_tokens(tmp_path, BertModel(BertConfig(**{**SIZE, "vocab_size": len(own) + 2})))
    encoder, notes = load_encoder(ModelConfig(name=name, max_length=32), second_order=True)
    assert encoder.tokenizer.convert_tokens_to_ids("<NUM>") == len(own) and not any("no embedding" in note for note in notes)


@pytest.mark.parametrize(
    ("architecture", "reads"), [("convbert", {"embedding_size": 16, "head_ratio": 1}), ("fnet", {"tpu_short_seq_length": 64}), ("roberta", None)]
)
def test_the_texts_beside_a_text_do_not_change_its_encoding(tmp_path, architecture, reads):
    """Convolutions and Fourier transforms read padding, so that such a model is given none."""
    words = tiny.tokenizer()
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 66, "pad_token_id": 0}
    AutoModel.from_config(AutoConfig.for_model(architecture, vocab_size=len(words), **size, **(reads or {}))).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoder, notes = load_encoder(ModelConfig(name=str(tmp_path), max_length=16), second_order=False)
    assert any("this architecture reads padding" in note for note in notes) == bool(reads)
    texts = encoder.tokens().encode(["a wonderful plot and more", "a wonderful plot and", "cold"])
    with torch.no_grad():
        together, alone = encoder(encoder.batch(texts)), torch.cat([encoder(encoder.batch([text])) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
