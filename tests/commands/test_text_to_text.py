"""Text-to-text tasks from the command line: one run with two kinds of tasks, resumed, evaluated, finetuned and used."""

import json
import random
from pathlib import Path

import pytest
from conftest import write_jsonl

import metatrain
from metatrain.errors import UserError

COLOURS = {"red": "rot", "green": "grün", "blue": "blau", "white": "weiß"}
THINGS = {"house": "Haus", "tree": "Baum", "book": "Buch", "ship": "Schiff", "horse": "Pferd"}


@pytest.fixture
def sources(tmp_path) -> list[str]:
    """Translations, and sentiment, as sources of their own."""
    rng = random.Random(0)
    pairs = [(f"the {c} {t} number {n}", f"{t} {n} {COLOURS[c]} {THINGS[t]}") for c in COLOURS for t in THINGS for n in range(2)]
    rng.shuffle(pairs)
    write_jsonl(tmp_path / "words.jsonl", [{"text": a, "target": b, "task": "late" if n < 15 else "early"} for n, (a, b) in enumerate(pairs)])
    rows = [{"text": f"{'good' if n % 2 else 'bad'} {t} {n}", "label": "positive" if n % 2 else "negative"} for n in range(30) for t in THINGS]
    write_jsonl(tmp_path / "mood.jsonl", rows)
    return [
        "tasks=files", f"tasks.path={tmp_path}/words.jsonl", "tasks.target=target", "tasks.task=task", "tasks.score=rouge1",
        f"+tasks.sources={{mood:{{path:{tmp_path}/mood.jsonl}}}}",
        "tasks.meta_train.tasks=[early,mood]", "tasks.meta_test.tasks=[late]", "tasks.meta_validation.tasks=[mood]", "tasks.overlap=keep",
    ]  # fmt: skip


MODEL = [
    "algorithm=fomaml", "algorithm.head=lm", "model=scratch_t5", "model.scratch.layers=1", "model.scratch.hidden=32", "model.scratch.vocabulary=300",
    "model.max_target_length=12", "inner.steps=2", "inner.lr=0.1",
]  # fmt: skip
SHORT = [
    "outer.steps=6", "outer.meta_batch=2", "outer.warmup=0", "validation.every=3", "validation.episodes=1", "validation.queries=2", "checkpoint.every=3",
    "evaluation.episodes=2", "evaluation.shots=[3]", "evaluation.queries=3", "episode.shots=3", "episode.queries=3", "tracking=none", "hardware.threads=1",
]  # fmt: skip


def contents(run: Path) -> dict[str, bytes]:
    files = [*sorted((run / "checkpoints").rglob("*")), run / "metrics.jsonl", *sorted((run / "model").rglob("*")), run / "results.json"]
    timed = ("results.json", "README.md")  # they state seconds or minutes
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.is_file() and path.name not in timed}


def test_two_kinds_of_tasks_in_one_run_that_is_resumed_evaluated_and_used(cli, sources, tmp_path):
    found = cli("train", *MODEL, *SHORT, *sources, "hydra.run.dir=whole")
    assert found.code == 0 and found.out.rstrip().endswith("data.train=YOUR_EXAMPLES.csv data.target=COLUMN")
    results = json.loads(Path("whole/results.json").read_text())
    assert results["protocol"]["scores"] == {"late": "rouge1"}
    assert results["arms"].keys() == {"meta_trained", "no_meta_training", "without_adaptation"}
    assert "rouge1" in Path("whole/run.log").read_text()

    # Half of it, then the rest: the vocabulary is that of the run.
    assert cli("train", *MODEL, *SHORT, *sources, "hydra.run.dir=halves", "outer.steps=3", "outer.schedule=constant").code == 0
    assert cli("train", *MODEL, *SHORT, *sources, "hydra.run.dir=constant", "outer.schedule=constant").code == 0
    assert cli("resume", "halves", "outer.steps=6").code == 0
    assert contents(Path("halves")) == contents(Path("constant"))

    found = cli("evaluate", "checkpoint=whole", "evaluation.episodes=2", "evaluation.shots=[3]", "evaluation.queries=3")
    assert found.code == 0, found.err
    evaluated = json.loads(next(Path("outputs/evaluate").rglob("results.json")).read_text())
    assert evaluated["arms"]["meta_trained"]["mean"] == results["arms"]["meta_trained"]["mean"]

    write_jsonl(Path("new.jsonl"), [{"text": "the red house", "target": "rot"}, {"text": "the blue tree", "target": "blau"}])
    for checkpoint in ("whole", "whole/model"):
        run = f"tuned-{checkpoint.replace('/', '-')}"
        arguments = ["data.train=new.jsonl", "data.test=new.jsonl", "data.target=target", "data.score=exact_match", "inner.steps=120", f"hydra.run.dir={run}"]
        found = cli("finetune", f"checkpoint={checkpoint}", *arguments)
        assert found.code == 0, found.err
        assert json.loads(Path(run, "results.json").read_text())["test"]["exact_match"] == 1.0
        assert cli("predict", f"model={run}", "text=the red house").out == "rot\n"
    answers = [json.loads(line) for line in cli("predict", "model=tuned-whole", "data=new.jsonl").out.splitlines()]
    model = metatrain.load("tuned-whole")
    assert model.labels is None and model.predict(["the red house"]) == ["rot"]
    for wrong in (lambda: model.probabilities(["a"]), lambda: model.predict(["a"], threshold=0.5)):
        with pytest.raises(UserError, match="this model writes texts, which have no probability"):
            wrong()
    assert answers == [{"text": text, "target": word, "answer": word} for text, word in (("the red house", "rot"), ("the blue tree", "blau"))]


