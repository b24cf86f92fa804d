"""Ways of getting it wrong: each gives one clear line and exit code 2, and leaves no run directory behind."""

import os

import pytest

FINETUNE = ("finetune", "checkpoint=tiny")


def refused(found, *words):
    """Check the outcome of a refused command: one line on stderr that has all `words`."""
    assert found.code == 2, found.err
    lines = found.err.strip().splitlines()
    assert len(lines) == 1, found.err
    assert lines[0].startswith("metatrain: error: ")
    for word in words:
        assert word in lines[0], lines[0]


def nothing_left(folder):
    """No run, no file, no link."""
    assert not [path for path in (folder / "outputs").rglob("*") if not path.is_dir()]
    assert not list((folder / "outputs" / "train").glob("*/*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "inner.lrr=1"], ["'inner.lrr'", "did you mean 'inner.lr'?"]),
        (["train", "iner.lr=1"], ["'iner.lr'", "did you mean 'inner.lr'?"]),
        (["train", "modle=tiny"], ["'modle'", "did you mean 'model'?"]),
        (["train", "++inner.foo=1"], ["'inner.foo'"]),
        (["train", "hydra.job.chdir=true"], ["hydra.job.chdir=true", "leave it out"]),
        (["train", "hydra.run.dir=x", "-m"], ["hydra.run.dir is the directory of a single run", "hydra.sweep.dir=DIR"]),
        (["train", "hydra.sweep.dir=x"], ["hydra.sweep.dir is for the runs of a grid (-m)", "hydra.run.dir=DIR"]),
        (["train", "+tasks.label_descriptions={été: good}"], ["cannot read the override: +tasks.label_descriptions={été: good}", "must be ASCII"]),
        (["train", "hydra.rn.dir=x"], ["did you mean 'hydra.run.dir'?"]),
        (["train", "outer.steps=many"], ["outer.steps", "Integer"]),
        (["train", "outer.steps=2.5"], ["outer.steps", "Integer"]),
        (["train", "seed=[1"], ["cannot read the override"]),
        (["train", "outer"], ["cannot read the override", "KEY=VALUE"]),
        (["train", "inner.lr=0.1,0.2"], ["-m"]),
        (["train", "+inner.lr=0.1"], ["without the '+'"]),
        (["train", "+model=tiny"], ["without the '+'"]),
        (["train", "model=tinny"], ["no model named 'tinny'", "did you mean 'tiny'?"]),
        (["train", "+experiment=sentiment_fewshott"], ["no experiment named", "did you mean 'sentiment_fewshot'?"]),
        (["train", "experiment=nothing_like_it_at_all"], ["no experiment named", "choose one of"]),
        (["train", "model=hub"], ["model.name is not set"]),
        (["train", "tasks=files"], ["tasks.path is not set"]),
        (["finetune", "checkpoint=tiny"], ["data.train is not set"]),
        (["evaluate", "checkpoint=tiny", "evaluation.shots=5"], ["evaluation.shots is a list; write evaluation.shots=[VALUE]"]),
        (["evaluate", "checkpoint=tiny", "evaluation.shots={a: 1}"], ["evaluation.shots is a list; write evaluation.shots=[VALUE]"]),
        (["evaluate", "checkpoint=tiny", "tasks.fold=3"], ["tasks.fold needs tasks=NAME beside it"]),
        (["evaluate", "checkpoint=tiny", "tasks.meta_test.files=[a]"], ["tasks.meta_test.files needs tasks=NAME beside it"]),
        (["train", "tasks.meta_test=[books]"], ["tasks.meta_test is a group of settings", "tasks.meta_test.tasks"]),
        (["train", "tasks.sources=[a.csv]"], ["write 'tasks.sources={NAME: VALUE}'"]),
        (["finetune", "checkpoint=tiny", "data=rows.csv"], ["data is a group of settings", "data.train, data.test"]),
        (["train", "outer=3"], ["GROUP=OPTION", "GROUP.SETTING=VALUE"]),
        (["finetune", "outer=adamw"], ["metatrain finetune has no setting 'outer'"]),
    ],
)
def test_configurations_that_cannot_be_composed(cli, tmp_path, arguments, words):
    refused(cli(*arguments), *words)
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("inner.lr=nan", "inner.lr=nan"),
        ("inner.lr=-1", "inner.lr=-1"),
        ("inner.steps=-1", "inner.steps=-1"),
        ("inner.rule=adamw", "choose"),
        ("outer.lr=inf", "outer.lr=inf"),
        ("outer.meta_batch=0", "outer.meta_batch=0"),
        ("outer.schedule=square", "choose one of"),
        ("algorithm.head=unicorn3", "choose one of"),
        ("algorithm.adapt=some", "choose one of"),
        ("algorithm.head=prototype algorithm.head_scale=0", "algorithm.head_scale=0"),
        ("algorithm.meta_gradient=third_order", "choose one of"),
        ("algorithm.head=linear", "episode.way"),
        ("algorithm.last_layers=0 algorithm.adapt=last_layers", "algorithm.last_layers=0 must be 1 or more"),
        ("episode.shots=100", "100 shots"),
        ("episode.shots=0", "episode.shots=0"),
        ("episode.queries=0", "episode.queries=0"),
        ("episode.way=1", "episode.way=1"),
        ("episode.way=2.5", "episode.way must be a whole number, or a range such as 2..10"),
        ("episode.way=6..2", "write episode.way=2..6"),
        ("episode.shots=some", "episode.shots=some must be a number, a range such as 1..10"),
        ("episode.shots=0..4", "episode.shots=0..4 must be 1 or more"),
        ("evaluation.way=..1", "evaluation.way=..1 must be 2 or more"),
        ("validation.queries=0", "validation.queries=0"),
        ("evaluation.queries=0", "evaluation.queries=0"),
        ("evaluation.shots=${seed}", "evaluation.shots"),
        ("tasks.meta_train.support_files=[[]]", "tasks.meta_train.support_files[0]"),
        ("model.max_length=2", "model.max_length=2"),
        ("outer.nonfinite=ignore", "choose one of"),
        ("outer.spike=1", "outer.spike=1"),
        ("seed=-1", "seed=-1"),
        ("seed=99999999999999999999", "seed=99999999999999999999"),
        ("episode.way=3", "episode.way=3"),
        ("evaluation.shots=[]", "evaluation.shots"),
        ("evaluation.arms=[setfit2]", "no arm 'setfit2'"),
        ("validation.score=f1", "choose one of"),
        ("checkpoint.every=0", "checkpoint.every"),
        ("tracking.mode=maybe", "tracking.mode=maybe"),
        ("hardware.device=cuda:99", "hardware.device=cuda:99"),
        ("hardware.threads=0", "hardware.threads=0"),
        ("hardware.max_memory=0", "hardware.max_memory=0"),
        ("hardware.max_memory=0.1", "needs about"),
        ("hardware.precision=int8", "hardware.precision=int8"),
        ("model.pooling=max", "model.pooling=max"),
        ("model.max_length=100000", "model.max_length=100000"),
        ("model.trust_remote_code=true", "model.revision"),
        ("tasks.overlap=maybe", "tasks.overlap=maybe"),
        ("tasks.meta_validation.tasks=[] tasks.meta_test.tasks=[] tasks.holdout=0.9", "tasks.holdout=0.9"),
        ("tasks.meta_test.tasks=[filns]", "'filns'"),
        ("tasks.path=nowhere", "tasks.path=nowhere"),
    ],
)
def test_values_that_make_no_sense(cli, tmp_path, setting, word):
    refused(cli("train", "model=tiny", *setting.split()), word)
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["examples.csv", "empty"]),
        (b"text,label\n", ["examples.csv", "no rows"]),
        (b"words,mood\na,b\n", ["no column 'label'", "'words', 'mood'"]),
        (b"text,label\nfine,x\nbad \xff,y\n", ["examples.csv:3", "UTF-8"]),
        (b"text,label\nfine,x\n,y\n", ["examples.csv:3", "'text' is empty"]),
        (b"text,label\nfine,x\none,two,three\n", ["examples.csv:3", "3 fields"]),
        (b"text,label\nfine,x\ngood,x\n", ["only one class", "'x'"]),
    ],
)
def test_bad_example_files(cli, tmp_path, content, words):
    (tmp_path / "examples.csv").write_bytes(content)
    refused(cli(*FINETUNE, "data.train=examples.csv"), *words)


