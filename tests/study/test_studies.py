"""The studies of the repository, and the places of their tables in docs/results.md."""

import re

import pytest
from conftest import ROOT

from metatrain.study.config import read_study
from metatrain.study.plan import planned

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
EVERY_TIME = ("example", "arsc", "intents")  # the others compose the same way, and run nightly
PAGE = (ROOT / "docs" / "results.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path if path.stem in EVERY_TIME else pytest.param(path, marks=pytest.mark.nightly) for path in STUDIES], ids=lambda path: path.stem
)
def test_every_run_composes_and_differs_from_the_others(path):
    runs = planned(read_study(path), path.stem, [])
    assert len({run.path for run in runs}) == len(runs)
    assert f"{len(runs)} runs" in path.read_text()


def test_each_place_in_the_page_is_of_a_table():
    places = re.findall(r"^<!-- study (\w+): (\S+) -->$", PAGE, re.MULTILINE)
    assert len(places) > 40 and len(set(places)) == len(places) == PAGE.count("<!-- end of study table -->")
    for name, table in places:
        assert table in read_study(ROOT / "studies" / f"{name}.yaml").tables, f"{name}: {table}"


def test_the_page_names_the_command_of_every_study():
    named = set(re.findall(r"metatrain study (studies/\w+\.yaml)", PAGE))
    assert named == {f"studies/{path.name}" for path in STUDIES if path.stem != "example"}
