"""Token ids, and the cache that spares later runs the tokenizer."""

import numpy as np
import pytest

from metatrain.models.tiny import tokenizer
from metatrain.tasks.task import Task
from metatrain.tasks.tokens import Tokens

TEXTS = ("A wonderful plot!", "x", "the brakes are unpredictable and so is the dealer")


def task(*texts: str) -> Task:
    rows = np.arange(len(texts))
    return Task("films", texts, rows % 2, ("no", "yes"), rows, rows)


def lists(found) -> list[list[int]]:
    return [ids.tolist() for ids in found]


def expected(length: int = 6, texts=TEXTS) -> list[list[int]]:
    return [tokenizer()(text, truncation=True, max_length=length)["input_ids"] for text in texts]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METATRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


class Counted:
    """A tokenizer that counts its calls."""

    def __init__(self):
        self.words, self.calls = tokenizer(), 0

    def __getattr__(self, name):
        return getattr(self.words, name)

    def __call__(self, *arguments, **options):
        self.calls += 1
        return self.words(*arguments, **options)


def test_tokens_are_those_of_the_tokenizer_cut_to_the_length():
    found = Tokens(tokenizer(), 6).encode(TEXTS)
    assert lists(found) == expected()
    assert max(map(len, found)) == 6


def test_no_texts():
    assert Tokens(tokenizer(), 6).encode([]) == []


def test_a_second_run_tokenises_nothing(cache):
    for calls in (1, 0):
        words = Counted()
        tokens = Tokens(words, 6)
        assert lists(tokens.of(task(*TEXTS), [2, 0])) == [expected()[2], expected()[0]]
        assert lists(tokens.of(task(*TEXTS), [1])) == [expected()[1]]
        # Two tasks of the same texts: the second is found where the first was written.
        assert words.calls == calls
    assert len(list(cache.iterdir())) == 1


def test_other_texts_lengths_and_tokenizers_are_not_taken_for_these(cache):
    Tokens(tokenizer(), 6).of(task(*TEXTS), [0])
    assert lists(Tokens(tokenizer(), 5).of(task(*TEXTS), [0, 1, 2])) == expected(5)
    moved = (TEXTS[0] + TEXTS[1][:1], TEXTS[1][1:] + "y", TEXTS[2])
    assert lists(Tokens(tokenizer(), 6).of(task(*moved), [0, 1, 2])) == expected(texts=moved)
    other = tokenizer()
    other.add_tokens(["wonderful plot"])
    assert lists(Tokens(other, 6).of(task(*TEXTS), [0])) == [other(TEXTS[0])["input_ids"][:6]]
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_broken_file_is_made_anew(cache, content):
    Tokens(tokenizer(), 6).of(task(*TEXTS), [0])
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] if content is None else content)
    assert lists(Tokens(tokenizer(), 6).of(task(*TEXTS), [0, 1, 2])) == expected()
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METATRAIN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept for later runs.*METATRAIN_CACHE"):
        assert lists(Tokens(tokenizer(), 6).of(task(*TEXTS), [0, 1, 2])) == expected()


def test_an_empty_setting_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("METATRAIN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert lists(Tokens(tokenizer(), 6).of(task(*TEXTS), [0, 1, 2])) == expected()
    assert not list(tmp_path.iterdir())


def test_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.delenv("METATRAIN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Tokens(tokenizer(), 6).of(task(*TEXTS), [0])
    assert len(list((tmp_path / "metatrain" / "tokens").iterdir())) == 1
