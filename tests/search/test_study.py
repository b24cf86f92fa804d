import pytest

optuna = pytest.importorskip("optuna")

from metatrain.errors import UserError  # noqa: E402
from metatrain.search.config import SearchConfig  # noqa: E402
from metatrain.search.space import distributions  # noqa: E402
from metatrain.search.study import Study, Taken, check_search, error_of, rows  # noqa: E402

SPACE = {"x": "interval(0.0, 1.0)", "kind": "choice(a, b)"}


def opened(folder, trials=16, **more) -> Study:
    return Study(folder, "search", SearchConfig(SPACE, trials, **more), distributions(SPACE), seed=3, validations=9)


def score_of(params) -> float:
    return 1.0 - (params["x"] - 0.3) ** 2 - (0.2 if params["kind"] == "a" else 0.0)


def finish(study: Study, taken) -> None:
    study.scored(taken, [score_of(taken.trial.params)])
    study.done(taken, [score_of(taken.trial.params)])


def params(study: Study) -> list[dict]:
    return [trial.params for trial in study.trials()]


@pytest.fixture
def unbroken(tmp_path) -> Study:
    study = opened(tmp_path / "unbroken", pruner="none")
    while (taken := study.take()) is not None:
        finish(study, taken)
    return study


def test_a_search_that_is_killed_proposes_what_it_would_have_proposed(tmp_path, unbroken):
    """12 of 16 trials after the first ten, which are random, are TPE's."""
    done = 0
    for stop in (3, 12, 99):
        study = opened(tmp_path / "broken", pruner="none")
        while (taken := study.take()) is not None:
            if done == stop:
                taken.lock.release()  # as the operating system does when a process is killed
                break
            finish(study, taken)
            done += 1
    assert params(study) == params(unbroken)
    assert study.best()[1].params == unbroken.best()[1].params
    assert [row["state"] for row in rows(study.trials())] == ["complete"] * 16


def test_another_seed_proposes_other_settings(tmp_path, unbroken):
    other = Study(tmp_path / "other", "search", SearchConfig(SPACE, 16, pruner="none"), distributions(SPACE), seed=4, validations=9)
    assert other.take().trial.params != unbroken.trials()[0].params


def test_two_processes_never_work_on_the_same_trial(tmp_path):
    one, other = opened(tmp_path, trials=3), opened(tmp_path, trials=3)
    taken = [one.take(), other.take(), one.take()]
    assert [each.trial.number for each in taken] == [0, 1, 2]
    assert other.take() is None
    taken[1].lock.release()  # its process is gone
    again = one.take()
    assert again.trial.number == 1 and again.trial.params == taken[1].trial.params


def test_scores_are_reported_once_and_in_order(tmp_path):
    study = opened(tmp_path, pruner="none")
    taken = study.take()
    study.scored(taken, [0.5])
    study.scored(taken, [0.5, 0.7])
    taken.lock.release()
    again = opened(tmp_path, pruner="none").take()
    assert again.reported == 2
    study.scored(again, [0.5, 0.7, 0.6])
    assert study.trials()[0].intermediate_values == {1: 0.5, 2: 0.7, 3: 0.6}
    study.done(again, [0.5, 0.7, 0.6])
    assert study.best()[1].value == 0.7


def work(study: Study, taken: Taken) -> int:
    """One trial, until it waits or is at its end, with the same score at each validation; how many it has come to."""
    score = score_of(taken.trial.params)
    for validation in range(1, 10):
        if study.scored(taken, [score] * validation):
            study.pruned(taken)
            return validation
    study.done(taken, [score])
    return 9


def run(study: Study) -> dict[int, int]:
    """Work on all there is; validations of each trial."""
    spent: dict[int, int] = {}
    while (taken := study.take()) is not None:
        spent[taken.number] = max(spent.get(taken.number, 0), work(study, taken))
    return spent


def test_hyperband_ends_trials_that_are_behind(tmp_path):
    study = opened(tmp_path, trials=30, pruner="hyperband")
    assert sum(run(study).values()) < 0.8 * 30 * 9
    assert study.best()[1].value > 0.9


