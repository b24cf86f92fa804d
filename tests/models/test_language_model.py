"""Language models give the likelihoods and write the texts that transformers does."""

import functools

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from metatrain.errors import UserError
from metatrain.models import scratch
from metatrain.models.config import ModelConfig, ScratchConfig
from metatrain.models.generation import TextGenerator, save_language_model
from metatrain.models.language_loading import load_language_model
from metatrain.models.language_model import LanguageModel

TEXTS = ["a short one", "quite a bit longer than the others are, it is", "two words", "Grüße, naïve café ☕"]
TARGETS = ["one", "a longer target than that", "two", "ça va"]
VOCABULARY = 320


def backbone(family: str):
    torch.manual_seed(1)
    size = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    if family == "t5":
        model = T5ForConditionalGeneration(T5Config(**size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0))
    elif family == "bart":
        config = BartConfig(**size, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
                            decoder_attention_heads=2, decoder_start_token_id=1, forced_eos_token_id=None)  # fmt: skip
        model = BartForConditionalGeneration(config)
    elif family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**size, n_embd=16, n_layer=2, n_head=2))
    else:
        model = LlamaForCausalLM(LlamaConfig(**size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2))
    with torch.no_grad():
        for parameter in model.parameters():  # else it would write nothing, or one word again and again
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.double()


FAMILIES = ("t5", "bart", "gpt2", "llama")


def language_model(family: str) -> LanguageModel:
    tokenizer = scratch.train_tokenizer(TEXTS + TARGETS, VOCABULARY, ends=family in ("t5", "bart"))
    model = LanguageModel(backbone(family), tokenizer, ModelConfig(name=family, max_length=32, max_target_length=10))
    model.backbone.generation_config.max_length = None
    return model


def after_a_context(model: LanguageModel) -> tuple[np.ndarray, list[np.ndarray]]:
    """Token ids that all texts begin with, and such texts."""
    texts = model.tokens().encode(TEXTS)
    context = np.concatenate([*texts, model.separator])
    return context, [np.concatenate([context, text]) for text in texts]


