import shlex

from conftest import write_jsonl


def test_it_lists_every_task_with_its_classes(cli):
    found = cli("tasks")
    assert found.code == 0, found.err
    assert found.out.count("negative 30, positive 30") == 16
    assert found.out.count("│ meta_test ") == 4
    assert "no text of a held-out task is a near-duplicate of one in another split" in found.out
    assert "warning" not in found.out


def test_it_says_what_is_wrong(cli, tmp_path):
    text = "the hinge came loose after a week and the shop would not take it back without its box"
    rows = [(area, label, f"{area}{n}") for area in "abc" for label in ("angry", "happy") for n in range(5)]
    fill = [{"text": f"{name} is {name}x of {label} {name}y", "label": label, "area": area} for area, label, name in rows]
    planted = [{"text": text, "label": "angry", "area": "a"}, {"text": text.replace("hinge", "screen"), "label": "angry", "area": "c"}]
    write_jsonl(tmp_path / "all.jsonl", [*fill, *planted])
    found = cli("tasks", "tasks=files", "tasks.path=all.jsonl", "tasks.task=area", "tasks.meta_train.tasks=[a,b]", "tasks.meta_test.tasks=[c]")
    assert found.code == 0, found.err
    words = " ".join(found.out.split())
    assert "in task 'a', 91% of the texts contain their label name, and 0% another one" in words
    assert "near-duplicate texts in meta_test (c) and meta_train (a)" in words
    assert "1 texts of held-out tasks are near-duplicates of texts in another split" in words


def test_it_finds_the_tasks_that_are_like_a_target_and_draws_a_map(cli, tmp_path):
    found = cli("tasks", "target=films", "select=2", "similarity_weight=1", "map=new/map.png", "model=tiny", "model.max_length=32")
    assert found.code == 0, found.err
    assert "Training tasks, by similarity to films" in found.out
    suggested = found.out.split("tasks.meta_train.tasks=[")[1].split("]")[0].split(",")
    assert len(suggested) == 2
    assert (tmp_path / "new" / "map.png").read_bytes().startswith(b"\x89PNG")
    rows = [{"text": f"the plot and the actors {n}", "label": "ab"[n % 2]} for n in range(10)]
    write_jsonl(tmp_path / "mine.jsonl", rows)
    found = cli(
        "tasks",
        "target=mine.jsonl",
        "compare=task2vec",
        "model=tiny",
        "model.max_length=32",
        "tasks.meta_train.tasks=[books,cars]",
        "tasks.meta_validation.tasks=[toys]",
        "tasks.meta_test.tasks=[films]",
    )
    assert found.code == 0, found.err
    assert "by similarity to mine" in found.out


def test_comparisons_that_cannot_be(cli):
    for setting, words in (
        ("target=flims", "did you mean 'films'?"),
        ("select=99", "select=99 must be between 1 and"),
        ("similarity_weight=2", "similarity_weight=2"),
        ("map=x.doc", "ends in .png or"),
    ):
        found = cli("tasks", setting, "model=tiny", *(["target=films", "select=2"] if setting.startswith("similarity_weight") else []))
        assert found.code == 2 and words in found.err, found.err


def test_add_writes_a_config_that_trains(cli, tmp_path):
    rows = [{"review": f"{area} {mood} {n}", "stars": mood, "product": area} for area in "abcd" for mood in ("good", "bad") for n in range(7)]
    write_jsonl(tmp_path / "My Reviews.jsonl", rows)
    found = cli("tasks", "add", "My Reviews.jsonl")
    assert found.code == 0, found.err
    assert "the smallest class ('good' of task 'a') has 7 rows: enough for 5 shots" in found.out
    command = found.out.split("train on it: metatrain ")[1].split("\n")[0].split()
    assert cli(*command, "debug=fast", "hydra.run.dir=run").code == 0
    again = cli("tasks", "add", "My Reviews.jsonl")
    assert again.code == 2 and "already exists" in again.err


def test_add_lists_the_classes_and_its_config_takes_the_place_of_a_packaged_one(cli, tmp_path):
    rows = [{"text": f"{area} {n}", "label": f"l{n % number}", "area": area} for area, number in (("x", 2), ("y", 30), ("z", 2)) for n in range(number * 6)]
    write_jsonl(tmp_path / "reviews.jsonl", rows)
    found = cli("tasks", "add", "reviews.jsonl", "task=area", "folder=my conf")
    assert found.code == 0, found.err
    assert "task 'x': 12 rows of 2 classes: l0 (6), l1 (6)\n" in found.out
    assert "task 'y': 180 rows of 30 classes: l0 (6), l1 (6), l10 (6), " in found.out and "and 10 more\n" in found.out
    assert "metatrain has a built-in tasks=reviews; with --config-dir, yours replaces it" in found.out
    shown = cli(*shlex.split(found.out.split("inspect it: metatrain ")[1].splitlines()[0]))
    assert shown.code == 0, shown.err
    assert "used in place of the packaged files of the same names: tasks/reviews.yaml" in shown.out
    assert {name for name in "xyz" if f" {name} " in shown.out} == set("xyz") and "films" not in shown.out


def test_add_says_what_is_missing(cli, tmp_path):
    write_jsonl(tmp_path / "one.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "c", "label": "y"}])
    found = cli("tasks", "add", "one.jsonl", "label=label")
    assert found.code == 2 and "class 'x' of task 'one' has a single row" in found.err
    found = cli("tasks", "add", "one.jsonl", "labels=label")
    assert found.code == 2 and "cannot read 'labels=label'" in found.err
    assert cli("tasks", "add", "gone.csv").code == 2
    assert not (tmp_path / "conf").exists()
