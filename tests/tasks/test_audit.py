import numpy as np

from metatrain.tasks.audit import without_seen
from metatrain.tasks.task import Task, text_key


def task(*texts: str) -> Task:
    pool = np.ones(len(texts), dtype=bool)
    return Task("t", texts, np.zeros(len(texts), dtype=int), ("a",), pool, pool)


def test_case_spacing_and_punctuation_do_not_make_another_text():
    assert text_key("It's  FINE.") == text_key("it s fine") != text_key("it is fine")


def test_texts_seen_in_training_are_left_out_and_counted():
    kept, notes = without_seen([task("one", "two", "three")], [task("TWO!", "four")])
    assert kept[0].texts == ("one", "three")
    assert notes == ["1 texts left out of the test tasks: the model was trained on them"]
    kept, notes = without_seen([task("one")], [task("four")])
    assert kept[0].texts == ("one",) and notes == []
