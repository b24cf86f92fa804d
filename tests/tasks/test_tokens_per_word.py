"""The hint about texts in a language that a model does not know."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from metatrain.tasks.tokens_per_word import language_note

WORDS = ["the", "strap", "broke", "on", "first", "day"]


def tokenizer(size: int = 30_000) -> PreTrainedTokenizerFast:
    """Return a tokenizer of six English words, which splits others into letters, with a vocabulary of this size."""
    pieces = [*WORDS, *(prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz" for prefix in ("", "##"))]
    names = ["[UNK]", *pieces, *(f"[unused{number}]" for number in range(size - len(pieces) - 1))]
    made = Tokenizer(models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the strap broke on the first day", None),
        ("der riemen riss am ersten tag", "its tokenizer splits a word into 4.0 tokens"),
        ("带子第一天就断了", "100% of their tokens are unknown to it"),
    ],
)
def test_texts_of_another_language_are_noticed(text, why):
    note = language_note(tokenizer(), [text] * 300)
    assert (note is None) if why is None else note is not None and why in note and note.startswith("hint: the texts may not be in the language")


def test_a_vocabulary_of_many_languages_or_of_a_test_says_nothing():
    assert language_note(tokenizer(200), ["der riemen riss"]) is None and language_note(tokenizer(100_000), ["der riemen riss"]) is None
