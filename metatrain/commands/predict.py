"""`metatrain predict`: labels for one text, or for every text of a file."""

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
    """Print a line per label for a text, a JSON line per text for a file."""
    from metatrain.errors import UserError
    from metatrain.models.export import Classifier
    from metatrain.tasks.files import Columns, read_file
    from metatrain.training import hardware
    from metatrain.training.run_directory import RunDirectory, write_text

    if (config.text is None) == (config.data is None):
        raise UserError('give either text="..." or data=FILE')
    texts = [config.text] if config.text is not None else read_file(Path(config.data).expanduser(), Columns(config.column)).texts
    device, _, _ = hardware.apply(config.hardware)
    path = config.model.path
    folder = RunDirectory.find(path, "finetune").path if path == "latest" else Path(path).expanduser()
    if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    classifier = Classifier(folder, device)
    probabilities = classifier.probabilities(texts)
    if config.text is not None:
        for value, label in sorted(zip(probabilities[0].tolist(), classifier.labels), reverse=True):
            print(f"{label}\t{value:.4f}")
        return
    lines = []
    for text, row in zip(texts, probabilities):
        best = int(row.argmax())
        lines.append(json.dumps({"text": text, "label": classifier.labels[best], "probability": round(float(row[best]), 6)}, ensure_ascii=False))
    content = "\n".join(lines) + "\n"
    if config.output is None:
        sys.stdout.write(content)
    else:
        write_text(Path(config.output).expanduser(), content)
        print(f"{len(lines)} predictions: {config.output}")
