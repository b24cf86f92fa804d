"""Settings are described where they are defined, with the defaults of the command's schema."""

from dataclasses import dataclass, field

import pytest

from metatrain.config.schema import SCHEMAS
from metatrain.config.settings import settings_of


@dataclass
class Inner:
    """A group."""

    depth: int = 2  # how deep


@dataclass
class Base:
    # Said above,
    # in two lines.
    first: str = "a"


@dataclass
class Whole(Base):
    plain: float | None = None
    many: list[int] = field(default_factory=lambda: [1])  # several
    # Above and
    both: str = "#"  # behind
    inner: Inner = field(default_factory=lambda: Inner(depth=3))


def test_comments_behind_and_above_are_meanings():
    found = {setting.key: (setting.type, setting.default, setting.meaning) for setting in settings_of(Whole)}
    assert found == {
        "first": ("str", "a", "Said above, in two lines."),
        "plain": ("float | null", None, ""),
        "many": ("list[int]", [1], "several"),
        "both": ("str", "#", "Above and behind"),
        "inner": ("group", None, "A group."),
        "inner.depth": ("int", 3, "how deep"),
    }


@pytest.mark.parametrize("command", list(SCHEMAS))
def test_every_setting_says_what_it_is(command):
    assert [setting.key for setting in settings_of(SCHEMAS[command]) if not setting.meaning] == []
