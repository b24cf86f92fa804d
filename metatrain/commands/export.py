"""`metatrain export`: write a finetuned classifier as one ONNX graph, which runs without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import ExportConfig

USAGE = """\
usage: metatrain export model=DIR|latest [format=onnx] [quantize=int8]

Write a model of texts from `metatrain finetune` as one ONNX graph (encoder, pooling, normalisation, head, temperature) from token ids to
probabilities, also of several labels a text, or to numbers, to onnx/ (quantize=int8: onnx_int8/) in its model directory, with its tokenizer.json and
classifier.json. The graph is compared with the model on real texts. It runs with onnxruntime and tokenizers, without torch, and `metatrain predict`
uses it where it is present. Needs the extra `onnx`.

examples:
  metatrain export model=latest
  metatrain export model=latest quantize=int8
"""
SHOWN = ("model.path", "format", "quantize")
FORMATS, QUANTIZATIONS = ("onnx",), ("int8",)
_TEXTS, _JOINED = 200, 20  # number of texts compared; number of them that are joined to one that is truncated


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("export", arguments, ExportConfig, start, effects=effects_of_use)


def start(config: ExportConfig, path: Path, overrides: list[str]) -> None:
    """Write the graph, compare it with the model, and print the comparison."""
    from metatrain.errors import UserError
    from metatrain.models.finetuned_folder import finetuned_folder, read_facts
    from metatrain.models.onnx_classifier import FOLDERS
    from metatrain.plugins import check_installed
    from metatrain.run.atomic import atomic_directory
    from metatrain.run.directory import RunDirectory
    from metatrain.run.hints import shown

    for key, value, known in (("format", config.format, FORMATS), ("quantize", config.quantize, (None, *QUANTIZATIONS))):
        if value not in known:
            raise UserError(f"{key}={value} is unknown; choose {' or '.join(each or 'null' for each in known)}")
    for module in ("onnx", "onnxscript", "onnxruntime"):
        check_installed("metatrain export", module, "onnx")
    name = config.model.path
    model = finetuned_folder(RunDirectory.find(name, "finetune").path if name == "latest" else Path(name))
    from metatrain.models.onnx_export import check_exportable, export_graph

    check_exportable(model)
    folder = model / FOLDERS["onnx" if config.quantize is None else "onnx_int8"]
    with atomic_directory(folder) as temporary:
        check = export_graph(model, temporary, config.quantize, real_texts("pair" in read_facts(model).get("columns", {})))
    size = sum(each.stat().st_size for each in folder.iterdir()) / 1e6
    print(f"compared with the model on {check.texts} texts: {check}")
    print(f"graph: {shown(folder)} ({size:.1f} MB; metatrain predict uses it{'' if config.quantize is None else ' with runtime=onnx_int8'})")


def real_texts(pairs: bool) -> Sequence[str]:
    """Return packaged reviews, short ones, long ones and odd ones; pairs: two texts each."""
    import json

    from metatrain.tasks.embedded import embedded_path
    from metatrain.tasks.texts import PAIR

    lines = embedded_path("metatrain:reviews").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[:: max(1, len(lines) // _TEXTS)]]
    texts += [" ".join(texts[:_JOINED]), "", "!", "5,000 £ \U0001f600 żółć 你好"]
    return [f"{text}{PAIR}{other}" for text, other in zip(texts, reversed(texts))] if pairs else texts
