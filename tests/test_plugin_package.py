"""Six plug-ins of a separate package in one run, their checks, and the packages that `metatrain init plugin` writes."""

import importlib
import itertools
import json
import os
import runpy
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT

from metatrain import plugins
from metatrain.commands import check_plugin, new_plugin
from metatrain.commands.doctor import completions
from metatrain.errors import UserError
from metatrain.evaluation.metrics import METRICS, check_metrics

PACKAGE = ROOT / "tests" / "plugin_package"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Register packages as if they were installed, in this process and those that it starts."""

    def install(*folders: Path) -> None:
        for number, folder in enumerate(folders):
            project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
            about = tmp_path / "site" / f"package{number}-1.0.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
            points = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in each.items()) for group, each in project["entry-points"].items()]
            (about / "entry_points.txt").write_text("\n".join(points))
            monkeypatch.syspath_prepend(str(folder.resolve()))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *(str(folder.resolve()) for folder in folders), str(ROOT)]))
        importlib.invalidate_caches()

    return install


SIX = (
    *("inner.rule=warped", "algorithm.head=transductive_cosine", "algorithm.contrastive=lifted", "tasks.sampling.by=easy_first"),
    *("evaluation.metrics=[worst_class,macro_f1]", "evaluation.arms=[meta_trained,nearest_support_text]"),
)


@pytest.mark.slow
def test_six_plug_ins_in_one_run(installed, cli):
    installed(PACKAGE)
    found = cli("train", "debug=fast", *SIX, "hardware.threads=1", "hydra.run.dir=run")
    assert found.code == 0, found.err
    arms = json.loads(Path("run/results.json").read_text())["arms"]
    assert list(arms) == ["meta_trained", "nearest_support_text"]
    for arm in arms.values():
        assert 0 <= arm["metrics"]["worst_class"]["mean"] <= arm["balanced"] and arm["metrics"]["macro_f1"]["per_task"].keys() == arm["per_task"].keys()
    assert "worst_class" in found.out
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert all(record["contrastive_loss"] > 0 for record in records if record["split"] == "meta_train")
    assert "plug-ins warped" in cli("explain", "inner.rule").out


@pytest.mark.parametrize(
    ("group", "name", "passed"),
    [
        (plugins.INNER_RULES, "warped", ["import", "shapes", "gradient", "vectorised"]),
        (plugins.HEADS, "transductive_cosine", ["import", "shapes", "gradient", "vectorised"]),
        (plugins.OUTER_LOSSES, "lifted", ["import", "shapes", "gradient"]),
    ],
)
def test_gradients_of_plug_ins_are_exact(installed, group, name, passed, one_thread):
    installed(PACKAGE)
    subject = check_plugin._Subject(group, name, check_plugin._SETTINGS[group](name))
    found = list(itertools.islice(check_plugin.checks(subject), len(passed)))
    assert [finding.what for finding in found if finding.is_well] == passed, [finding.line for finding in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("easy_first", marks=pytest.mark.nightly), "worst_class", "nearest_support_text"])
def test_the_checks_of_a_plug_in(installed, cli, name):
    installed(PACKAGE)
    found = cli("doctor", f"plugin={name}")
    assert found.code == 0 and "!!" not in found.out, found.out + found.err


def schedule_package(folder: Path, name: str, code: str) -> Path:
    """Write a package of one module, which announces its function of the same name as a schedule."""
    package = folder / f"of_{name}"
    package.mkdir()
    (package / f"{name}.py").write_text(code)
    (package / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n[project.entry-points."metatrain.schedules"]\n{name} = "{name}:{name}"\n')
    return package


def test_what_is_wrong_with_a_plug_in_is_said(installed, cli, tmp_path):
    installed(schedule_package(tmp_path, "rising", "def rising(done):\n    return done - 1\n"))
    subject = check_plugin._Subject(plugins.SCHEDULES, "rising", [])
    (wrong,) = (finding for finding in itertools.islice(check_plugin.checks(subject), 2) if not finding.is_well)
    assert wrong.what == "factors" and "zero or more" in wrong.line
    found = cli("doctor", "plugin=risin")
    assert found.code == 2 and "plugin=risin: no installed package announces it; installed are rising" in found.err
    assert completions([]) == ["plugin=rising"]


PROMPTS = """
from metatrain.models.config import PromptConfig

