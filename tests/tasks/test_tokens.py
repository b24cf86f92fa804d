from metatrain.models.tiny import tokenizer
from metatrain.tasks.tokens import Tokens


def test_tokens_are_those_of_the_tokenizer_cut_to_the_length():
    words = tokenizer()
    texts = ["A wonderful plot!", "x", "the brakes are unpredictable and so is the dealer"]
    found = Tokens(words, 6).encode(texts)
    assert [ids.tolist() for ids in found] == [words(text, truncation=True, max_length=6)["input_ids"] for text in texts]
    assert max(map(len, found)) == 6


def test_no_texts():
    assert Tokens(tokenizer(), 6).encode([]) == []
