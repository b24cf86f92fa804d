"""Docstrings, comments, messages and documentation use the standard terms of the field.

Checked is what can be checked mechanically: how docstrings begin, and words in a sense that papers and libraries do not use.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "metatrain").rglob("*.py"))
TEXTS = [*sorted((ROOT / "conf").rglob("*.yaml")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# Docstrings begin with a verb ("Return ...") or with the thing itself; "Why not" and "How to" would be headings of documentation.
OPENINGS = re.compile(r"(What|How|Whether|Why|Which|Where|Those|That|So|Of|From now on)\b")
# Pattern of a word: the standard term.
INSTEAD = {
    r"\b(go|goes|going|gone|went) on\b": "resume, continue",
    r"\banew\b": "from scratch, again",
    r"\bat hand\b": "given, available",
    r"\b(of|for|at most|about|with|until) (so|this|that) many\b|\b(so|this|that) many (episodes|texts|shots|tasks|examples|rows|tokens)\b": "a number of",
    r"\blikeliest\b": "most likely",
    r"\btold? apart\b|\b(can|cannot|could) be told\b": "distinguish",
    r"\bone by one\b": "sequentially",
    r"\bside by side\b": "in parallel",
    r"\bpair by pair\b": "paired",
    r"\b(learned|learns?) by heart\b": "memorise",
    r"\bdecoder alone\b": "decoder-only",
    r"\bsurest\b": "most confident",
    r"\bpieces of words\b": "subword tokens",
    r"\bof their own accord\b|\bby and by\b|\bin the wild\b": "leave out",
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _docstrings(path: Path) -> Iterator[str]:
    """Yield `NAME: first line` for each docstring of a module, its classes and its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (text := ast.get_docstring(node)):
            yield f"{getattr(node, 'name', 'module')}: {text.splitlines()[0]}"


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) for each line of a document, or for each comment and string of a module."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        return
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)):
                yield from enumerate(token.string.splitlines(), token.start[0])


def openings(path: Path) -> list[str]:
    """Return the docstrings that begin with a question word or a pronoun."""
    return [line for line in _docstrings(path) if OPENINGS.match(line.partition(": ")[2])]


def words(path: Path) -> list[str]:
    """Return the matches of `INSTEAD` with line, standard term and context."""
    return [
        f"{_name(path)}:{number}: '{found[0]}', use: {term}: {text.strip()[:120]}"
        for number, text in _prose(path)
        for pattern, term in INSTEAD.items()
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


def test_docstrings_begin_with_a_verb_or_the_thing():
    assert {_name(path): found for path in MODULES if (found := openings(path))} == {}


@pytest.mark.parametrize("paths", [MODULES, TEXTS], ids=["code", "documents"])
def test_words_have_their_standard_sense(paths):
    assert [line for path in paths for line in words(path)] == []
