"""Runtimes that compute predictions: torch, or the graph that `metatrain export` has written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metatrain.errors import UserError
from metatrain.models.onnx_classifier import FOLDERS, OnnxClassifier, is_installed, stale_file
from metatrain.run.config import HardwareConfig
from metatrain.run.hints import typed_setting
from metatrain.run.threads import threads_of

RUNTIMES = ("auto", "torch", *FOLDERS)


def check_runtime(runtime: str, hardware: HardwareConfig) -> None:
    """Raises: UserError: the runtime is unknown, or the hardware settings are not for it."""
    if runtime not in RUNTIMES:
        raise UserError(f"runtime={runtime} is unknown; choose one of {', '.join(RUNTIMES)}")
    if runtime in FOLDERS and (unfit := _unfit(hardware)):
        raise UserError(f"runtime={runtime} runs on the CPU in float32, and {unfit}; choose runtime=torch, or leave {unfit.partition('=')[0]} out")


def open_graph(folder: Path, runtime: str, hardware: HardwareConfig, notes: list[str]) -> OnnxClassifier | None:
    """Return the exported graph of a model directory; None: torch computes the predictions, and `notes` gets the reason if there is a graph.

    Raises:
        UserError: the graph that `runtime` names is missing, stale or cannot be read.
    """
    if runtime == "torch" or (runtime == "auto" and _unfit(hardware)):
        return None
    name = FOLDERS["onnx" if runtime == "auto" else runtime]
    problem = next(_problems(folder, name), None)
    if problem is None:
        return OnnxClassifier(folder / name, threads_of(hardware))
    if runtime != "auto":
        raise UserError(f"runtime={runtime}: {problem}")
    if (folder / name).is_dir():
        notes.append(f"{problem}; predicting with torch")
    return None


def _unfit(hardware: HardwareConfig) -> str | None:
    """Return the hardware setting that needs torch; None: there is none."""
    if hardware.device not in ("auto", "cpu"):
        return f"hardware.device={hardware.device}"
    return None if hardware.precision == "float32" else f"hardware.precision={hardware.precision}"


def _problems(folder: Path, name: str) -> Iterator[str]:
    """Yield why the graph in the subfolder `name` of a model directory cannot be used."""
    graph, again = folder / name, f"metatrain export {typed_setting('model', folder)}{' quantize=int8' if name == FOLDERS['onnx_int8'] else ''}"
    if not graph.is_dir():
        yield f"{graph} does not exist; write it with: {again}"
    elif not is_installed():
        yield f"{graph} needs onnxruntime, which is not installed; run: pip install 'metatrain-nlp[onnx]'"
    elif (file := stale_file(folder, name)) is not None:
        yield f"{graph} is stale: it was made from another {file}; write it again with: {again}"
