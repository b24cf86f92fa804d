"""Images, and images beside texts, under the same learner."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import unrolled
from PIL import Image, ImageDraw

import metatrain
from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.config import ModelConfig, ScratchConfig
from metatrain.models.images import is_image_model, load_image_encoder
from metatrain.tasks.config import SplitConfig, TasksConfig
from metatrain.tasks.distribution import load_tasks
from metatrain.tasks.encoded_episode import EncodedEpisode

SMALL = ScratchConfig(layers=2, hidden=16, heads=2, vocabulary=300)
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """COLOUR/SHAPE/FILE: a task for each colour."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for colour, value in COLOURS.items():
        for shape in ("disc", "bar"):
            (root / colour / shape).mkdir(parents=True)
            for number in range(8):
                image = Image.fromarray(rng.integers(0, 60, (40, 32, 3), dtype=np.uint8))
                draw = ImageDraw.Draw(image)
                draw.ellipse([4, 12, 28, 36], value) if shape == "disc" else draw.rectangle([2, 4, 30, 9], value)
                image.save(root / colour / shape / f"{number}.png")
    return root


def encoder(name: str, dtype=torch.float64, **more):
    torch.manual_seed(0)
    return load_image_encoder(ModelConfig(name=name, max_length=16, scratch=SMALL, **more), True, dtype, ["a red disc", "a blue bar"])[0]


def inputs(model, folder: Path) -> list[np.ndarray]:
    """Images, and texts between them if the model reads any."""
    images = [model.reader(str(folder / colour / shape / "0.png")) for colour in ("red", "blue") for shape in ("disc", "bar")]
    if model.tokenizer is None:
        return images
    texts = [np.array(model.tokenizer(text)["input_ids"]) for text in ("a red disc", "bar")]
    return [images[0], texts[0], images[1], texts[1], images[2]]


@pytest.mark.parametrize("name", ["scratch:vit", "scratch:clip"])
def test_an_encoding_does_not_depend_on_the_batch(folder, name):
    model = encoder(name)
    given = inputs(model, folder)
    together = model(model.batch(given))
    assert together.shape == (len(given), 16)
    for row, each in zip(together, given):
        assert torch.allclose(model(model.batch([each]))[0], row, atol=1e-12)


@pytest.mark.parametrize("mode", ["exact", "exact_recomputed", "forward_over_reverse"])
@pytest.mark.parametrize("name", ["scratch:vit", "scratch:clip"])
def test_the_meta_gradient_is_that_of_one_graph(folder, name, mode):
    model = encoder(name)
    learner = EncoderLearner(model, AlgorithmConfig(meta_gradient=mode), InnerConfig(lr=0.1, steps=2), way=2)
    given = inputs(model, folder)
    kinds = [given] if name == "scratch:vit" else [given, [given[0], given[2], given[4], given[0]], [given[1], given[3], given[1], given[3]]]
    for chosen in kinds:  # of both, of images alone, of texts alone
        episode = EncodedEpisode(chosen[:2], np.array([0, 1]), chosen[2:4], np.array([1, 0]), ["a", "b"])
        found = learner.outer_gradient(episode).gradient
        expected = _unrolled(learner, episode)
        size = sum(float(value.square().sum()) for value in expected.values()) ** 0.5
        distance = sum(float((found.get(key, torch.zeros_like(value)) - value).square().sum()) for key, value in expected.items()) ** 0.5
        # These models take their softmax in float32, so that other orders of the same products differ by more.
        assert distance < (1e-6 if mode == "forward_over_reverse" else 1e-9) * size


def _unrolled(learner, episode):
    """The oracle wants every parameter in every graph: those that take no part enter as nothing."""

    class Whole:
        def __init__(self):
            self.losses = learner.losses(episode, None)

        def start(self, theta):
            return self.losses.start(theta)

        def support_parts(self, phi, fixed, step):
            yield from self.losses.support_parts(phi, fixed, step)
            yield sum(0 * value.sum() for value in phi.values())

        def query_parts(self, phi, fixed):
            yield from self.losses.query_parts(phi, fixed)

    return unrolled(Whole(), learner.functional.view(learner.parameters, None), learner.rule, 2)


def test_folders_are_tasks_and_the_same_image_is_found_under_any_name(folder):
    config = TasksConfig(path=str(folder), images=True, meta_train=SplitConfig(tasks=["red", "green"]), meta_test=SplitConfig(tasks=["blue"]))
    tasks = load_tasks(config, 0)
    assert [(task.name, task.label_names, len(task.texts)) for task in tasks.meta_train] == [("green", ("bar", "disc"), 16), ("red", ("bar", "disc"), 16)]
    copy = folder / "blue" / "bar" / "copy.png"
    copy.write_bytes((folder / "red" / "bar" / "3.png").read_bytes())
    try:
        with pytest.raises(UserError, match="1 texts of tasks.meta_train .task 'red'"):
            load_tasks(config, 0)
    finally:
        copy.unlink()


def test_folders_that_are_laid_out_otherwise(tmp_path, folder):
    with pytest.raises(UserError, match="no such folder"):
        load_tasks(TasksConfig(path=str(tmp_path / "gone"), images=True), 0)
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(UserError, match="must be in TASK/LABEL/FILE"):
        load_tasks(TasksConfig(path=str(tmp_path), images=True), 0)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="broken.png: cannot be read as an image"):
        encoder("scratch:vit").reader(str(tmp_path / "broken.png"))


