"""Episode files: what is written is read back as the same episodes, and a wrong file is refused with the line."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from metatrain.config.compose import composed
from metatrain.config.schema import TrainConfig
from metatrain.errors import UserError
from metatrain.tasks.audit import check_unseen
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import raw_texts
from metatrain.tasks.episode_file import line_of, read_episodes
from metatrain.tasks.episodes import Episode, draw, given_episode, task_episode, training_episode
from metatrain.tasks.task import Task, numbered
from metatrain.tasks.texts import IMAGE, PAIR


def unbalanced() -> Task:
    """A task with 4, 40 and 400 rows per class."""
    labels = np.repeat(np.arange(3), [4, 40, 400])
    everywhere = np.ones(len(labels), dtype=bool)
    return Task("t", tuple(f"text {row}" for row in range(len(labels))), labels, ("a", "b", "c"), everywhere, everywhere)


def written(path, episodes: list[Episode], split: str = "meta_test") -> str:
    path.write_text("".join(line_of(episode, split, index) for index, episode in enumerate(episodes)), encoding="utf-8")
    return str(path)


def facts(episode: Episode) -> tuple:
    """All that an evaluation reads of an episode."""
    task, raw = episode.task, raw_texts(episode)
    targets = None if task.targets is None else [task.targets[row] for row in (*episode.support, *episode.query)]
    return task.name, task.score, raw, episode.support_labels.tolist(), episode.query_labels.tolist(), episode.seed, targets


def test_episodes_are_read_back_as_they_were(tmp_path):
    tasks = load_tasks(composed("train", ["model=tiny"], TrainConfig).tasks, 0).meta_test
    settings = [EpisodeConfig(shots=shots, queries=3) for shots in (1, 4)]
    drawn = {shots.shots: {task.name: [task_episode(task, shots, 7, "meta_test", index) for index in range(2)] for task in tasks} for shots in settings}
    file = read_episodes(written(tmp_path / "e.jsonl", [one for of_tasks in drawn.values() for each in of_tasks.values() for one in each]))
    assert (file.shots, file.per_task, file.ways, [task.name for task in file.tasks]) == ([1, 4], 2, {2}, [task.name for task in tasks])
    for shots, of_tasks in drawn.items():
        for name, episodes in of_tasks.items():
            assert [facts(one) for one in file.episodes[shots][name]] == [facts(one) for one in episodes]


def test_pairs_and_target_texts_are_read_back(tmp_path):
    pairs = given_episode([f"one{PAIR}two", f"three{PAIR}four", f"é{PAIR} "], ["no", "yes", "no"], 2, seed=3)
    texts = given_episode(["a", "b", "c"], ["x", "y", "z"], 2, score="chrf", seed=4)
    for number, episode in enumerate((pairs, texts)):
        file = read_episodes(written(tmp_path / f"{number}.jsonl", [episode]))
        read = next(iter(file.episodes.values()))["task"][0]
        assert facts(read)[:2] == facts(episode)[:2] and facts(read)[3:] == facts(episode)[3:]
        assert [text.strip() for text in facts(read)[2].support] == [text.strip() for text in facts(episode)[2].support]
    assert read_episodes(None) is None


GOOD = {"task": "t", "shots": 1, "label_names": ["a", "b"], "support": {"texts": ["x", "y"], "labels": [0, 1]}, "query": {"texts": ["z"], "labels": [1]}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shots": 0}, "`shots` must be a whole number"),
        ({"seed": -1}, "`seed` must be"),
        ({"task": 3}, "an episode is an object"),
        ({"label_names": ["a"]}, "`label_names` must have two or more names"),
        ({"label_names": ["a", "a"]}, "a list of different texts"),
        ({"support": {"texts": ["x", "y"], "labels": [0, 2]}}, "`support`.labels must be positions in `label_names`"),
        ({"support": {"texts": ["x", "y"], "labels": [0]}}, "the lists of `support` must have the same length"),
        ({"support": {"texts": ["x", "y"], "labels": [0, 0]}}, "an example of every label name"),
        ({"support": {"texts": ["x", "z"], "labels": [0, 1]}}, "share a text"),
        ({"query": {"texts": [], "labels": []}}, "`query`.texts must be a list of one or more texts"),
        ({"query": {"texts": [f"{IMAGE}a.png"], "labels": [1]}}, "has an image"),
        ({"query": None}, "`query` must be an object"),
        ({"score": "chrf"}, "text-to-text episodes have none"),
    ],
)
def test_a_line_that_is_no_episode_is_refused(tmp_path, change, words):
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(UserError, match=r"e\.jsonl:2: ") as refusal:
        read_episodes(str(path))
    assert words in str(refusal.value)


def test_a_file_that_has_no_episodes_or_unequal_numbers_is_refused(tmp_path):
    path = tmp_path / "e.jsonl"
    for content, words in (
        ("", "there are no episodes in it"),
        ("{", "e.jsonl:1: is not JSON"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"shots": 2, "task": "u"}), "task 't' has 1 episodes with shots=1, task 'u' 0 with shots=1"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            read_episodes(str(path))
    with pytest.raises(UserError, match="episode.file=.*none.jsonl: No such file"):
        read_episodes(str(tmp_path / "none.jsonl"))


def test_texts_of_training_are_refused_and_allowed_by_the_policy(tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(json.dumps(GOOD))
    file = read_episodes(str(path))
    everywhere = np.ones(2, dtype=bool)

    def seen(text: str) -> list[Task]:
        return [Task("u", (text, "other"), np.array([0, 1]), ("c", "d"), everywhere, everywhere)]

    assert check_unseen(file, seen("new"), "refuse") == () and check_unseen(file, seen("X"), "drop_queries") == ()
    assert "1 texts (task 't' among them)" in check_unseen(file, seen("z"), "keep")[0]
    for text, policy in (("x", "refuse"), ("z", "drop_queries"), ("y", "drop")):
        with pytest.raises(UserError, match="scores would not measure generalisation"):
            check_unseen(file, seen(text), policy)


def test_natural_episodes_follow_the_data():
    settings = EpisodeConfig(shots=3, queries=10, support_distribution="natural", query_distribution="natural")
    supports, queries = Counter(), Counter()
    for index in range(300):
        episode = draw(unbalanced(), settings, np.random.default_rng(index))
        classes = np.array(episode.classes)
        assert len(episode.support) == 9 and len(episode.query) == 30 and not set(episode.support) & set(episode.query)
        assert set(episode.support_labels) == {0, 1, 2}
        assert np.array_equal(classes[episode.support_labels], episode.task.labels[episode.support])
        supports.update(classes[episode.support_labels].tolist())
        queries.update(classes[episode.query_labels].tolist())
    # One of each, and 6 of the (4 - 2) + (40 - 2) + (400 - 2) others; queries are 30 of the about 435 that are left.
    for label, others in enumerate((2, 38, 398)):
        assert supports[label] / 300 == pytest.approx(1 + 6 * others / 438, abs=0.15)
    assert queries[2] / 9000 == pytest.approx(0.906, abs=0.01) and 0 < queries[0] < 300


def test_balanced_episodes_are_those_of_earlier_versions():
    """The class and row numbers of an episode, as drawn before the distributions were settings."""
    episode = draw(unbalanced(), EpisodeConfig(shots=2, queries=2), np.random.default_rng(0))
    assert (episode.classes, episode.support.tolist(), episode.query.tolist()) == ((2, 0, 1), [60, 166, 1, 3, 32, 29], [50, 114, 0, 2, 41, 24])


BASE = str(ROOT / "tests" / "legacy" / "files" / "base")
SMALL = ["evaluation.episodes=3", "evaluation.queries=10", "evaluation.shots=[1,4]"]


ARMS = ["evaluation.arms=[logistic_regression,prototypes]", "model.max_length=32", "hardware.threads=1", "report=false"]


def evaluated(cli) -> dict:
    """Return the results of an evaluation of the episodes of `e.jsonl`, which it writes."""
    found = cli("tasks", "tasks=reviews", "export=e.jsonl", *SMALL)
    assert found.code == 0 and "24 meta-test episodes: e.jsonl" in found.out, found.err
    of_file = cli("evaluate", f"checkpoint={BASE}", "episode.file=e.jsonl", *ARMS, "hydra.run.dir=file")
    assert of_file.code == 0, of_file.err
    return json.loads(Path("file", "results.json").read_text())


@pytest.mark.slow
def test_an_evaluation_of_the_exported_episodes_has_the_scores_of_the_sampled_ones(cli):
    results = evaluated(cli)
    drawn = cli("evaluate", f"checkpoint={BASE}", "tasks=reviews", *SMALL, *ARMS, "hydra.run.dir=drawn")
    assert drawn.code == 0, drawn.err
    expected = json.loads(Path("drawn", "results.json").read_text())
    assert results["protocol"]["episode_file"]["name"] == "e.jsonl" and results["protocol"]["shots"] == [1, 4] and results["protocol"]["way"] == 2
    for shots, part in expected["by_shots"].items():
        for arm, scores in part["arms"].items():
            assert results["by_shots"][shots]["arms"][arm]["per_task"] == scores["per_task"]


@pytest.mark.nightly
def test_scikit_learn_on_the_encodings_of_sentence_transformers_has_the_same_scores(cli):
    """To the last digit."""
    results = evaluated(cli)
    script = [sys.executable, str(ROOT / "examples" / "episodes_with_scikit_learn.py"), "e.jsonl", "--model", BASE]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [f"{shots}-shot: {part['arms']['logistic_regression']['mean']}" for shots, part in results["by_shots"].items()]


def test_export_writes_the_episodes_of_validation_and_training(cli):
    settings = ["model=tiny", "seed=3", "validation.episodes=2", "outer.steps=2", "outer.meta_batch=3", "episode.way=2", "episode.shots=1..3"]
    assert cli("tasks", *settings, "export=v.jsonl", "split=meta_validation").code == 0
    assert cli("tasks", *settings, "export=t.jsonl", "split=meta_train").code == 0
    config = composed("train", settings, TrainConfig)
    tasks = load_tasks(config.tasks, 3)
    lines = [line for name in ("v", "t") for line in Path(f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line]
    settings_of_validation = replace(config.episode, queries=config.validation.queries)
    validation = [task_episode(task, settings_of_validation, 3, "meta_validation", index) for task in tasks.meta_validation for index in range(2)]
    training = [training_episode(tasks, config.episode, 3, index) for index in range(6)]
    expected = [line_of(episode, "meta_validation", index % 2) for index, episode in enumerate(validation)]
    assert lines == [line.strip() for line in [*expected, *(line_of(episode, "meta_train", index) for index, episode in enumerate(training))]]
    for wrong, words in (
        (["export=e.jsonl", "split=test"], "split=test is unknown"),
        (["export=e.csv"], "use a file name that ends in .jsonl"),
        (["split=meta_train"], "split has no effect: export=null; add export=FILE"),
        (["export=e.jsonl", "split=meta_train", "tasks.sampling.by=bandit"], "set tasks.sampling.by=fixed"),
    ):
        found = cli("tasks", *wrong)
        assert found.code == 2 and words in found.err, found.err


@pytest.mark.nightly
def test_the_meta_test_of_a_run_is_on_the_episodes_of_a_file(cli):
    short = ["debug=fast", "hardware.threads=1", "episode.query_distribution=natural"]
    assert cli("tasks", *short, "export=e.jsonl").code == 0
    found = cli("train", *short, "episode.file=e.jsonl", "hydra.run.dir=file")
    assert found.code == 0, found.err
    assert cli("train", *short, "hydra.run.dir=drawn").code == 0
    results, expected = (json.loads(Path(name, "results.json").read_text())["arms"] for name in ("file", "drawn"))
    assert {name: arm["per_task"] for name, arm in results.items()} == {name: arm["per_task"] for name, arm in expected.items()}
    again = cli("evaluate", "checkpoint=file", "episode.file=e.jsonl", "hydra.run.dir=again")
    assert again.code == 0, again.err
    assert json.loads(Path("again/results.json").read_text())["arms"]["meta_trained"]["per_task"] == results["meta_trained"]["per_task"]
    assert cli("tasks", *short, "export=t.jsonl", "split=meta_train").code == 0
    refused = cli("evaluate", "checkpoint=file", "episode.file=t.jsonl")
    assert refused.code == 2, refused.out
    refused = cli("evaluate", "checkpoint=file", "episode.file=e.jsonl", "evaluation.shots=[3]")
    assert refused.code == 2 and "evaluation.shots has no effect: episode.file=e.jsonl; set episode.file=null" in refused.err


def test_label_sets_are_read_back(tmp_path):
    sets = np.random.default_rng(0).random((60, 4)) < 0.4
    everywhere = np.ones(60, dtype=bool)
    task = Task("m", tuple(f"text {row}" for row in range(60)), numbered(sets), tuple("abcd"), everywhere, everywhere, label_sets=sets)
    settings = EpisodeConfig(way=3, shots=2, queries=4)
    drawn = [task_episode(task, settings, 0, "meta_test", index) for index in range(3)]
    name = written(tmp_path / "e.jsonl", drawn)
    file = read_episodes(name)
    assert file.shots == [2] and [facts(one) for one in file.episodes[2]["m"]] == [facts(one) for one in drawn]
    line = json.loads(Path(name).read_text().splitlines()[0])
    for labels, why in (
        ([[0, 0], *line["support"]["labels"][1:]], "`support`.labels has a label twice"),
        ([[3], *line["support"]["labels"][1:]], "`support`.labels must be positions in `label_names`"),
        ([0, *line["support"]["labels"][1:]], "`labels` must all be positions in `label_names`, or all lists of them"),
        ([[0]] * len(line["support"]["labels"]), "the support set must have an example of every label name"),
    ):
        (tmp_path / "bad.jsonl").write_text(json.dumps({**line, "support": {**line["support"], "labels": labels}}))
        with pytest.raises(UserError, match="bad.jsonl:1") as error:
            read_episodes(str(tmp_path / "bad.jsonl"))
        assert why in str(error.value)
    one = given_episode([f"text {row}" for row in range(3)], ["a", "b", "a"], 2)
    other = line_of(
        Episode(replace(one.task, name="m"), *[getattr(one, each) for each in ("classes", "support", "support_labels", "query", "query_labels", "seed")]),
        "meta_test",
        0,
    )
    (tmp_path / "mixed.jsonl").write_text(Path(name).read_text() + other)
    with pytest.raises(UserError, match="mixed.jsonl:4: other episodes of task 'm' have a list of labels per text"):
        read_episodes(str(tmp_path / "mixed.jsonl"))
