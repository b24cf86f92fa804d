"""Sections of Markdown pages."""

import pytest

from metatrain.report.sections import put_section

PAGE = """\
# Title

Before.

## One

Of one.

### A

old

### B

stays

## Two

end
"""


@pytest.fixture
def put(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)

    def call(*arguments, **more) -> str:
        put_section(path, *arguments, **more)
        return path.read_text()

    return call


def test_a_section_takes_the_place_of_the_one_with_its_heading(put):
    assert put("### A", "### A\n\nnew") == PAGE.replace("old", "new")
    assert put("### A", "### A\n\nold\n") == PAGE  # nothing adds up


def test_a_new_section_goes_to_the_end_of_the_one_above_it(put):
    assert put("### C", "### C\n\nnew", below="## One") == PAGE.replace("stays\n", "stays\n\n### C\n\nnew\n")
    assert put("## Three", "## Three\n\nlast").endswith("end\n\n## Three\n\nlast\n")


def test_the_sections_within_one_go_or_stay(put):
    assert put("## One", "## One\n\nOther words.", inner=False) == PAGE.replace("Of one.", "Other words.")
    assert put("## One", "## One\n\nAlone.") == PAGE[: PAGE.index("Of one.")] + "Alone.\n\n" + PAGE[PAGE.index("## Two") :]