def test_what_reads_images():
    assert is_image_model(ModelConfig(name="scratch:vit")) and is_image_model(ModelConfig(name="scratch:clip"))
    assert not is_image_model(ModelConfig(name="minilm")) and not is_image_model(ModelConfig(name="scratch:t5"))


SETTINGS = [
    "model.scratch.hidden=16", "model.scratch.heads=2", "outer.steps=3", "outer.meta_batch=2", "validation.every=0", "evaluation.episodes=1",
    "evaluation.queries=2", "episode.queries=2", "episode.shots=3", "evaluation.shots=[3]", "tracking=none", "hardware.threads=1",
]  # fmt: skip


def test_a_run_on_images_and_texts_that_is_evaluated_again(cli, folder):
    source = f"+tasks.sources={{shapes:{{path:{folder},images:true}}}}"
    splits = ["tasks.meta_train.tasks=[books,red,green]", "tasks.meta_validation.tasks=[]", "tasks.meta_test.tasks=[films,blue]"]
    found = cli("train", "model=scratch_clip", "model.scratch.vocabulary=300", "algorithm=maml", source, *splits, *SETTINGS, "hydra.run.dir=run")
    assert found.code == 0, found.err
    results = json.loads(Path("run/results.json").read_text())
    drawn = {name for line in Path("run/metrics.jsonl").read_text().splitlines() for name in json.loads(line).get("tasks", [])}
    assert "books" in drawn and drawn & {"red", "green"}
    for checkpoint in ("run", "run/model"):
        tasks = [] if checkpoint == "run" else ["tasks=reviews", source, "tasks.meta_test.tasks=[films,blue]"]
        again = cli("evaluate", f"checkpoint={checkpoint}", *tasks, "evaluation.episodes=1", "evaluation.queries=2", "evaluation.shots=[3]",
                    f"name={checkpoint.replace('/', '_')}")  # fmt: skip
        assert again.code == 0, again.err
        evaluated = json.loads(next(Path("outputs/evaluate", checkpoint.replace("/", "_")).rglob("results.json")).read_text())
        assert evaluated["arms"]["meta_trained"]["per_task"] == results["arms"]["meta_trained"]["per_task"]


@pytest.mark.parametrize("name", ["scratch_vit", "scratch_clip"])
def test_a_model_of_images_is_finetuned_and_of_use(cli, folder, name):
    images = ["tasks=files", f"tasks.path={folder}", "tasks.images=true", "tasks.meta_test.tasks=[blue]", "tasks.meta_validation.tasks=[green]"]
    found = cli("train", f"model={name}", "algorithm=protonet", *images, *SETTINGS, "hydra.run.dir=run")
    assert found.code == 0, found.err
    assert found.out.rstrip().endswith("data.train=YOUR_IMAGES")
    found = cli("finetune", "checkpoint=run", f"data.train={folder / 'red'}", f"data.test={folder / 'blue'}", "report=false", "hydra.run.dir=tuned")
    assert found.code == 0, found.err
    results = json.loads(Path("tuned/results.json").read_text())
    assert results["labels"] == ["bar", "disc"] and results["examples"] == results["test"]["examples"] == 16
    assert "predict model=THIS_DIRECTORY data=IMAGE" in Path("tuned/model/README.md").read_text()
    found = cli("predict", "model=tuned", f"data={folder / 'blue'}", "output=answers.jsonl")
    assert found.code == 0, found.err
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [Path(answer["picture"]).parent.name for answer in answers] == ["bar"] * 8 + ["disc"] * 8
    right = np.mean([answer["label"] == Path(answer["picture"]).parent.name for answer in answers])
    assert right == pytest.approx(results["test"]["accuracy"])
    loaded = metatrain.load("tuned")
    assert loaded.predict([answer["picture"] for answer in answers]) == [answer["label"] for answer in answers]
    with pytest.raises(UserError, match=r"images\[0\] must be a path, not 1"):
        loaded.predict([1])
    alone = cli("predict", "model=tuned", f"data={folder / 'blue' / 'disc' / '0.png'}")
    assert json.loads(alone.out.splitlines()[-1]) == pytest.approx(answers[8], abs=1e-5)


def test_finetuning_refuses_images_that_do_not_fit(cli, folder, tmp_path):
    for data, words in ((folder, "data.train=.* has 3 tasks of images"), (tmp_path, "data.train=.*images .* must be in")):
        found = cli("finetune", "checkpoint=tiny", f"data.train={data}")
        assert found.code == 2 and re.search(words, found.err), found.err
    found = cli("finetune", "checkpoint=tiny", f"data.train={folder / 'red'}")
    assert found.code == 2 and "has images, but the model reads texts" in found.err
    assert not any(path.is_file() for path in (tmp_path / "outputs").rglob("*"))


def test_incompatible_models_and_tasks_are_refused(cli, folder):
    images = ["tasks=files", f"tasks.path={folder}", "tasks.images=true"]
    for settings, words in (
        (["model=tiny", *images], "has images, but the model reads texts"),
        (["model=scratch_vit", "tasks=reviews"], "has texts, but the model reads only images"),
        (["model=scratch_vit", *images, "hardware.precision=bf16"], "bf16 is not supported for image models"),
    ):
        found = cli("train", *settings, *[each for each in SETTINGS if not (each.startswith("model.") and "model=tiny" in settings)], "hydra.run.dir=run")
        assert found.code == 2 and words in found.err, found.err
