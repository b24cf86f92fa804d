"""A finetuned classifier as one ONNX graph: the same probabilities, without torch; a stale graph is not used."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ROOT

from metatrain.errors import UserError
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier, ExportedHead, save_finetuned
from metatrain.models.finetuned_folder import NONE
from metatrain.models.onnx_classifier import OnnxClassifier
from metatrain.models.targets import ONE_LABEL, Number, SeveralLabels
from metatrain.tasks.texts import PAIR

TEXTS = ["it broke", "works, well " * 60, "5,000 £ 你好", "!"]
LONG = " ".join(f"word{number} is good" for number in range(40))


def classifier(folder, pooling="mean", normalize=False, columns=None, threshold=None, prefix="", target=ONE_LABEL, long_texts="cut"):
    """Write a model that was not trained."""
    torch.manual_seed(0)
    settings = ModelConfig(name="tiny", max_length=32, pooling=pooling, normalize=normalize, prefix=prefix, long_texts=long_texts)
    encoder, _ = load_encoder(settings, second_order=False)
    labels = ["number"] if isinstance(target, Number) else ["bad", "fair", "good"]
    head = {"head.weight": torch.randn(len(labels), encoder.hidden_size), "head.bias": torch.zeros(len(labels))}
    folder.mkdir()
    save_finetuned(folder, encoder, head, labels, threshold, columns or {"text": "text"}, target=target)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model directory with its graph; not to be changed by tests."""
    from metatrain.commands.export import real_texts
    from metatrain.models.onnx_export import export_graph

    model = classifier(tmp_path_factory.mktemp("exported") / "m", normalize=True, prefix="a text: ")
    (model / "onnx").mkdir()
    check = export_graph(model, model / "onnx", None, real_texts(pairs=False))
    assert check.texts > 150 and check.difference <= 1e-4 and check.agreement == 1 and check.kind == "label"
    return model


@pytest.mark.slow
def test_the_graph_is_pinned_and_holds_no_paths(exported):
    import onnx

    graph = onnx.load(exported / "onnx" / "model.onnx")
    assert [each.version for each in graph.opset_import if each.domain == ""] == [18]
    shapes = {each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim] for each in (*graph.graph.input, *graph.graph.output)}
    assert shapes == {"input_ids": ["texts", "tokens"], "attention_mask": ["texts", "tokens"], "probabilities": ["texts", 3], "logits": ["texts", 3]}
    assert b"site-packages" not in (exported / "onnx" / "model.onnx").read_bytes()


def without_torch(arguments, folder):
    """Run `metatrain ARGUMENTS` in a process; return its output and which of torch and transformers it imported."""
    script = (
        "import sys; from metatrain.cli import run; code = run(sys.argv[1:]); "
        "print('imported:', *sorted({'torch', 'transformers'} & sys.modules.keys()), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    return done, re.findall(r"^imported:(.*)$", done.stderr, re.MULTILINE)


@pytest.mark.slow
def test_predict_uses_it_without_torch(exported, tmp_path):
    expected = Classifier(exported, torch.device("cpu")).scores([TEXTS[0]]).softmax(1)[0]
    done, imported = without_torch(["predict", f"model={exported}", f"text={TEXTS[0]}"], tmp_path)
    assert done.returncode == 0 and imported == [""], done.stderr
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert {label: float(value) for label, value in found.items()} == pytest.approx(dict(zip(["bad", "fair", "good"], expected.tolist())), abs=1e-4)


@pytest.mark.slow
def test_files_have_the_same_columns_and_probabilities(exported, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate([*TEXTS, ""])])
    for runtime in ("torch", "onnx"):
        found = cli("predict", f"model={exported}", "data=in.csv", f"output={runtime}.csv", "top=2", f"runtime={runtime}")
        assert found.code == 0, found.err
    one, other = (list(csv.DictReader((tmp_path / f"{runtime}.csv").open())) for runtime in ("torch", "onnx"))
    for left, right in zip(one, other, strict=True):
        numbers = [key for key in left if key.startswith("probability") and left[key]]
        assert {key: left[key] for key in left.keys() - numbers} == {key: right[key] for key in right.keys() - numbers}
        assert [float(left[key]) for key in numbers] == pytest.approx([float(right[key]) for key in numbers], abs=1e-4)


