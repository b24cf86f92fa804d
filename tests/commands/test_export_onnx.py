"""A finetuned classifier as one ONNX graph: the same probabilities, without torch; a stale graph is not used."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.models.export import Classifier, ExportedHead, save_finetuned
from metatrain.models.finetuned_folder import NONE

TEXTS = ["it broke", "works, well " * 60, "5,000 £ 你好", "!"]


def classifier(folder, pooling="mean", normalize=False, columns=None, threshold=None, prefix=""):
    """Write a classifier that was not trained."""
    torch.manual_seed(0)
    encoder, _ = load_encoder(ModelConfig(name="tiny", max_length=32, pooling=pooling, normalize=normalize, prefix=prefix), second_order=False)
    head = {"head.weight": torch.randn(3, encoder.hidden_size), "head.bias": torch.zeros(3)}
    folder.mkdir()
    save_finetuned(folder, encoder, head, ["bad", "fair", "good"], threshold, columns or {"text": "text"})
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model directory with its graph; not to be changed by tests."""
    from metatrain.commands.export import real_texts
    from metatrain.models.onnx_export import export_graph

    model = classifier(tmp_path_factory.mktemp("exported") / "m", normalize=True, prefix="a text: ")
    (model / "onnx").mkdir()
    check = export_graph(model, model / "onnx", None, real_texts(pairs=False))
    assert check.texts > 150 and check.difference <= 1e-4 and check.agreement == 1
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


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "normalize"), [("first", False), ("cls", True), ("last", False)])
def test_every_pooling(cli, tmp_path, pooling, normalize):
    classifier(tmp_path / "m", pooling, normalize)
    found = cli("export", "model=m")
    assert found.code == 0 and "same label for 100.0% of the texts" in found.out, found.err
    assert cli("predict", "model=m", "text=it broke").err == ""  # the graph is not stale


@pytest.mark.slow
def test_pairs_out_of_scope_and_int8(cli, tmp_path):
    model = classifier(tmp_path / "m", columns={"text": "text", "pair": "other"}, threshold=100.0)
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