def test_with_halving_the_best_at_each_rung_resume_from_their_checkpoints(tmp_path):
    study = opened(tmp_path, trials=18)
    assert study.rungs == [2, 6] and study.turns() == (0, 18 + 6 + 2)
    spent = run(study)
    assert study.turns() == (26, 26)
    assert sorted(spent) == list(range(18))
    ranked = sorted(spent, key=lambda number: -score_of(study.trials()[number].params))
    assert [spent[number] for number in ranked] == [9] * 2 + [6] * 4 + [2] * 12
    assert study.best()[0] == ranked[0] and study.best()[1].value == score_of(study.trials()[ranked[0]].params)
    assert sorted(path.name for path in (tmp_path / "trials").glob("*.lock")) == [f"{number:04d}.lock" for number in range(18)]
    assert [row["trial"] for row in rows(study.trials())] == list(range(18))
    assert study.take() is None

    # More trials of the same search: those that are there count, and more of them may go on.
    more = opened(tmp_path, trials=27)
    run(more)
    assert len(more.trials()) == 27 and [trial.params for trial in more.trials()[:18]] == [trial.params for trial in study.trials()[:18]]


def test_a_kill_between_two_words_to_the_study_loses_no_trial(tmp_path, monkeypatch):
    study = opened(tmp_path, trials=3)
    for _ in range(3):
        taken = study.take()
        study.scored(taken, [score_of(taken.trial.params)] * 2)
        study.pruned(taken)
    monkeypatch.setattr(study.study, "ask", lambda space: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study.take()  # let the best go on, and was killed
    again = opened(tmp_path, trials=3)
    assert sorted(run(again).values()) == [9] and again.best() is not None and again.take() is None


def test_weights_are_kept_of_the_best_and_of_those_that_may_be_resumed(tmp_path):
    study = opened(tmp_path, trials=6)
    kept = []
    while (taken := study.take()) is not None:
        (taken.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        work(study, taken)
        study.clear_away()
        kept.append(sorted(int(path.parent.name) for path in tmp_path.glob("trials/*/checkpoints")))
    assert kept[5] == list(range(6)) and kept[-1] == [study.best()[0]]


def test_with_few_trials_one_still_comes_to_its_end(tmp_path):
    study = opened(tmp_path, trials=2)
    assert sorted(run(study).values()) == [2, 9]


def test_a_kill_changes_nothing_of_halving(tmp_path):
    whole = opened(tmp_path / "whole", trials=9)
    run(whole)
    stops = 0
    while stops < 20:
        study = opened(tmp_path / "broken", trials=9)
        taken = study.take()
        if taken is None:
            break
        stops += 1
        taken.lock.release()  # taken, and killed
        taken = opened(tmp_path / "broken", trials=9).take()
        work(study, taken)
    assert params(study) == params(whole) and study.best()[0] == whole.best()[0]


def test_a_failed_trial_says_why_and_the_search_continues(tmp_path):
    study = opened(tmp_path, trials=2)
    study.failed(study.take(), "inner.lr is too large")
    finish(study, study.take())
    assert [error_of(trial) for trial in study.trials()] == ["inner.lr is too large", ""]
    assert study.best()[0] == 1


def test_a_database_may_hold_the_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    finish(study := opened(tmp_path, trials=2, storage=url), study.take())
    assert len(opened(tmp_path, trials=2, storage=url).trials()) == 1
    with pytest.raises(UserError, match=r"search\.storage=nothing://here"):
        opened(tmp_path, storage="nothing://here")


@pytest.mark.parametrize("storage", ["nothing://me:hidden@here", "hidden"])
def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path, storage):
    with pytest.raises(UserError, match=r"search\.storage=") as refusal:
        opened(tmp_path, storage=storage)
    assert "hidden" not in str(refusal.value)


@pytest.mark.parametrize(("key", "value"), [("trials", 0), ("reduction", 1), ("first_rung", 0.0), ("sampler", "grid"), ("pruner", "median")])
def test_settings_that_make_no_sense_are_refused(key, value):
    with pytest.raises(UserError, match=rf"search\.{key}={value}"):
        check_search(SearchConfig(**{key: value}))
