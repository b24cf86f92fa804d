import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from metatrain.errors import Stopped, UserError
from metatrain.run.atomic import atomic_directory, write_text
from metatrain.run.directory import RunDirectory, recorded
from metatrain.run.latest import latest, make_latest, pin, pinned


@dataclass
class Config:
    seed: int = 3
    name: str = "x"


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def create(name: str, command: str = "train", overrides: list[str] | None = None) -> RunDirectory:
    return RunDirectory.create(Path("outputs") / command / name, Config(), overrides or [], command)


def test_latest_is_the_newest_run_and_each_command_has_its_own():
    create("a")
    trained = create("b")
    finetuned = create("c", "finetune")
    assert Path("outputs/latest").resolve() == finetuned.path
    assert RunDirectory.find("latest").path == trained.path
    assert RunDirectory.find("latest", "finetune").path == finetuned.path
    assert not os.path.isabs(os.readlink("outputs/latest"))


def test_what_a_run_is_made_from_is_named_by_its_own_directory(tmp_path):
    trained = create("a")
    (trained.path / "model").mkdir()
    assert pinned("latest") == pinned("outputs/latest") == "outputs/train/a"
    assert pinned("outputs/latest/model") == "outputs/train/a/model"
    (tmp_path / "data").mkdir()
    Path("link").symlink_to("data")
    assert [pinned(name) for name in ("link", "minilm", "outputs/train/a")] == ["link", "minilm", "outputs/train/a"]  # no run, or no link
    config = Config(name="latest")
    assert pin(config, ["seed=1", "+name=latest"], "name") == ["seed=1", "name=outputs/train/a"]
    assert config.name == "outputs/train/a"


def test_secrets_in_overrides_are_not_written():
    run = create("a", overrides=["seed=1", "+tracking.api_key=abc123", "hub_token=xyz"])
    text = (run.path / "overrides.yaml").read_text()
    assert "abc123" not in text and "xyz" not in text and "seed=1" in text


def test_a_saved_configuration_is_checked_when_it_is_read():
    run = create("a")
    assert run.load_config(Config) == Config()
    write_text(run.config, "seed: many\n")
    with pytest.raises(UserError, match=r"config\.yaml: seed"):
        run.load_config(Config)
    write_text(run.config, "sed: 1\n")
    with pytest.raises(UserError, match="did you mean 'seed'"):
        run.load_config(Config)
    write_text(run.config, "seed: [\n")
    with pytest.raises(UserError, match=r"config\.yaml"):
        run.load_config(Config)


def test_only_training_has_what_resuming_needs():
    with pytest.raises(UserError, match="outputs/finetune/a is a run of metatrain finetune; a run of metatrain train is required"):
        create("a", "finetune").load_config(Config)
    run = create("b", "finetune")
    run.model.mkdir()
    with pytest.raises(UserError, match="to use its model, write checkpoint=outputs/finetune/b/model; "):
        run.load_config(Config)


def test_a_run_can_become_the_latest_when_it_has_results():
    first = create("a", "evaluate")
    second = RunDirectory.create(Path("outputs/evaluate/b"), Config(), [], "evaluate", is_latest=False)
    assert Path("outputs/latest").resolve() == first.path
    make_latest(second.path, "evaluate")
    assert Path("outputs/latest").resolve() == latest("evaluate").resolve() == second.path


def test_a_run_is_made_only_where_nothing_is(tmp_path):
    folder = tmp_path / "mine"
    for name in ("model/config.json", "checkpoints/epoch-1.pt", "results.json", "report.html", "config.yaml", "run.json", "run.log", "notes.txt", ".lock"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(UserError, match=f"mine holds {name.split('/')[0]}, and is not a run of metatrain"):
            RunDirectory.create(folder, Config(), [], "train")
        assert [each.read_text() for each in folder.rglob("*") if each.is_file()] == ["mine"]
        shutil.rmtree(folder)


def test_output_of_the_command_itself_may_be_there(tmp_path):
    for name in ("slurm-7.out", "console.log", ".hydra/config.yaml"):
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert RunDirectory.create(tmp_path / "run", Config(), [], "train").config.is_file()


def test_a_start_that_was_killed_can_be_repeated_but_a_run_is_not_replaced(tmp_path):
    run = create("a")
    run.unlock()
    run.config.unlink()  # written last
    again = create("a")
    with pytest.raises(UserError, match="a is in use by another process"):
        create("a")
    again.unlock()
    with pytest.raises(UserError, match="outputs/train/a already holds a run; resume it with: metatrain resume outputs/train/a"):
        create("a")
    with pytest.raises(UserError, match="a already holds a run; choose another directory with hydra.run.dir=DIR"):
        RunDirectory.create(again.path, Config(), [], "finetune")
    again.update(command="finetune")
    with pytest.raises(UserError, match="a already holds a run; choose another directory"):  # resume does not take one of finetune
        create("a")
    again.unlock()
    again.config.unlink()
    (again.path / "model").mkdir()
    with pytest.raises(UserError, match="a holds model, and is not a run"):
        create("a")


def test_a_config_yaml_of_something_else_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"is not a run directory: it has no run\.json of metatrain"):
        RunDirectory.find(".")
    (tmp_path / "run.json").write_text('{"versions": {"other": 1}}')
    with pytest.raises(UserError, match=r"no run\.json of metatrain"):
        RunDirectory.find(".")


def test_names_that_look_like_references_are_saved_as_names():
    run = RunDirectory.create(Path("run"), Config(name="a${x}\\${y}"), [], "train")
    assert run.load_config(Config).name == "a${x}\\${y}"


def test_a_debug_run_is_latest_only_while_there_is_no_other():
    first = create("a", overrides=["+debug=fast"])
    assert RunDirectory.find("latest").path == first.path
    second = create("b", overrides=["+debug=fast"])
    assert RunDirectory.find("latest").path == second.path
    trained = create("c")
    create("d", overrides=["seed=1", "+debug=overfit"])
    assert RunDirectory.find("latest").path == trained.path
    assert Path("outputs/latest").resolve().name == "d"


@pytest.mark.parametrize(
    ("raised", "state", "code"),
    [(None, "done", 0), (UserError("x"), "failed", 2), (Stopped(15, "x"), "stopped", 143), (ZeroDivisionError(), "crashed", 1)],
)
def test_how_a_run_ended_is_recorded(raised, state, code):
    run = create("a")
    with suppress(UserError, Stopped, ZeroDivisionError), recorded(run):
        assert json.loads(run.record.read_text())["state"] == "running"
        if raised:
            raise raised
    record = json.loads(run.record.read_text())
    assert (record["state"], record["exit"]) == (state, code)
    assert record["seed"] == 3 and record["versions"]["torch"]


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    with atomic_directory(folder) as inside:
        (inside / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_directory(folder) as inside:
        (inside / "a").write_text("half")
        raise ZeroDivisionError
    assert (folder / "a").read_text() == "old"
    with atomic_directory(folder) as inside:
        (inside / "b").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b"]


def test_what_is_written_can_be_read_by_whom_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_directory(tmp_path / "model") as inside:
            (inside / "weights").touch(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "model" / "weights").stat().st_mode & 0o777 == 0o640
