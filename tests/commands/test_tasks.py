from conftest import write_jsonl


def test_it_lists_every_task_with_its_classes(cli):
    found = cli("tasks")
    assert found.code == 0, found.err
    assert found.out.count("negative 30, positive 30") == 16
    assert found.out.count("│ meta_test ") == 4
    assert "no text of a held-out task is nearly one of another split" in found.out
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
    assert "in task 'a', 91% of the texts contain the name of their label, and 0% that of another" in words
    assert "nearly the same text in meta_test (c) and meta_train (a)" in words
    assert "1 texts of held-out tasks are nearly those of another split" in words
