"""`metatrain predict`: labels or answers for one text, or for every text of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import PredictConfig


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("predict", arguments, PredictConfig, start)


def start(config: PredictConfig, path: Path, overrides: list[str]) -> None:
    """Print a line per label for a text, or the answer; a JSON line per text for a file."""
    from metatrain.errors import UserError
    from metatrain.models.export import Classifier
    from metatrain.models.writer import TASK, Writer
    from metatrain.tasks.files import Columns, read_file
    from metatrain.tasks.texts import PAIR, plain
    from metatrain.training import hardware
    from metatrain.training.run_directory import RunDirectory, write_text

    if (config.text is None) == (config.data is None):
        raise UserError('give either text="..." or data=FILE')
    columns = Columns(config.column, pair=config.pair)
    texts = [plain(config.text)] if config.text is not None else read_file(Path(config.data).expanduser(), columns).texts
    device, _, _ = hardware.apply(config.hardware)
    path = config.model.path
    folder = RunDirectory.find(path, "finetune").path if path == "latest" else Path(path).expanduser()
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    model = Writer(folder, device) if (folder / TASK).is_file() else Classifier(folder, device)
    if model.labels is None:
        answers = [{"answer": answer} for answer in model.answers(texts)]
        shown = answers[0]["answer"]
    else:
        probabilities = model.probabilities(texts)
        best = probabilities.argmax(1).tolist()
        answers = [{"label": model.labels[one], "probability": round(float(row[one]), 6)} for row, one in zip(probabilities, best)]
        ranked = sorted(zip(probabilities[0].tolist(), model.labels), reverse=True)
        shown = "\n".join(f"{label}\t{value:.4f}" for value, label in ranked)
    if config.text is not None:
        print(shown)
        return
    lines = [json.dumps({**dict(zip(("text", "pair"), text.split(PAIR))), **answer}, ensure_ascii=False) for text, answer in zip(texts, answers)]
    content = "\n".join(lines) + "\n"
    if config.output is None:
        sys.stdout.write(content)
    else:
        write_text(Path(config.output).expanduser(), content)
        print(f"{len(lines)} predictions: {config.output}")
