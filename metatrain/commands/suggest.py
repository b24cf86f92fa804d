"""`metatrain suggest`: unlabelled texts, ranked by what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.commands.effects import effects_of_use
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import SuggestConfig

if TYPE_CHECKING:
    import numpy as np

    from metatrain.tasks.files import Table
    from metatrain.tasks.unlabelled import Unlabelled
    from metatrain.tracking.console import Display

USAGE = """\
usage: metatrain suggest data=TEXTS labelled=FILE|model=DIR [n=10] [output=FILE] [SETTING=VALUE ...]

Rank unlabelled texts by what to label next: texts between two classes, and among them some that differ from each other. labelled=FILE fits a head
to the examples so far; model=DIR takes the predictions of a model of `metatrain finetune`. Writes all rows with all columns: the first n are one
round of labelling, chosen together; then those the model is least sure of. Added are rank, suggested_label, its probability and reason.

examples:
  metatrain suggest data=texts.csv labelled=examples.csv
  metatrain suggest data=texts.csv labelled=examples.csv n=20 output=next.xlsx
"""
SHOWN = ("data", "labelled", "model.path", "n", "checkpoint", "column", "pair", "label", "output", "hardware.device")
_DEFAULT = "suggested.csv"
_PRINTED = 10  # texts of the next round that are printed


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("suggest", arguments, SuggestConfig, start, effects=effects_of_use)


def start(config: SuggestConfig, path: Path, overrides: list[str]) -> None:
    """Rank the texts, write the table and print the first."""
    from metatrain.commands.labelling import new_output, write_rows
    from metatrain.errors import UserError
    from metatrain.evaluation.suggestion import choose
    from metatrain.tasks.texts import beginning
    from metatrain.tracking.console import Display

    if (config.model.path is None) == (config.labelled is None):
        raise UserError("give either labelled=FILE, the examples labelled so far, or model=DIR, a model of metatrain finetune")
    if config.n < 1:
        raise UserError(f"n={config.n} must be 1 or more")
    with Display() as display:
        texts = _read(config, display)
        output = new_output(config.output, _DEFAULT, [config.data, config.labelled], len(texts.rows))
        pool, reasons = _pool(texts)
        if not pool:
            raise UserError(f"data={config.data}: no text is left to label; the first one: {reasons[0]}")
        found = _of_examples(config, texts, pool, display) if texts.labelled is not None else _of_model(config, texts, pool, display)
        number = min(config.n, len(pool))
        order = choose(found.encodings, found.probabilities, number, config.seed)
        ranked = [pool[place] for place in order]
        added: dict[int, dict[str, Any]] = {}
        for rank, (row, place) in enumerate(zip(ranked, order), start=1):
            (first, probability), (second, _) = found.best(place)
            added[row] = {"rank": rank, "suggested_label": first, "probability": round(probability, 4)}
            reasons[row] = f"between {first} and {second}" if rank <= number else None
        ranked += [row for row in range(len(texts.rows)) if row not in added]
        nothing = {"rank": None, "suggested_label": None, "probability": None}
        write_rows(output, [texts.rows[row] for row in ranked], [added.get(row, nothing) for row in ranked], [reasons[row] for row in ranked])
        for row in ranked[: min(number, _PRINTED)]:
            display.say(f"  {beginning(texts.rows[row].text)} ({reasons[row]})")
        left_out = len(texts.rows) - len(pool)
        more = f"; {left_out} at the end need no label or cannot be read" if left_out else ""
        display.say(f"{output}: {len(texts.rows)} rows, the {number} to label next first{more}")


@dataclass(frozen=True)
class _Texts:
    """The unlabelled rows, and the examples so far."""

    rows: list[Unlabelled]
    labelled: Table | None


@dataclass(frozen=True)
class _Found:
    """Predictions for unlabelled texts."""

    names: Sequence[str]  # label names
    probabilities: np.ndarray  # [texts, labels]
    encodings: np.ndarray  # [texts, H]

    def best(self, place: int) -> list[tuple[str, float]]:
        """Return the two most probable labels of a text, with their probabilities."""
        return [(self.names[label], float(self.probabilities[place, label])) for label in self.probabilities[place].argsort()[::-1][:2].tolist()]


def _read(config: SuggestConfig, display: Display) -> _Texts:
    """Read the unlabelled rows and the examples so far. Raises: UserError: one of them cannot be read."""
    from metatrain.commands.labelling import read_labelled_texts, read_unlabelled
    from metatrain.models.finetuned_folder import finetuned_folder, read_facts
    from metatrain.tasks.files import Columns

    of_model = {} if config.model.path is None else read_facts(finetuned_folder(_run(config))).get("columns", {})
    columns = Columns(config.column or of_model.get("text", "text"), pair=config.pair or of_model.get("pair"))
    guessed = {} if config.column else {"text": "column"}
    labelled = None
    if config.labelled is not None:
        also = {**guessed, **({"label": "label"} if config.label == "label" else {})}
        labelled, read = read_labelled_texts(config.labelled, "labelled", Columns(columns.text, config.label, pair=columns.pair), also, display.say)
        columns = Columns(columns.text, pair=read.pair)
    return _Texts(read_unlabelled(config.data, columns, guessed, display.say), labelled)


def _run(config: SuggestConfig) -> Path:
    from metatrain.run.directory import RunDirectory

    assert config.model.path is not None  # the caller has looked
    return RunDirectory.find("latest", "finetune").path if config.model.path == "latest" else Path(config.model.path)


def _pool(texts: _Texts) -> tuple[list[int], list[str | None]]:
    """Return the rows that need a label, and why each other row does not."""
    from metatrain.tasks.keys import near_key

    first: dict[int, str] = {} if texts.labelled is None else {near_key(text, None): "its words are labelled already" for text in texts.labelled.texts}
    reasons: list[str | None] = []
    for row in texts.rows:
        key = near_key(row.text, None)
        reasons.append(row.problem or first.get(key))
        if row.problem is None:
            first.setdefault(key, "has the words of another row")
    return [row for row, why in enumerate(reasons) if why is None], reasons


def _of_examples(config: SuggestConfig, texts: _Texts, pool: list[int], display: Display) -> _Found:
    """Return the predictions of a head fitted to the examples so far. Raises: UserError: the checkpoint cannot be opened."""
    from metatrain.commands.labelling import open_head
    from metatrain.evaluation.held_out_head import predicted

    assert texts.labelled is not None  # the caller has looked
    learner = open_head(config.checkpoint, texts.labelled, config.hardware, config.seed, display.say)
    chosen = [texts.rows[row].text for row in pool]
    return _Found(sorted(set(texts.labelled.labels)), *predicted(learner, texts.labelled.texts, texts.labelled.labels, chosen, config.seed, display))


def _of_model(config: SuggestConfig, texts: _Texts, pool: list[int], display: Display) -> _Found:
    """Return the predictions of a finetuned model. Raises: UserError: the model cannot be read, or has no labels or encodings."""
    from metatrain.commands.labelling import open_encoder
    from metatrain.errors import UserError
    from metatrain.evaluation.held_out_head import encoded
    from metatrain.models.finetuned import load_finetuned
    from metatrain.models.finetuned_folder import finetuned_folder, read_facts
    from metatrain.models.targets import check_one_label
    from metatrain.run import hardware

    folder = finetuned_folder(_run(config))
    check_one_label(read_facts(folder), "metatrain suggest")
    device, _, notes = hardware.apply(config.hardware)
    for note in notes:
        display.say(note)
    model = load_finetuned(folder, device)
    if model.labels is None or model.of_images:
        raise UserError(f"model={config.model.path} does not classify texts; give a text classifier of metatrain finetune")
    chosen = [texts.rows[row].text for row in pool]
    probabilities = model.scores(chosen).double().softmax(1).numpy()
    return _Found(model.labels, probabilities, encoded(open_encoder(str(folder), config.hardware, display.say), chosen, display))
