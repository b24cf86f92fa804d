"""Replace a section of a Markdown page, or the text between two markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def put_section(page: Path, heading: str, text: str, below: str | None = None, inner: bool = True) -> None:
    """Replace the section with the same heading (`## ...`, for example), or append the section.

    below: heading of the section after which a new one is inserted. inner: also replace the subsections of the old one.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    found = [_section(lines, heading, inner)] if heading in lines else []
    begin, end = found[0] if found else (_section(lines, below, True)[1],) * 2 if below else (len(lines),) * 2
    parts = ["\n".join(lines[:begin]).strip(), text.strip(), "\n".join(lines[end:]).strip()]
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def put_between(page: Path, begin: str, end: str, text: str) -> bool:
    """Replace the text between two marker lines; return False if the page does not have them."""
    before, found, rest = page.read_text(encoding="utf-8").partition(f"{begin}\n")
    _, ended, after = rest.partition(f"{end}\n")
    if not (found and ended):
        return False
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}\n{after}", encoding="utf-8")
    return True


def _section(lines: Sequence[str], heading: str, inner: bool) -> tuple[int, int]:
    """Return the first line of a section and the line after its end."""
    begin, level = lines.index(heading), heading.index(" ")
    marks = re.compile(rf"#{{1,{level if inner else 6}}} ")
    return begin, next((number for number in range(begin + 1, len(lines)) if marks.match(lines[number])), len(lines))
