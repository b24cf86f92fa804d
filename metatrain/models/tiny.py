"""`model=tiny`: a from-scratch 2-layer BERT with a tokenizer of hashed words, for tests and dry runs.

It needs no download and no vocabulary file: its vocabulary are the most frequent words of the packaged reviews.
"""

from __future__ import annotations

import functools
import re
from collections import Counter

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = 2000


@functools.cache
def _vocabulary() -> dict[str, int]:
    from metatrain.tasks.embedded import embedded_path

    counts = Counter(re.findall(r"[a-z]+", embedded_path("metatrain:reviews").read_text(encoding="utf-8").casefold()))
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'-")
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    tokens = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words[:_WORDS]]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer over the most frequent words of the packaged reviews, falling back to letters."""
    raw = Tokenizer(WordPiece(_vocabulary(), unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def backbone(vocabulary_size: int, pooler: bool) -> BertModel:
    """Return a randomly initialised BERT with 2 layers and hidden size 64; weights depend on the global seed."""
    return BertModel(_config(vocabulary_size), add_pooling_layer=pooler)


def masked_language_model(vocabulary_size: int) -> BertForMaskedLM:
    """Return the same with a head that predicts masked words, whose output embeddings are the word embeddings."""
    return BertForMaskedLM(_config(vocabulary_size))


def _config(vocabulary_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
