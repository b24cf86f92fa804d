"""Compare metatrain with other tools on a few examples a class: python scripts/benchmark/tools.py SET ... [--shots 8] [--draws 3] [--python PYTHON]

Each SET is a folder of METATRAIN_DATA with train.jsonl and test.jsonl. A draw is a support set of `--shots` training rows of each class; all tools
learn from the same support sets, on MiniLM in one local directory without a network, and predict the same 300 test rows, drawn once. Each tool runs in
a process of its own, on one thread:

- scikit-learn: logistic regression on the encodings of sentence-transformers, C from 0.1 to 1000 by cross-validation (log loss);
- setfit: all settings the library's defaults, without a limit on its updates (batches of 16 pairs, one epoch of oversampled pairs);
- autointent: preset classic-light (20 trials), 3-fold cross-validation, since its default holds out a fifth of a few examples;
- adaptive-classifier: defaults but for use_onnx=False, which needs no export;
- metatrain: FewShotClassifier, the same as `metatrain finetune`, on MiniLM and on `everyday`.

Seconds are those of the process on the processor, from the texts to a model that can predict, with reading the encoder from disk, without imports (a
small task comes first) and without predicting. A tool that is not installed is named and left out. Those that need other versions of libraries than
metatrain stand in an environment of their own, whose interpreter is `--python` (torch first, else several gigabytes of CUDA are installed):

    python3 -m venv /tmp/tools
    /tmp/tools/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    /tmp/tools/bin/pip install adaptive-classifier==0.3.1 "autointent[sentence-transformers]==0.4.0"

`--results FILE` keeps what was measured, one JSON object a line; a further run measures only what the file does not have. Prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

TEST, POOL = 300, 5000  # rows of a set that are predicted, and from which support sets are drawn
TRIAL = 4  # examples of each of two classes in the small task that comes first


@dataclass(frozen=True)
class Episode:
    """A support set and the texts to predict."""

    name: str  # of the data set
    draw: int
    texts: list[str]
    labels: list[str]
    queries: list[str]


Fitted = Callable[[list[str]], Sequence[Any]]  # labels of texts


def scikit_learn(encoder: str, episode: Episode) -> Fitted:
    """Logistic regression on frozen encodings."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    model = SentenceTransformer(encoder, device="cpu")
    folds = min(5, min(episode.labels.count(label) for label in set(episode.labels)))
    head = GridSearchCV(LogisticRegression(max_iter=2000), {"C": [0.1, 1.0, 10.0, 100.0, 1000.0]}, scoring="neg_log_loss", cv=folds)
    head.fit(model.encode(episode.texts), episode.labels)
    return lambda texts: head.predict(model.encode(texts)).tolist()