def outputs(model, inputs):
    """Run the graph of a model directory; return its outputs by name."""
    session = onnxruntime.InferenceSession(str(model / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def predicted(cli, folder, model, *runtimes):
    """Write predictions of `TEXTS` by each runtime; return the rows of each."""
    with (folder / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in TEXTS)])
    found = []
    for runtime in runtimes:
        done = cli("predict", f"model={model.name}", "data=in.csv", f"output={runtime}.csv", f"runtime={runtime}")
        assert done.code == 0 and done.err == "", done.err
        found.append(list(csv.DictReader((folder / f"{runtime}.csv").open())))
    return found


@pytest.mark.slow
def test_several_labels_with_their_thresholds(cli, tmp_path):
    scores = Classifier(classifier(tmp_path / "first", "cls", normalize=True), torch.device("cpu")).scores(TEXTS).sigmoid()
    thresholds = tuple(scores.quantile(0.4, dim=0).tolist())  # some texts have a label and some do not
    model = classifier(tmp_path / "m", "cls", normalize=True, target=SeveralLabels(thresholds, separator=";", column="tags"))
    found = cli("export", "model=m")
    assert found.code == 0 and "same labels for 100.0% of the texts" in found.out, found.err
    one, other = predicted(cli, tmp_path, model, "torch", "onnx")
    assert [row["labels"] for row in one] == [row["labels"] for row in other] and len({row["labels"] for row in one}) > 1
    for row, expected in zip(other, scores.tolist()):
        assert [float(row[f"probability_{label}"]) for label in ("bad", "fair", "good")] == pytest.approx(expected, abs=1e-4)
    ids = np.array([[2, 7, 9, 3]])
    graph = outputs(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert graph["probabilities"] == pytest.approx(1 / (1 + np.exp(-graph["logits"])), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_numbers_from_long_texts_in_windows_without_torch(cli, tmp_path, normalize):
    first = classifier(tmp_path / "first", normalize=normalize, prefix="a text: ", target=Number(-1e9, 1e9), long_texts="windows")
    scores = Classifier(first, torch.device("cpu")).scores(TEXTS)[:, 0].sort().values
    target = Number(float(scores[1]), float(scores[2]), order=("low", "high"))  # the first and the last are limited
    model = classifier(tmp_path / "m", normalize=normalize, prefix="a text: ", target=target, long_texts="windows")
    found = cli("export", "model=m")
    assert found.code == 0 and "largest difference of a number, relative to the range of the examples, " in found.out, found.err
    differs = [LONG, f"{LONG} bad bad bad"]  # behind the cut
    graph = OnnxClassifier(model / "onnx", 1)
    loaded = Classifier(model, torch.device("cpu"))
    for texts in (TEXTS, differs, [LONG], ["it broke"]):
        assert graph.scores(texts) == pytest.approx(loaded.scores(texts).numpy(), abs=1e-5)
    assert np.ptp(graph.scores(differs)) > 1e-4
    weights = np.array([[0.25, 0.75]], dtype=np.float32)
    raw = outputs(model, {"input_ids": np.full((2, 4), 7), "attention_mask": np.ones((2, 4), dtype=np.int64), "window_weights": weights})
    assert raw["numbers"] == pytest.approx(np.clip(raw["logits"][:, 0], target.lowest, target.highest)) and raw["numbers"].shape == (1,)
    with pytest.raises(UserError, match="is for single texts, and these are pairs"):
        graph.scores([f"one{PAIR}two"])
    if normalize:  # one process is enough
        done, imported = without_torch(["predict", "model=m", f"text={LONG}"], tmp_path)
        assert done.returncode == 0 and imported == [""], done.stderr
        expected = target.predictions(loaded, [LONG], None)[0]
        assert done.stdout.split("\t")[0] in ("low", "high") and float(done.stdout.split("\t")[1]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_stale_graph_is_not_used(exported, cli, tmp_path):
    model = shutil.copytree(exported, tmp_path / "m")
    weights = next(path for path in model.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x00\x00")
    found = cli("predict", "model=m", "text=it broke")
    assert found.code == 0 and found.out.count("\t") == 3
    assert re.search(
        r"m/onnx is stale: it was made from another .*safetensors; write it again with: metatrain export model=m; predicting with torch", found.err
    )
    found = cli("predict", "model=m", "text=it broke", "runtime=onnx")
    assert found.code == 2 and "is stale" in found.err


@pytest.mark.slow
def test_bad_files_and_settings_are_refused_in_one_line(exported, cli, tmp_path):
    model = shutil.copytree(exported, tmp_path / "m")
    (model / "onnx" / "model.onnx").write_bytes(b"no graph")
    for settings, words in (
        (["runtime=onnx"], "m/onnx/model.onnx cannot be read"),
        (["runtime=onnx_int8"], "m/onnx_int8 does not exist; write it with: metatrain export model=m quantize=int8"),
        (["runtime=tensorrt"], "runtime=tensorrt is unknown; choose one of auto, torch, onnx, onnx_int8"),
        (["runtime=onnx", "hardware.device=cuda"], "runtime=onnx runs on the CPU in float32, and hardware.device=cuda; choose runtime=torch"),
    ):
        found = cli("predict", "model=m", "text=it broke", *settings)
        assert found.code == 2 and words in found.err and len(found.err.splitlines()) == 1, found.err
    for name, content in (("classifier.json", "{}"), ("classifier.json", "["), ("tokenizer.json", "{}")):
        broken = shutil.copytree(exported, tmp_path / f"{name}{len(content)}")
        (broken / "onnx" / name).write_text(content)
        found = cli("predict", f"model={broken}", "text=it broke", "runtime=onnx")
        assert found.code == 2 and len(found.err.splitlines()) == 1, found.err


def test_models_that_are_no_such_graph_are_refused(cli, tmp_path):
    for setting in ("format=tflite", "quantize=int4"):
        found = cli("export", "model=m", setting)
        assert found.code == 2 and f"{setting} is unknown" in found.err
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32), second_order=False)
    (tmp_path / "own").mkdir()
    tensors = {"head.encodings": torch.randn(2, encoder.hidden_size), "head.labels": torch.eye(2)}
    save_finetuned(tmp_path / "own", encoder, tensors, ["a", "b"], head=ExportedHead("matching", 1.0))
    (tmp_path / "language").mkdir()
    (tmp_path / "language" / "task.json").write_text('{"labels": null}')
    (tmp_path / "language" / "config.json").write_text("{}")
    for name, words in (("own", "a head that is not linear (algorithm.head=matching)"), ("language", "is a language model")):
        found = cli("export", f"model={name}")
        assert found.code == 2 and words in found.err and "classifiers of texts with a linear head" in found.err, found.err
        assert not (tmp_path / name / "onnx").exists()


@pytest.mark.slow
def test_the_example_runs_where_torch_cannot_be_imported(exported, tmp_path):
    expected = Classifier(exported, torch.device("cpu")).scores([TEXTS[1]]).softmax(1)[0].tolist()
    script = f"""
import runpy, sys
for name in ("torch", "transformers", "metatrain"):
    sys.modules[name] = None
sys.argv = ["onnx_predict.py", {str(exported / "onnx")!r}, {TEXTS[1]!r}]
runpy.run_path({str(ROOT / "examples" / "onnx_predict.py")!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {label: float(value) for label, value in (line.split(": ") for line in done.stdout.splitlines())}
    assert found == pytest.approx(dict(zip(["bad", "fair", "good"], expected)), abs=1e-4)


@pytest.mark.nightly  # in every test run, others export mean, cls and last
@pytest.mark.parametrize(("pooling", "normalize"), [("first", False), ("cls", True), ("last", False)])
def test_every_pooling(cli, tmp_path, pooling, normalize):
    classifier(tmp_path / "m", pooling, normalize)
    found = cli("export", "model=m")
    assert found.code == 0 and "same label for 100.0% of the texts" in found.out, found.err
    assert cli("predict", "model=m", "text=it broke").err == ""  # the graph is not stale


@pytest.mark.slow
def test_pairs_out_of_scope_and_int8(cli, tmp_path):
    model = classifier(tmp_path / "m", "last", columns={"text": "text", "pair": "other"}, threshold=100.0)
    found = cli("export", "model=m", "quantize=int8")
    assert found.code == 0 and "runtime=onnx_int8" in found.out, found.err
    agreement = float(re.search(r"same label for ([\d.]+)% of the texts", found.out)[1])
    assert agreement > 90
    facts = json.loads((model / "onnx_int8" / "classifier.json").read_text())
    assert facts["pair"] is True and facts["out_of_scope_below"] == 100.0 and facts["quantize"] == "int8"
    assert (model / "onnx_int8" / "model.onnx").stat().st_size < 0.5 * sum(path.stat().st_size for path in model.rglob("*.safetensors"))
    (tmp_path / "in.csv").write_text("text,other\na,b\n" + "long " * 50 + ",c\n")
    found = cli("predict", "model=m", "data=in.csv", "runtime=onnx_int8")
    assert [json.loads(line)["label"] for line in found.out.splitlines()] == [NONE, NONE], found.err
