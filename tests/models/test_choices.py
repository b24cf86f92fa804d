"""What is read once for many texts and choices gives the likelihoods that each pair has alone."""

import numpy as np
import pytest
import torch
from test_language_model import FAMILIES, TEXTS, after_a_context, language_model, read_by
from transformers import MambaConfig, MambaForCausalLM

from metatrain.models.choices import losses_of_choices
from metatrain.models.config import ModelConfig
from metatrain.models.language_model import LanguageModel

CHOICES = ["one", "a longer choice than that", "two"]
WAYS = {"all at once": 8192, "few at a time": 60, "each alone": 1}


def apart(model: LanguageModel, texts: list[np.ndarray], choices: list[np.ndarray]) -> torch.Tensor:
    return torch.stack([torch.stack([model(model.batch([text], [choice])).loss[0] for choice in choices]) for text in texts])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("context", ["", "read before each of them, and long enough"])
@pytest.mark.parametrize("way", WAYS)
def test_choices_are_as_likely_as_each_pair_in_a_batch_of_its_own(family, context, way):
    model = language_model(family)
    tokens = model.tokens()
    texts = tokens.encode([f"{context} {text}"[-60:].strip() for text in TEXTS])
    choices = tokens.encode_targets(CHOICES)
    with torch.no_grad():
        expected = apart(model, texts, choices)
        found = losses_of_choices(model, texts, choices, WAYS[way])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # T5 and Llama take their norms in float32
    assert expected.std() > 0.1


@pytest.mark.parametrize("family", ("gpt2", "llama"))
def test_what_all_texts_begin_with_is_read_once(family, monkeypatch):
    model = language_model(family)
    tokens = model.tokens()
    context, texts = after_a_context(model)
    choices = tokens.encode_targets(CHOICES)
    assert model.has_kv_cache  # measured once, before anything is counted
    read = read_by(model, monkeypatch)
    with torch.no_grad():
        found = losses_of_choices(model, texts, choices, 8192)
        number = sum(rows * tokens for rows, tokens in read)
        torch.testing.assert_close(found, apart(model, texts, choices), rtol=1e-6, atol=1e-6)
    pairs = sum(len(text) + len(choice) for text in texts for choice in choices)
    assert read[0] == (1, len(context))
    assert number < pairs / 3


@pytest.mark.parametrize("family", ("gpt2", "t5"))
def test_one_text_and_equal_texts(family):
    model = language_model(family)
    tokens = model.tokens()
    choices = tokens.encode_targets(CHOICES)
    for texts in (tokens.encode(TEXTS[:1]), tokens.encode([TEXTS[0], TEXTS[0]])):
        with torch.no_grad():
            torch.testing.assert_close(losses_of_choices(model, texts, choices, 8192), apart(model, texts, choices), rtol=1e-6, atol=1e-6)


def test_a_decoder_without_keys_and_values_reads_each_pair():
    torch.manual_seed(1)
    gpt2 = language_model("gpt2")
    config = MambaConfig(vocab_size=320, hidden_size=16, state_size=4, num_hidden_layers=2, pad_token_id=0, eos_token_id=1, bos_token_id=1)
    model = LanguageModel(MambaForCausalLM(config), gpt2.tokenizer, ModelConfig(name="mamba", max_length=32, max_target_length=10))
    tokens = model.tokens()
    texts, choices = tokens.encode(TEXTS), tokens.encode_targets(CHOICES)
    with torch.no_grad():
        torch.testing.assert_close(losses_of_choices(model, texts, choices, 8192), apart(model, texts, choices), rtol=1e-4, atol=1e-4)