def setfit(encoder: str, episode: Episode) -> Fitted:
    """Contrastive finetuning of the encoder, then logistic regression (Tunstall et al. 2022)."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(encoder, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(output_dir=folder, report_to="none", save_strategy="no", logging_strategy="no", show_progress_bar=False, seed=episode.draw)
        trainer = Trainer(model=model, args=settings, train_dataset=Dataset.from_dict({"text": episode.texts, "label": episode.labels}))
        trainer.train()
    return lambda texts: [str(label) for label in model.predict(texts, show_progress_bar=False)]


def autointent(encoder: str, episode: Episode) -> Fitted:
    """A search over classifiers on frozen encodings, and over decision rules."""
    from autointent import Dataset, Pipeline
    from autointent.configs import DataConfig, LoggingConfig, SentenceTransformerEmbeddingConfig

    names = sorted(set(episode.labels))
    rows = [{"utterance": text, "label": names.index(label)} for text, label in zip(episode.texts, episode.labels)]
    pipeline = Pipeline.from_preset("classic-light", seed=episode.draw + 1)  # which must not be 0
    pipeline.set_config(SentenceTransformerEmbeddingConfig(model_name=encoder, device="cpu"))
    pipeline.set_config(DataConfig(scheme="cv"))
    pipeline.set_config(LoggingConfig(project_dir=tempfile.mkdtemp()))
    pipeline.fit(Dataset.from_dict({"train": rows}))
    return lambda texts: [None if label is None else names[label] for label in pipeline.predict(texts)]


def adaptive_classifier(encoder: str, episode: Episode) -> Fitted:
    """Prototypes and a small network on frozen encodings."""
    from adaptive_classifier import SklearnAdaptiveClassifier

    fitted = SklearnAdaptiveClassifier(encoder, device="cpu", use_onnx=False).fit(episode.texts, episode.labels)
    return lambda texts: fitted.predict(texts).tolist()


def metatrain(encoder: str, episode: Episode) -> Fitted:
    """Leave-one-out steps on the last layers, then a fitted head."""
    from metatrain import FewShotClassifier

    fitted = FewShotClassifier(encoder, device="cpu", random_state=episode.draw).fit(episode.texts, episode.labels)
    return lambda texts: fitted.predict(texts).tolist()


def metatrain_everyday(encoder: str, episode: Episode) -> Fitted:
    """The same from the meta-trained base of the package."""
    return metatrain("everyday", episode)


# Name in the table -> function, module that has to be installed.
TOOLS: dict[str, tuple[Callable[[str, Episode], Fitted], str]] = {
    "scikit-learn": (scikit_learn, "sentence_transformers"),
    "adaptive-classifier": (adaptive_classifier, "adaptive_classifier"),
    "autointent": (autointent, "autointent"),
    "metatrain": (metatrain, "metatrain"),
    "metatrain, everyday": (metatrain_everyday, "metatrain"),
    "setfit": (setfit, "setfit"),
}
OURS = "metatrain"


def run_tool(name: str, encoder: str, episodes: Sequence[Episode], results: Path) -> None:
    """Add a line for each episode to the results: predictions and seconds."""
    import torch

    torch.set_num_threads(1)
    learn, _ = TOOLS[name]
    learn(encoder, _trial(episodes[0]))(episodes[0].queries[:2])
    for episode in episodes:
        begin = time.process_time()
        predict = learn(encoder, episode)
        seconds = time.process_time() - begin
        row = {"tool": name, "name": episode.name, "draw": episode.draw, "seconds": round(seconds, 3), "predictions": list(predict(episode.queries))}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _trial(episode: Episode) -> Episode:
    """Return a small task: a few examples of two classes."""
    rows = [row for label in sorted(set(episode.labels))[:2] for row in [row for row, each in enumerate(episode.labels) if each == label][:TRIAL]]
    return Episode("trial", 0, [episode.texts[row] for row in rows], [episode.labels[row] for row in rows], [])


def interpreter_of(module: str, pythons: Sequence[str]) -> str | None:
    """Return the first interpreter whose environment has a module."""
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return next((python for python in pythons if subprocess.run([python, "-c", script], check=False).returncode == 0), None)


def drawn(sets: Sequence[str], shots: int, draws: int) -> tuple[list[Episode], dict[str, list[str]]]:
    """Return the episodes, all sets of a draw before the next draw, and the labels of the test rows of each set."""
    from labelling import read

    rows = {name: read(name, POOL, TEST) for name in sets}
    episodes = []
    for draw in range(draws):
        for name, (train, test) in rows.items():
            rng = np.random.default_rng([draw, shots])
            order = rng.permutation(len(train.texts))
            chosen = [row for label in sorted(set(train.labels)) for row in [row for row in order if train.labels[row] == label][:shots]]
            support = train.at(rng.permutation(chosen))
            episodes.append(Episode(name, draw, support.texts, support.labels, test.texts))
    return episodes, {name: test.labels for name, (_, test) in rows.items()}


def measured(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the lines of the results by tool, set and draw."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(row["tool"], row["name"], row["draw"]): row for row in map(json.loads, lines)}


def table(found: dict[tuple[str, str, int], dict[str, Any]], labels: dict[str, list[str]], draws: int) -> None:
    """Print accuracy with 95% t intervals over draws, the difference of the mean from metatrain's on the same draws, and mean seconds."""
    from labelling import half_width

    def cell(values: np.ndarray, sign: str = "") -> str:
        return f"{values.mean():{sign}.1f}" + (f" ± {half_width(values):.1f}" if len(values) > 1 else "")

    ours: dict[int, float] = {}  # mean accuracy over the sets of each draw
    print(f"| tool | {' | '.join(labels)} | mean | difference from metatrain | seconds |\n|---|{'---|' * (len(labels) + 3)}")
    for tool in sorted(TOOLS, key=lambda name: name != OURS):
        complete = [draw for draw in range(draws) if all((tool, name, draw) in found for name in labels)]
        if not complete:
            continue
        rows = [[found[tool, name, draw] for name in labels] for draw in complete]
        values = np.array([[100 * np.mean(np.array(row["predictions"]) == labels[row["name"]]) for row in each] for each in rows])
        seconds = np.mean([row["seconds"] for each in rows for row in each])
        means = dict(zip(complete, values.mean(1).tolist()))
        ours = means if tool == OURS else ours
        paired = [mean - ours[draw] for draw, mean in means.items() if draw in ours]
        difference = cell(np.array(paired), "+") if paired and tool != OURS else ""
        shown = tool if len(complete) == draws else f"{tool} ({len(complete)} draws)"
        cells = [*(cell(of_set) for of_set in values.T), cell(values.mean(1)), difference, f"{seconds:.1f}"]
        print(f"| {shown} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--python", action="append", default=[], help="interpreter of an environment with further tools")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--results", type=Path, help="file of what was measured")
    parser.add_argument("--process", help=argparse.SUPPRESS)  # of one tool: a file with its episodes
    options = parser.parse_args()
    if options.process is not None:
        work = json.loads(Path(options.process).read_text(encoding="utf-8"))
        run_tool(work["tool"], work["encoder"], [Episode(**each) for each in work["episodes"]], Path(work["results"]))
        return
    from metatrain.models import minilm

    episodes, labels = drawn(options.sets, options.shots, options.draws)
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as temporary:
        results = (options.results or Path(temporary, "results.jsonl")).resolve()
        for tool in options.tools:
            before = measured(results)
            left = [episode for episode in episodes if (tool, episode.name, episode.draw) not in before]
            python = interpreter_of(TOOLS[tool][1], [sys.executable, *options.python])
            if python is None:
                print(f"{tool} is not installed; it is left out", file=sys.stderr)
            elif left:
                work = Path(temporary, "work.json")
                of_tool = {"tool": tool, "encoder": minilm.resolve()[0], "episodes": [asdict(each) for each in left], "results": str(results)}
                work.write_text(json.dumps(of_tool), encoding="utf-8")
                environment = {**os.environ, **one_thread, "XDG_CACHE_HOME": temporary}  # no encodings of an earlier run
                command = [python, str(Path(__file__).resolve()), "--process", str(work)]
                if subprocess.run(command, env=environment, cwd=temporary, stdout=sys.stderr, check=False).returncode:
                    print(f"{tool} failed; the table has what it finished", file=sys.stderr)
        table(measured(results), labels, options.draws)


if __name__ == "__main__":
    main()