def test_questions_about_a_text_are_answered(cli):
    people, places = ("ann", "bob", "eva", "gus"), ("rome", "oslo", "lima", "cairo")
    rows = [
        {"question": f"where is {who}", "context": f"{who} is in {place}", "answer": place, "task": task}
        for task, found in (("some", places[:2]), ("others", places[2:]))
        for who in people
        for place in found
    ]
    write_jsonl(Path("answers.jsonl"), rows)
    columns = ["tasks=files", "tasks.path=answers.jsonl", "tasks.task=task", "tasks.text=question", "tasks.pair=context", "tasks.target=answer"]
    split = ["tasks.meta_train.tasks=[some]", "tasks.meta_test.tasks=[others]", "tasks.meta_validation.tasks=[]", "validation.every=0"]
    found = cli("train", *MODEL, *SHORT, *columns, *split, "tasks.score=exact_match", "hydra.run.dir=run", "outer.steps=1")
    assert found.code == 0, found.err
    assert found.out.rstrip().endswith("data.train=YOUR_EXAMPLES.csv data.pair=COLUMN data.target=COLUMN")
    write_jsonl(Path("new.jsonl"), [{"question": "where is ann", "context": f"ann is in {place}", "answer": place} for place in places[:2]])
    tuned = ["data.train=new.jsonl", "data.text=question", "data.pair=context", "data.target=answer", "inner.steps=150", "hydra.run.dir=tuned"]
    assert cli("finetune", "checkpoint=run", *tuned).code == 0
    # The question is the same: the answer comes of the context.
    answers = [json.loads(line)["answer"] for line in cli("predict", "model=tuned", "data=new.jsonl").out.splitlines()]
    assert answers == ["rome", "oslo"]
    assert "with the columns question and context" in cli("predict", "model=tuned", "text=where is ann").err


def test_a_language_model_classifies_by_the_names_of_labels(cli, tmp_path):
    rows = [{"text": f"{word} {n}", "label": label} for n in range(4) for word, label in (("fine", "yes"), ("awful", "no_way"))]
    write_jsonl(Path("labelled.jsonl"), rows)
    assert cli("train", *MODEL, *SHORT, "tasks=reviews", "validation.every=0", "hydra.run.dir=run", "outer.steps=1").code == 0
    found = cli("finetune", "checkpoint=run", "data.train=labelled.jsonl", "data.test=labelled.jsonl", "inner.steps=60", "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    assert json.loads(Path("tuned/results.json").read_text())["test"]["accuracy"] == 1.0
    first = cli("predict", "model=tuned", "text=awful 2").out.splitlines()[0].split("\t")
    assert first[0] == "no_way" and float(first[1]) > 0.5
    assert json.loads(cli("predict", "model=tuned", "data=labelled.jsonl").out.splitlines()[0])["predicted_label"] == "yes"


def test_examples_that_are_read_in_context_are_read_by_predict_too(cli):
    model = ["algorithm=in_context", "model=scratch_gpt2", "model.scratch.layers=1", "model.scratch.hidden=32", "model.scratch.vocabulary=300"]
    assert cli("train", *model, *SHORT, "tasks=reviews", "validation.every=0", "hydra.run.dir=run", "outer.steps=1", "evaluation.arms=[]").code == 0
    rows = [{"text": f"{word} {n}", "label": label} for n in range(2) for word, label in (("fine", "yes"), ("awful", "no"))]
    write_jsonl(Path("examples.jsonl"), rows)
    write_jsonl(Path("other.jsonl"), [{**row, "text": row["text"].upper()} for row in rows])
    said = {}
    for examples in ("examples", "other"):
        found = cli("finetune", "checkpoint=run", f"data.train={examples}.jsonl", "data.test=examples.jsonl", f"hydra.run.dir={examples}")
        assert found.code == 0 and "form the context of every text" in found.out
        said[examples] = [json.loads(line) for line in cli("predict", f"model={examples}", "data=examples.jsonl").out.splitlines()]
        right = [answer["predicted_label"] == row["label"] for answer, row in zip(said[examples], rows)]
        assert json.loads(Path(examples, "results.json").read_text())["test"]["accuracy"] == sum(right) / len(right)
    assert said["examples"] != said["other"]
    write_jsonl(Path("many.jsonl"), rows * 100)
    found = cli("finetune", "checkpoint=run", "data.train=many.jsonl", "hydra.run.dir=many", "report=false")
    assert found.code == 0 and "of them are left out of the context, balanced over the classes" in found.out


@pytest.mark.parametrize(
    "changes, expected",
    [
        (["algorithm.head=zero"], "task 'early' has target texts, but algorithm.head=zero predicts labels; set algorithm.head=lm"),
        (["tasks.score=meteor"], "tasks.score=meteor is unknown"),
        (["evaluation.arms=[prototypes]"], "prototypes predicts labels, and task 'late' has target texts"),
        (
            ["algorithm.meta_dropout=true", "algorithm.meta_gradient=exact"],
            "algorithm.meta_dropout has no effect: algorithm.head=lm is a language model without encodings",
        ),
        (["algorithm.adapt=head"], "has no classification head"),
        (["algorithm.head=in_context"], "set inner.steps=0"),
        (["hardware.precision=bf16"], "hardware.precision=bf16 is not supported"),
    ],
)
def test_incompatible_settings_are_refused(cli, sources, changes, expected):
    read = [item for item in (*MODEL, *SHORT) if "head=zero" not in changes[0] or "max_target_length" not in item]  # which only a language model reads
    found = cli("train", *read, *sources, *changes, "hydra.run.dir=run")
    assert found.code == 2 and expected in found.err
    assert not Path("run/config.yaml").exists()