def read_by(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The shapes of what its backbone reads from now on."""
    read: list[tuple[int, int]] = []
    forward = model.backbone.forward

    @functools.wraps(forward)
    def recording(*args, **kwargs):
        read.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.backbone, "forward", recording)
    return read


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_transformers_one_text_at_a_time(family):
    model = language_model(family)
    tokens = model.tokens()
    texts, targets = tokens.encode(TEXTS), tokens.encode_targets(TARGETS)
    assert all(target[-1] == model.tokenizer.eos_token_id for target in targets)
    with torch.no_grad():
        found = model(model.batch(texts, targets))
    for text, target, loss, number in zip(texts, targets, found.loss, found.tokens):
        assert int(number) == len(target)
        if model.decoder_only:
            ids = torch.tensor(np.concatenate([text, model.separator, target]))[None]
            labels = ids.clone()
            labels[0, : len(text) + len(model.separator)] = -100
        else:
            ids, labels = torch.tensor(text)[None].long(), torch.tensor(target)[None]
        expected = model.backbone(input_ids=ids, labels=labels).loss * len(target)
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)  # transformers takes logits of decoders in float32


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_does_not_depend_on_the_batch(family):
    model = language_model(family)
    texts = model.tokens().encode(TEXTS)
    together = model.generate(texts)
    assert together == [model.generate([text])[0] for text in texts]
    assert any(together)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_the_same_where_a_common_prefix_is_read_once(family):
    model = language_model(family)
    (context, texts), targets = after_a_context(model), model.tokens().encode_targets(TARGETS)
    found = []
    for alike in (0, len(context)):
        batch = model.batch(texts, targets, alike)
        assert (batch.prefix is not None) == (alike > 0 and model.decoder_only)
        loss = model(batch).loss
        found.append(
            (loss, torch.autograd.grad((loss * torch.arange(1, 5)).sum(), [value for value in model.parameters() if value.requires_grad], allow_unused=True))
        )
    (loss, gradient), (shared_loss, shared_gradient) = found
    torch.testing.assert_close(shared_loss, loss, rtol=1e-6, atol=1e-6)
    for one, other in zip(gradient, shared_gradient):
        if one is not None:
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)  # T5 and Llama take their norms in float32


@pytest.mark.parametrize("family", ("gpt2", "llama"))
def test_what_all_texts_begin_with_is_read_once_and_changes_nothing(family, monkeypatch):
    model = language_model(family)
    context, texts = after_a_context(model)
    alone = [model.generate([text])[0] for text in texts]
    read = read_by(model, monkeypatch)
    assert model.generate(texts) == alone
    assert len(set(alone)) > 1
    assert read[0] == (1, len(context))
    assert max(tokens for _, tokens in read[1:]) <= max(map(len, texts)) + len(model.separator) - len(context)


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_takes_the_likeliest_token_each_time(family):
    model = language_model(family)
    text = model.tokens().encode(TEXTS[:1])[0]
    written: list[int] = []
    while len(written) < model.max_target_length:
        # The loss of each token after what is written tells how likely it is.
        trial = [np.array([*written, token]) for token in range(len(model.tokenizer))]
        with torch.no_grad():
            losses = model(model.batch([text] * len(trial), trial)).loss
        best = int(losses.argmin())
        if best == model.tokenizer.eos_token_id:
            break
        written.append(best)
    assert model.generate([text]) == [model.tokenizer.decode(written, skip_special_tokens=True).strip()]


def test_the_vocabulary_of_a_new_model_gives_back_every_text():
    tokenizer = scratch.train_tokenizer(TEXTS, 400, ends=True)
    again = scratch.train_tokenizer(TEXTS, 400, ends=True)
    assert tokenizer.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    for text in [*TEXTS, "never seen: 漢字"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"name": "scratch:rnn"}, "model.name=scratch:rnn is unknown"),
        ({"name": "minilm"}, "model.name=minilm does not generate text"),
        ({"scratch": ScratchConfig(hidden=30, heads=4)}, "model.scratch.hidden=30 must be a multiple"),
        ({"scratch": ScratchConfig(vocabulary=10)}, "model.scratch.vocabulary=10 must be 300 or more"),
        ({"max_target_length": 1}, "model.max_target_length=1 must be 2 or more"),
        ({"name": "scratch:gpt2", "max_length": 3000}, "scratch:gpt2 has positions for 2048 tokens of texts and their targets; set model.max_length="),
    ],
)
def test_models_that_cannot_be(changes, expected):
    with pytest.raises(UserError, match=expected):
        load_language_model(ModelConfig(**{"name": "scratch:t5", **changes}), False, torch.float32, TEXTS)


@pytest.mark.parametrize("name", ["scratch:t5", "scratch:gpt2"])
def test_a_finetuned_model_answers_as_before_it_was_written(name, tmp_path):
    config = ModelConfig(name=name, max_length=16, max_target_length=6, scratch=ScratchConfig(layers=1, hidden=16, heads=2, vocabulary=300))
    model, _ = load_language_model(config, False, torch.float32, TEXTS)
    assert save_language_model(tmp_path / "any", model, None) == "transformers"
    save_language_model(tmp_path / "labels", model, ["yes", "no_way"])
    texts, cpu = model.tokens().encode(TEXTS), torch.device("cpu")
    assert TextGenerator(tmp_path / "any", cpu).answers(TEXTS) == model.generate(texts)
    choices = model.tokens().encode_targets(["yes", "no way"])
    with torch.no_grad():
        losses = torch.stack([model(model.batch(texts, [choice] * len(texts))).loss for choice in choices], 1)
    assert torch.allclose(TextGenerator(tmp_path / "labels", cpu).scores(TEXTS).softmax(1), (-losses).softmax(1), atol=1e-5)
