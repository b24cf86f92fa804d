"""Rows to predict: every line of a pipe has its place, and a reason where it cannot be read."""

import io
import os

from metatrain.tasks.unlabelled import piped_rows


def read(rows) -> list[tuple[str, str | None]]:
    return [(row.text, row.problem) for row in rows]


def test_the_lines_of_a_pipe_are_there_as_they_come():
    there, here = os.pipe()
    empty = ("", "standard input:2: the line is empty")
    with open(there, "rb") as pipe, open(here, "wb", buffering=0) as writer:
        parts = piped_rows(pipe)
        for come, lines in ((b"\xef\xbb\xbfone\n\ntw", ["one", None]), ("o\nünï".encode(), ["two"]), (b"\r\nthree\nfour\n", ["ünï", "three", "four"])):
            writer.write(come)
            assert read(next(parts)) == [empty if line is None else (line, None) for line in lines]
        writer.write(b"\xff\n")
        assert read(next(parts)) == [("", "standard input:7: not valid UTF-8")]
    assert list(map(read, piped_rows(io.BufferedReader(io.BytesIO(b"one\ntwo"))))) == [[("one", None)], [("two", None)]]