of_mood = PromptConfig(instruction="One of {labels}.", text="Text: {text}", label="Mood: {label}", end="\\n\\n", words={"good": "fine ${seed}"})
in_chat = PromptConfig(chat=True, instruction="One of {labels}.", separator="", pair=" and ", scoring="pmi")
label_first = PromptConfig(text="Text: {text}", label="Label: {label}", scoring="channel")
all_in_all = PromptConfig(text="{text} All in all, {mask}.", words={"positive": "good"})
misspelt = PromptConfig(instruction="One of {lables}.", text="Text: {text}")
textless = PromptConfig(text="Text:")
no_prompt = "Text: {text}"
"""


@pytest.fixture
def prompts(installed, tmp_path):
    """A package with prompts."""
    package = tmp_path / "of_prompts"
    package.mkdir()
    (package / "my_prompts.py").write_text(PROMPTS)
    names = ("of_mood", "in_chat", "label_first", "all_in_all", "misspelt", "textless", "no_prompt")
    points = "".join(f'{name} = "my_prompts:{name}"\n' for name in names)
    (package / "pyproject.toml").write_text(f'[project]\nname = "prompts"\n[project.entry-points."metatrain.prompts"]\n{points}chat = "my_prompts:of_mood"\n')
    installed(package)


def test_a_prompt_of_a_package_is_chosen_like_a_packaged_one(prompts, cli):
    def prompt(*arguments: str) -> dict:
        found = cli(*arguments, "--cfg", "job")
        assert found.code == 0, found.err
        return yaml.safe_load(found.out)["prompt"]

    mood = {"chat": False, "instruction": "One of {labels}.", "text": "Text: {text}", "pair": "", "label": "Mood: {label}", "separator": "\n", "end": "\n\n"}
    chosen = prompt("train", "prompt=of_mood", "prompt.scoring=mean", "prompt.pair=x")
    assert chosen == {**mood, "pair": "x", "words": {"good": "fine \\${seed}"}, "scoring": "mean"}  # text, not an interpolation
    assert prompt("train", "prompt=chat")["chat"]  # the packaged file comes first
    assert prompt("train", "algorithm=cloze", "prompt=all_in_all")["text"] == "{text} All in all, {mask}."
    # What a prompt does not set stays as the checkpoint has it.
    found = prompt("evaluate", "checkpoint=x", "tasks=reviews", "prompt=in_chat")
    assert found["words"] is None and found["scoring"] == "pmi"
    assert "value    One of {labels}., set by the plug-in of_mood" in cli("explain", "prompt.instruction", "prompt=of_mood").out
    for name, words in (
        ("nothing", "choose one of chat, cloze, labelled, plain, all_in_all, chat, in_chat"),
        ("no_prompt", "prompt=no_prompt: a plug-in of metatrain.prompts must be a metatrain.models.config.PromptConfig, not str"),
    ):
        found = cli("train", f"prompt={name}")
        assert found.code == 2 and words in found.err and len(found.err.strip().splitlines()) == 1, found.err


def test_prompts_of_a_package_are_completed(prompts, cli, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "metatrain train prompt=of_")
    assert cli("-sc", "query=bash").out.split() == ["prompt=of_mood"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("in_chat", "texts with label names"),
        ("all_in_all", "texts 45 characters"),
        ("misspelt", "{lables} stands for nothing"),
        pytest.param("label_first", "pairs with label names", marks=pytest.mark.nightly),
        pytest.param("of_mood", "pairs without", marks=pytest.mark.nightly),
    ],
)
def test_the_wording_of_a_prompt_is_checked(prompts, name, words, one_thread):
    subject = check_plugin._Subject(plugins.PROMPTS, name, check_plugin._SETTINGS[plugins.PROMPTS](name))
    finding = list(itertools.islice(check_plugin.checks(subject), 2))[1]
    assert finding.what == "wording" and words in finding.line and finding.is_well == (name != "misspelt"), finding.line


def test_a_prompt_without_a_text_is_refused(prompts, cli):
    found = cli("doctor", "plugin=textless")
    assert found.code == 2 and "prompt.text='Text:' must have {text} once" in found.err


@pytest.mark.slow
def test_a_run_and_its_model_need_no_package_of_their_prompt(prompts, cli, tmp_path):
    few = ["evaluation.shots=[1]", "evaluation.episodes=1", "evaluation.queries=2"]
    found = cli("train", "debug=fast", "algorithm=in_context", "prompt=of_mood", "outer.steps=1", "evaluation.arms=[]", "report=false", "hydra.run.dir=run")
    assert found.code == 0, found.err
    shutil.rmtree(tmp_path / "site")
    importlib.invalidate_caches()
    assert cli("train", "prompt=of_mood").code == 2
    for arguments in (
        ("resume", "run", "outer.steps=2"),
        ("evaluate", "checkpoint=run/model", "tasks=reviews", "evaluation.arms=[meta_trained]", *few, "hydra.run.dir=again"),
    ):
        found = cli(*arguments)
        assert found.code == 0, found.err
    assert yaml.safe_load(Path("run/config.yaml").read_text())["prompt"]["label"] == "Mood: {label}"
    saved = json.loads(Path("run/model/adaptation.json").read_text())["prompt"]
    assert saved["instruction"] == "One of {labels}." and saved["words"] == {"good": "fine ${seed}"}


@pytest.mark.nightly
def test_a_plug_in_that_depends_on_its_process_is_found(installed, cli, tmp_path):
    code = 'import os\n\n\ndef uneven(done):\n    return 1.0 + int(os.environ.get("RANK", "0"))\n'
    installed(schedule_package(tmp_path, "uneven", code))
    found = cli("doctor", "plugin=uneven")
    assert found.code == 2 and "1 of 4 checks failed: ranks" in found.err, found.out + found.err


def test_a_package_is_written_for_each_kind(cli):
    for kind in plugins.KINDS.values():
        found = cli("init", "plugin", kind.template, f"my_{kind.template}")
        assert found.code == 0, found.err
        folder = Path(f"my_{kind.template}")
        ((name, value),) = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"].popitem()[1].items()
        module, _, attribute = value.partition(":")
        assert name == module == folder.name and attribute in runpy.run_path(str(folder / f"{module}.py"))
        compile((folder / f"test_{name}.py").read_text(), "test", "exec")
    for arguments, words in (
        (["plugin", "hed", "x"], "did you mean 'head'?"),
        (["plugin"], "takes a kind and a name"),
        (["plugin", "head", "a-b"], "'a-b' is not a valid name"),
        (["plugin", "head", "my_head"], "my_head already exists"),
    ):
        found = cli("init", *arguments)
        assert found.code == 2 and words in found.err, found.err
    assert new_plugin.completions([])[0] == "head" and new_plugin.completions(["head"]) == []


@pytest.mark.nightly
@pytest.mark.parametrize("kind", plugins.KINDS.values(), ids=lambda kind: kind.template)
def test_a_written_package_passes_the_checks(installed, cli, kind):
    assert cli("init", "plugin", kind.template, "mine").code == 0
    installed(Path("mine"))
    found = cli("doctor", "plugin=mine")
    assert found.code == 0 and "!!" not in found.out, found.out + found.err


def test_metrics():
    predicted, labels = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    f1 = METRICS["macro_f1"].of_episode(predicted, labels, None)
    assert f1 == pytest.approx((2 * 1 / 3 + 2 * 1 / 4) / 2)  # classes 0 (one correct of 2 predicted and 1 there) and 1 (of 1 and 3)
    binary, truth = np.array([1, 1, 0, 0, 0, 1]), np.array([1, 0, 0, 0, 1, 1])  # TP 2, FP 1, TN 2, FN 1
    assert METRICS["mcc"].of_episode(binary, truth, None) == pytest.approx((2 * 2 - 1 * 1) / (3 * 3 * 3 * 3) ** 0.5)
    assert METRICS["mcc"].of_episode(np.zeros(4, dtype=int), labels, None) == 0.0
    for names, words in ((["f2"], "no metric 'f2'; choose from macro_f1, mcc"), (["macro_f1", "macro_f1"], "names a metric twice")):
        with pytest.raises(UserError, match=words):
            check_metrics(names, [])
