"""Masked language models as encoders: logits of label words against transformers, templates, label words, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from small_models import MASKED, masked_tokenizer, save_masked

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.cloze import ClozeEncoder, ClozeEncoding, ClozeTokens, load_cloze_encoder
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.heads import MaskedWordHead
from metatrain.tasks.encoded_episode import EncodedEpisode
from metatrain.tasks.texts import PAIR

TEXTS = ["a dull film", "a wonderful plot that never lets go, and the long wait was worth it", "fast"]
PROMPT = PromptConfig(text="{text} It was {mask}.", words={"0": "good", "1": "very bad"})


def reference_logits(folder: str, sentences: list[str], words: list[list[str]]) -> torch.Tensor:
    """Logits of the label words at the mask by transformers' own classes, one sentence at a time; of several words, their mean."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ids = [[tokenizer.convert_tokens_to_ids(word) for word in each] for each in words]
    rows = []
    for sentence in sentences:
        inputs = tokenizer(sentence.replace("<>", tokenizer.mask_token), return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id][0]
        rows.append(torch.stack([logits[each].mean() for each in ids]))
    return torch.stack(rows)


@pytest.mark.parametrize("mask_is_last", [False, True])
@pytest.mark.parametrize("family", MASKED)
def test_logits_are_those_of_transformers(family, mask_is_last, tmp_path):
    folder = save_masked(family, tmp_path, mask_is_last)
    encoder, notes = load_cloze_encoder(ModelConfig(name=folder), PROMPT, second_order=False)
    assert encoder.mask_is_last == mask_is_last and "predicts the mask of '{text} It was {mask}.'" in notes[-2]
    learner = EncoderLearner(encoder, AlgorithmConfig(head="mlm"), InnerConfig(), None)
    tokens = encoder.tokens()
    labels = np.zeros(1, np.int64)
    episode = EncodedEpisode(tokens.encode(TEXTS[:1]), labels, (), labels[:0], ["0", "1"], name_tokens=tokens.names(["0", "1"]))
    adapted, _ = learner.adapt(episode, steps=0)
    expected = reference_logits(folder, [f"{text} It was <>." for text in TEXTS], [["good"], ["very", "bad"]])
    torch.testing.assert_close(learner.logits(adapted, tokens.encode(TEXTS)), expected, rtol=1e-4, atol=1e-4)


def test_a_saved_model_is_the_masked_language_model_of_transformers(tmp_path):
    folder = save_masked("bert", tmp_path / "one", False)
    encoder, _ = load_cloze_encoder(ModelConfig(name=folder), PROMPT, second_order=False)
    encoder.backbone.save_pretrained(tmp_path / "two")
    encoder.tokenizer.save_pretrained(tmp_path / "two")
    one, two = (reference_logits(str(each), [f"{TEXTS[0]} It was <>."], [["good"], ["bad"]]) for each in (folder, tmp_path / "two"))
    assert torch.equal(one, two)


def encode(template: str, text: str, max_length: int = 64) -> str:
    tokenizer = masked_tokenizer()
    return tokenizer.decode(ClozeEncoding("", "", template)(tokenizer, text, max_length))


def test_texts_are_truncated_and_templates_are_not():
    assert encode("{text} It was {mask}.", "the film") == "[CLS] the film it was [MASK] . [SEP]"
    long = " ".join(["film"] * 100)
    assert encode("{text} It was {mask}.", long, 9) == "[CLS] film film film it was [MASK] . [SEP]"
    assert encode("{mask} : {text}", long, 6) == "[CLS] [MASK] : film film [SEP]".replace(" :", " [UNK]")
    assert encode("{text} ? {mask} , {text_pair}", f"good{PAIR}{long}", 8) == "[CLS] good ? [MASK] , film film [SEP]"
    assert encode("{text} {mask}", f"good{PAIR}bad") == "[CLS] good [SEP] bad [MASK] [SEP]"
    assert encode("{text} {mask}", "a [MASK] film") == "[CLS] a [UNK] film [MASK] [SEP]"  # one mask only
    with pytest.raises(UserError, match="max_length=6 leaves no room"):
        encode("{text} It was {mask}.", "film", 6)
    with pytest.raises(UserError, match="has {text_pair}, and 'film' is a single text"):
        encode("{text} {mask} {text_pair}", "film")


def test_label_words():
    tokens = ClozeTokens(masked_tokenizer(), 32, None, PromptConfig(text="{text} {mask}", words={"2": "good"}))
    ids = tokens.tokenizer.convert_tokens_to_ids
    assert [each.tolist() for each in tokens.names(["2", "very_bad"])] == [[ids("good")], [ids("very"), ids("bad")]]
    with pytest.raises(UserError, match=r"labels '2' and 'good' have the same label word for this model; .*prompt\.words=\{good: WORD\}"):
        tokens.names(["2", "good"])
    with pytest.raises(UserError, match=r"label '\u4f60': the label word .* is not in the vocabulary"):
        tokens.names(["\u4f60"])


def test_an_example_of_the_head_in_closed_form():
    words = {"weight": torch.eye(2), "bias": torch.ones(2)}
    assert MaskedWordHead().start({}, {}, torch.zeros(0, 2), torch.zeros(0), ["a", "b"], words) == words


@pytest.mark.parametrize(
    "template, message",
    [
        ("{text} It was good.", "must have {mask} once"),
        ("{mask} {text} {mask}", "must have {mask} once"),
        ("It was {mask}.", "must have {text} once"),
        ("{text} {mask} {text_pair} {text_pair}", "must have {text_pair} at most once"),
        ("{text} {mask} {labels}", "{labels} is for language models that generate"),
    ],
)
def test_templates_that_make_no_sense(template, message):
    with pytest.raises(UserError) as error:
        load_cloze_encoder(ModelConfig(name="tiny"), PromptConfig(text=template), second_order=False)
    assert message in str(error.value)


def test_models_without_a_prediction_head(tmp_path: Path):
    config = transformers.BertConfig(vocab_size=len(masked_tokenizer()), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertModel(config).save_pretrained(tmp_path)
    masked_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no weights for \d+ of its parameters \(cls\.predictions.*algorithm\.head=mlm needs a masked language model"):
        load_cloze_encoder(ModelConfig(name=str(tmp_path)), PROMPT, second_order=False)


def test_a_head_that_computes_other_logits_is_refused(monkeypatch):
    monkeypatch.setattr(ClozeEncoder, "_transformed", lambda self, states: states)
    with pytest.raises(UserError, match="bert computes the logits of a masked word in another way"):
        load_cloze_encoder(ModelConfig(name="tiny"), PROMPT, second_order=False)
