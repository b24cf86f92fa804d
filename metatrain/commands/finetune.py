"""`metatrain finetune`: adapt a checkpoint to a new task from a few labelled examples, and write a model directory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from metatrain.commands.effects import check_adaptation, effects_of_use
from metatrain.config.compose import is_of_grid, run_under_hydra
from metatrain.config.overrides import override_of_list
from metatrain.config.schema import FinetuneConfig

if TYPE_CHECKING:
    from metatrain.commands.finetune_kinds import OneLabel
    from metatrain.commands.finetune_parts import Outcome
    from metatrain.run.directory import RunDirectory
    from metatrain.tracking.console import Display
    from metatrain.tracking.weights_and_biases import Tracker


USAGE = """\
usage: metatrain finetune data.train=FILE [data.test=FILE] [checkpoint=RUN|latest|MODEL] [SETTING=VALUE ...]

Adapt a meta-trained model (default: everyday, in the package), or any Hugging Face encoder, to the labels in a file with the columns text and label
(csv, tsv, jsonl, parquet, xlsx, or .gz; other columns are found as by `metatrain tasks add`), or in a folder of text files, LABEL/FILE.txt, and write
a model directory that loads without metatrain. A meta-trained model adapts as in meta-training. everyday, and a plain encoder, adapt their last
layers by leave-one-out steps, then a head is fitted; a plain encoder with algorithm=recommended only fits the head. Either is compared with logistic
regression. Image models read a folder, LABEL/FILE. checkpoint=[A,B] compares several models to start from, and cross-validation chooses one.
data.kind=labels reads several labels per text (multi-label), data.kind=number numbers or ordered labels (stars, scores); both fit heads to the frozen
encoder. A language model finetuned by LoRA (data.target=COLUMN) is written as an adapter, or whole with export=merged. With data.unlabelled=FILE
(texts without labels), the head also learns from these texts if that helps.

examples:
  metatrain finetune data.train=examples.csv
  metatrain finetune checkpoint=latest data.train=examples.csv data.test=held_out.csv
  metatrain finetune checkpoint=minilm algorithm=recommended data.train=examples.csv
  metatrain finetune checkpoint=[everyday,minilm] data.train=examples.csv
  metatrain finetune data.train=tagged.csv data.kind=labels data.label=tags "data.label_separator=';'"
  metatrain finetune data.train=examples.csv data.unlabelled=texts.csv
  metatrain finetune data.train=reviews.csv data.kind=number data.label=stars
"""
SHOWN = (
    "checkpoint",
    "data.train",
    "data.test",
    "data.unlabelled",
    "data.text",
    "data.label",
    "data.kind",
    "data.label_separator",
    "data.label_columns",
    "data.label_descriptions",
    "data.order",
    "data.pair",
    "data.target",
    "data.priors",
    "data.class_weights",
    "oos_false_rejection_rate",
    "algorithm.name",
    "inner.fit_head",
    "inner.fit_encoder",
    "inner.budget",
    "inner.steps",
    "inner.lr",
    "hardware.device",
    "tracking.mode",
    "export",
    "report",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("finetune", arguments, FinetuneConfig, start, effects=effects_of_use)


def start(config: FinetuneConfig, path: Path, overrides: list[str]) -> None:
    """Adapt, test if there is a test file, and write `path/model`."""
    from metatrain.commands.finetune_bases import bases_of
    from metatrain.commands.finetune_kinds import OneLabel, kind_of
    from metatrain.commands.trackers import open_tracker
    from metatrain.run.directory import RunDirectory, recorded
    from metatrain.run.latest import latest, pin, pinned
    from metatrain.tracking.console import Display
    from metatrain.tracking.weights_and_biases import check_tracking

    RunDirectory.check_new(path, "finetune")
    check_tracking(config.tracking)
    is_given = any(item.lstrip("+").startswith("checkpoint=") for item in overrides)
    bases = bases_of(config)
    if len(bases) == 1:
        config = replace(config, checkpoint=bases[0])
        overrides = pin(config, overrides, "checkpoint")
    else:
        bases = [pinned(each) for each in bases]
        config = replace(config, checkpoint=bases)
        overrides = [override_of_list("checkpoint", bases) if item.lstrip("+").partition("=")[0] == "checkpoint" else item for item in overrides]
    with Display() as display:
        if not is_given:
            other = "; checkpoint=latest adapts your newest run of metatrain train" if latest("train").exists() else ""
            display.say(f"checkpoint: {config.checkpoint}, since none is given{other}")
        kind = kind_of(config)(config, display.say)
        if isinstance(kind, OneLabel) and len(bases) > 1:
            _compare_bases(config, path, overrides, kind, display)
            return
        learner = kind.open(display.say)
        for note in check_adaptation(config, overrides, learner, refuse=not is_of_grid()):
            display.say(note)
        run = RunDirectory.create(path, config, overrides, "finetune")
        display.log_to(run.log)
        with recorded(run), closing(open_tracker(config, run, display.say)) as tracker:
            _write(run, config, kind.adapt_and_test(learner, display), display, tracker)


def _compare_bases(config: FinetuneConfig, path: Path, overrides: list[str], kind: OneLabel, display: Display) -> None:
    """Adapt each of several bases, and write the model of the chosen one."""
    from metatrain.commands.finetune_bases import choose_base, open_bases
    from metatrain.commands.trackers import open_tracker
    from metatrain.run.directory import RunDirectory, recorded

    bases = open_bases(config, overrides, kind.examples, is_single=not is_of_grid())
    run = RunDirectory.create(path, config, overrides, "finetune")
    display.log_to(run.log)
    with recorded(run), closing(open_tracker(config, run, display.say)) as tracker:
        chosen = choose_base(config, bases, kind.examples, kind.balance, display)
        found = kind.outcome(chosen.learner, chosen.adaptation, display)
        _write(run, chosen.config, replace(found, results={**found.results, **chosen.results}), display, tracker)


def _write(run: RunDirectory, config: FinetuneConfig, found: Outcome, display: Display, tracker: Tracker) -> None:
    """Write the model directory, results.json and the report, hand them to the tracker, and print where they are."""
    from metatrain.commands.trackers import numbers_of
    from metatrain.models.peft_export import read_base
    from metatrain.report.page import attached, write_report
    from metatrain.run.atomic import atomic_directory, write_json
    from metatrain.run.hints import shown, typed_setting
    from metatrain.tracking.model_card import finetuned_card
    from metatrain.version import __version__

    results = {"format": 1, "labels": found.labels, **found.results}
    with atomic_directory(run.model) as folder:
        library = found.write(folder)
        base = read_base(folder)
        card = finetuned_card(config.checkpoint, results, library, config.seed, __version__, found.of_images, None if base is None else base.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
    write_json(run.results, results)
    if config.report:
        write_json(run.analysis, {"format": 1, **found.analysis})
        write_report(run.path, run.report, at_end=True)
    if tracker.is_on:
        files = attached(run.path, run.report if config.report else None, run.model if config.tracking.log_model else None)
        tracker.finish(numbers_of(found.results), files)
    display.say(f"model: {shown(run.model)} (loads with {library})")
    if config.report:
        display.say(f"report: {shown(run.report)}")
    what = "data=IMAGE" if found.of_images else "data=FILE" if found.of_pairs else 'text="..."'
    display.say(f"next: metatrain predict {typed_setting('model', run.model)} {what}")