def test_a_missing_file(cli):
    refused(cli(*FINETUNE, "data.train=nowhere.csv"), "nowhere.csv", "no such file")


def test_an_unknown_kind_of_file(cli, tmp_path):
    (tmp_path / "examples.xlsx").write_bytes(b"PK")
    refused(cli(*FINETUNE, "data.train=examples.xlsx"), "examples.xlsx: cannot be read as an Excel workbook: File is not a zip file")


def test_bad_json_line(cli, tmp_path):
    (tmp_path / "examples.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": \n')
    refused(cli(*FINETUNE, "data.train=examples.jsonl"), "examples.jsonl:2", "not valid JSON")


def test_a_test_label_without_training_example_names_its_line(cli, examples, tmp_path):
    (tmp_path / "test.csv").write_text('text,label\n"two\nlines",good\nfine,superb\n')
    refused(cli(*FINETUNE, f"data.train={examples}", "data.test=test.csv"), "test.csv:4", "'superb'")


def test_fewer_examples_than_shots(cli, tmp_path):
    (tmp_path / "few.csv").write_text("text,label,task\n" + "".join(f"{task} text {n},{n % 2},{task}\n" for task in "abcde" for n in range(6)))
    refused(cli("train", "model=tiny", "tasks=files", "tasks.path=few.csv", "tasks.task=task"), "3 rows of class", "5 shots")


def test_a_checkpoint_that_is_not_there(cli, examples):
    refused(cli("finetune", "checkpoint=./nowhere", f"data.train={examples}"), "./nowhere", "no such run")


def test_a_hub_model_that_is_not_there(cli, examples):
    refused(cli("finetune", "checkpoint=nobody/nothing", f"data.train={examples}"), "model.name=nobody/nothing: no such folder", "HF_HUB_OFFLINE=1")


def test_no_latest_run(cli):
    refused(cli("resume", "latest"), "no run of metatrain")
    refused(cli("evaluate", "checkpoint=latest"), "no run of metatrain")


def test_a_run_directory_that_holds_a_run(cli, tiny_run):
    refused(cli("train", "debug=fast", f"hydra.run.dir={tiny_run}"), "already holds a run", "metatrain resume")


def test_a_refused_run_leaves_no_directory_except_one_that_was_there(cli, tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("hydra.run.dir=there", "++hydra.run.dir=there", "hydra.run.dir='there'", "hydra.run.dir=new", "hydra.run.dir='new one'"):
        refused(cli("evaluate", "checkpoint=tiny", "tasks=reviews", "evaluation.way=99", name), "episode.way=99")
        assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_run_directory_that_is_taken_is_said_before_a_model_is_loaded(cli, examples):
    for arguments in (("train", "model=hub", "model.name=a/b"), ("evaluate", "checkpoint=a/b"), ("finetune", "checkpoint=a/b", f"data.train={examples}")):
        refused(cli(*arguments, "hydra.run.dir=."), "hydra.run.dir=. holds examples.csv, and is not a run of metatrain")


def test_a_label_that_only_the_test_file_has(cli, tmp_path, examples):
    (tmp_path / "test.csv").write_text("text,label\nhello,chat\n")
    refused(
        cli("finetune", "checkpoint=tiny", f"data.train={examples}", "data.test=test.csv"), "test.csv:2: label 'chat'", "or set oos_false_rejection_rate=0.05"
    )


def test_a_negative_number_of_steps_has_the_name_that_was_typed(cli, examples):
    found = cli("finetune", "checkpoint=tiny", f"data.train={examples}", "inner.steps=-1")
    assert found.code == 2 and "inner.steps=-1 must be zero or more" in found.err


def test_no_model_directory(cli, tmp_path):
    refused(cli("predict", "model=.", "text=hello"), "not a model directory")
    refused(cli("predict", "model=."), "text=")


@pytest.mark.skipif(not os.path.isdir("/proc/1"), reason="needs a file system that refuses directories")
def test_no_write_permission(cli):
    refused(cli("train", "debug=fast", "hydra.run.dir=/proc/metatrain"), "hydra.run.dir", "cannot")


def test_one_file_of_ones_own_is_for_another_command(cli, examples, tmp_path):
    refused(cli("train", "tasks=files", f"tasks.path={examples}"), "has 1 task", "tasks.task=COLUMN", "metatrain finetune data.train=FILE")
    nothing_left(tmp_path)
    # Who neither chooses nor tests may train on one.
    settings = ["debug=fast", "validation.every=0", "evaluation.arms=[]", "episode.shots=1", "episode.queries=1", "outer.steps=1", "hardware.threads=1"]
    assert cli("train", "tasks=files", f"tasks.path={examples}", *settings).code == 0
