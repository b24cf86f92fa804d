"""Token ids, and the cache that spares later runs the tokenizer."""

import numpy as np
import pytest

from metatrain.errors import UserError
from metatrain.models import scratch
from metatrain.models.tiny import tokenizer
from metatrain.tasks.task import Task
from metatrain.tasks.texts import PAIR
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


def test_a_prefix_comes_before_each_text_and_the_first_of_a_pair(cache):
    found = Tokens(tokenizer(), 12, prefix="plot: ")
    assert lists(found.encode(TEXTS)) == lists(found.names(TEXTS)) == expected(12, ["plot: " + text for text in TEXTS])
    assert lists(found.encode([f"a{PAIR}b"])) == [tokenizer()("plot: a", "b")["input_ids"]]
    films = task(*TEXTS)
    of_task = [lists(Tokens(tokenizer(), 12, prefix=prefix).of(films, [0, 1, 2])) for prefix in ("", "plot: ", "")]
    assert of_task == [expected(12), expected(12, ["plot: " + text for text in TEXTS]), expected(12)]  # the cache knows them apart


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
    assert len(list(cache.glob("*.ids"))) == 1 and len(list(cache.iterdir())) == 2


def test_other_texts_lengths_and_tokenizers_are_not_taken_for_these(cache):
    Tokens(tokenizer(), 6).of(task(*TEXTS), [0])
    assert lists(Tokens(tokenizer(), 5).of(task(*TEXTS), [0, 1, 2])) == expected(5)
    moved = (TEXTS[0] + TEXTS[1][:1], TEXTS[1][1:] + "y", TEXTS[2])
    assert lists(Tokens(tokenizer(), 6).of(task(*moved), [0, 1, 2])) == expected(texts=moved)
    other = tokenizer()
    other.add_tokens(["wonderful plot"])
    assert lists(Tokens(other, 6).of(task(*TEXTS), [0])) == [other(TEXTS[0])["input_ids"][:6]]
    assert len(list(cache.glob("*.ids"))) == 4


@pytest.mark.parametrize("kind", ["ids", "npy"])
@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_broken_file_is_written_again(cache, content, kind):
    Tokens(tokenizer(), 6).of(task(*TEXTS), [0])
    (path,) = cache.glob(f"*.{kind}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] if content is None else content)
    assert lists(Tokens(tokenizer(), 6).of(task(*TEXTS), [0, 1, 2])) == expected()
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METATRAIN_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not cached for later runs.*METATRAIN_CACHE"):
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
    assert len(list((tmp_path / "metatrain" / "tokens").glob("*.ids"))) == 1


def test_many_texts_are_tokenised_some_thousand_at_a_time(cache, monkeypatch):
    monkeypatch.setattr("metatrain.tasks.tokens._AT_A_TIME", 2)
    words = Counted()
    found = Tokens(words, 6).of(task(*TEXTS), [0, 1, 2])
    assert lists(found) == expected() and words.calls == 2


def test_only_large_tables_are_memory_mapped(cache, monkeypatch):
    """A mapping holds a file open, of which a process may have about a thousand; a run may have ten thousand tasks."""
    size = 4 * sum(map(len, expected()))
    for limit, is_mapped in ((size + 1, False), (size, True)):
        monkeypatch.setattr("metatrain.tasks.tokens._MAPPED", limit)
        tokens = Tokens(tokenizer(), 6)
        of_task = tokens.of(task(*TEXTS), [0, 1, 2])
        assert lists(of_task) == expected()
        ((_, table),) = tokens._tables.values()
        assert isinstance(table.ids, np.memmap) == is_mapped


def test_a_write_that_fails_leaves_nothing_behind(cache, monkeypatch):
    def full(file, array, allow_pickle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("metatrain.tasks.tokens.np.save", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert lists(Tokens(tokenizer(), 6).of(task(*TEXTS), [0, 1, 2])) == expected()
    assert [path.suffix for path in cache.iterdir()] == [".ids"]  # without its offsets it is not read


def test_pairs_are_what_the_tokenizer_makes_of_two_texts():
    from metatrain.tasks.texts import PAIR

    (found,) = lists(Tokens(tokenizer(), 12).encode([f"a plot{PAIR}the dealer"]))
    assert found == tokenizer()("a plot", "the dealer")["input_ids"]
    longer = f"a plot{PAIR}the brakes and so is the dealer"
    (cut,) = lists(Tokens(tokenizer(), 8).encode([longer]))
    assert cut == tokenizer()(*longer.split(PAIR), truncation="longest_first", max_length=8)["input_ids"] and len(cut) == 8


def test_a_masked_word_needs_a_token_that_can_stand_for_it():
    from metatrain.errors import UserError
    from metatrain.tasks.texts import MASK

    words = tokenizer()
    words.mask_token = words.unk_token = words.eos_token = None
    with pytest.raises(UserError, match="no special token that can stand for a masked word"):
        Tokens(words, 6).encode([f"a {MASK} plot"])


def test_preparing_tokenises_each_task_once():
    words, tasks, done = Counted(), [task(*TEXTS), task("another")], []
    tokens = Tokens(words, 6)
    tokens.prepare(tasks, lambda: done.append(words.calls))
    assert done == [1, 2]
    assert lists(tokens.of(tasks[0], [1])) == [expected()[1]] and words.calls == 2


@pytest.mark.parametrize(("long", "short", "said"), [(0, 10, []), (1, 10, []), (4, 6, ["about 40% of the texts are longer than 8 tokens"])])
def test_that_many_texts_are_cut_is_said(long, short, said):
    texts = [*["the book is long and dull and heavy and old"] * long, *["a book"] * short]
    notes = Tokens(tokenizer(), 8).notes([task(*texts)])
    assert [note.split(" and are")[0] for note in notes] == said
    assert all(note.endswith("model.max_length=16 keeps more of them, at a higher cost") for note in notes)


def test_no_length_is_named_that_the_model_does_not_have():
    limited = tokenizer()
    limited.model_max_length = 12
    (note,) = Tokens(limited, 8).notes([task("the book is long and dull and heavy and old")])
    assert note.endswith("model.max_length=12 keeps more of them, at a higher cost")
    limited.model_max_length = 8
    (note,) = Tokens(limited, 8).notes([task("the book is long and dull and heavy and old")])
    assert note.endswith("are truncated")
    (note,) = Tokens(tokenizer(), 8, longest=11).notes([task("the book is long and dull and heavy and old")])
    assert "model.max_length=11 keeps more" in note


def test_a_text_of_no_tokens_becomes_a_special_token():
    words = scratch.train_tokenizer(["the book is long"], 300, ends=False)
    found = Tokens(words, 6).encode(["", "the book", ""])
    assert lists(found) == [[words.eos_token_id], words("the book")["input_ids"], [words.eos_token_id]]
    words.eos_token = words.bos_token = words.unk_token = words.pad_token = None
    with pytest.raises(UserError, match="a text has no tokens"):
        Tokens(words, 6).encode([""])
