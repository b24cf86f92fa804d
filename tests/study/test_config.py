"""Study files: each mistake is one line with the file and the key."""

import pytest

from metatrain.errors import UserError
from metatrain.study.config import read_study

STUDY = """\
base: {train: model=tiny}
seeds: [0, 1]
runs:
  one: algorithm=maml
  heads:
    variants: {proto: algorithm=protonet, r2d2: algorithm=r2d2}
  tested: {command: evaluate, settings: "checkpoint=${run:heads/proto}"}
tables:
  candidates: {runs: [heads], rows: runs, against: one, statistics: [score, difference]}
"""


@pytest.fixture
def read(tmp_path):
    def call(text: str):
        (tmp_path / "study.yaml").write_text(text)
        return read_study(tmp_path / "study.yaml")

    return call


def test_names_of_runs_and_of_their_variants(read):
    study = read(STUDY)
    assert list(study.names()) == ["one", "heads/proto", "heads/r2d2", "tested"]
    assert study.runs_of(study.tables["candidates"]) == ["heads/proto", "heads/r2d2"]
    assert study.runs["one"].settings == "algorithm=maml" and study.runs["tested"].settings == "checkpoint=${run:heads/proto}"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("seeds:", "seed:", "no setting named 'seed'; did you mean 'seeds'?"),
        ("variants:", "variant:", "no setting named 'runs.heads.variant'; did you mean 'runs.heads.variants'?"),
        ("[0, 1]", "[0, a]", "seeds[1]: Value 'a' of type 'str' could not be converted to Integer"),
        ("[0, 1]", "[0, 0]", "seeds: [0, 0] must be different seeds, 0 or larger"),
        ("command: evaluate", "command: finetune", "runs.tested.command: 'finetune' is not one of train, evaluate"),
        ("run:heads/proto", "run:heads/prot", "runs.tested.settings: ${run:heads/prot} is no run above this one; did you mean 'heads/proto'?"),
        ("rows: runs", "rows: run", "tables.candidates.rows: 'run' is not one of runs, arms, tasks, seeds, shots; did you mean 'runs'?"),
        ("runs: [heads]", "runs: [head]", "tables.candidates.runs: 'head' is not one of one, heads,"),
        ("against: one, ", "", "tables.candidates.statistics: difference needs against: RUN or ARM"),
        ("against: one", "against: heads", "tables.candidates.against: heads has variants; name one of heads/proto, heads/r2d2"),
        ("rows: runs, ", "", "tables.candidates.runs: several runs need rows: runs or columns: runs"),
        ("[score, difference]", "[score, t]", "tables.candidates.statistics: 't' is not one of score, mean,"),
    ],
)
def test_a_mistake_is_one_line(read, before, after, words):
    assert before in STUDY
    with pytest.raises(UserError) as error:
        read(STUDY.replace(before, after))
    assert words in str(error.value) and "study.yaml: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "words"), [("runs: [", "study.yaml:1: "), ("- a", "study.yaml: a study has the keys"), ("seeds: [0]", "runs: a study needs")])
def test_other_files(read, text, words):
    with pytest.raises(UserError, match=words):
        read(text)
