"""`metatrain finetune`: adapt a checkpoint to a new task from a few labelled examples, and write a model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import DataConfig, FinetuneConfig, Overrides

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from metatrain.gradient.parameters import Parameters
    from metatrain.meta.learner import Learner
    from metatrain.tasks.episodes import Episode
    from metatrain.tasks.files import Table
    from metatrain.tracking.console import Display


USAGE = """\
usage: metatrain finetune checkpoint=RUN|latest|MODEL data.train=FILE [data.test=FILE] [SETTING=VALUE ...]

Adapt a meta-trained model, or any Hugging Face encoder, to the labels in a file with the columns text and label (csv, tsv, jsonl, parquet,
or .gz), and write a model directory that loads without metatrain. A meta-trained model adapts as in meta-training. For a plain encoder, a
head is fitted to the examples and compared with logistic regression. Image models read a folder, LABEL/FILE.

examples:
  metatrain finetune checkpoint=latest data.train=examples.csv data.test=held_out.csv
  metatrain finetune checkpoint=minilm data.train=examples.csv
"""
SHOWN = (
    "checkpoint",
    "data.train",
    "data.test",
    "data.text",
    "data.label",
    "data.pair",
    "data.target",
    "oos_false_rejection_rate",
    "algorithm.name",
    "inner.fit_head",
    "inner.fit_encoder",
    "inner.steps",
    "inner.lr",
    "hardware.device",
    "report",
)
_MANY = 32  # examples per class from which adapting the whole encoder may pay off


@dataclass(frozen=True)
class Examples:
    """Examples of the training and test files."""

    episode: Episode  # the training examples as support set, the test examples as queries
    tested: bool
    strangers: Sequence[str]  # out-of-scope test texts; only with `none_of_these`
    num_seen: int  # number of test texts that also occur in training
    held_out: bool  # True: they are excluded from the test; not if training has all of its texts


@dataclass(frozen=True)
class Adaptation:
    """Result of the adaptation to the examples."""

    parameters: Parameters
    results: dict[str, Any]  # contents of results.json
    threshold: float | None  # threshold of the highest logit; below it, a text is out of scope
    context: np.ndarray | None  # token ids that a language model reads before every text
    analysis: dict[str, Any]  # of the test, if there is one of labels: analysis.json


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's."""
    run_under_hydra("finetune", arguments, FinetuneConfig, start)


def start(config: FinetuneConfig, path: Path, overrides: list[str]) -> None:
    """Adapt, test if there is a test file, and write `path/model`."""
    from metatrain.checkpoints.adaptation import check_none_of_these
    from metatrain.checkpoints.opening import open_checkpoint
    from metatrain.evaluation.protocol import check_answers
    from metatrain.models.export import save_finetuned
    from metatrain.report.page import write_report
    from metatrain.run import hardware
    from metatrain.run.atomic import atomic_directory, write_json
    from metatrain.run.directory import RunDirectory, recorded
    from metatrain.run.hints import shown, typed_setting
    from metatrain.run.latest import pin
    from metatrain.tasks.label_names import unread_note
    from metatrain.tracking.console import Display
    from metatrain.tracking.model_card import finetuned_card
    from metatrain.training.memory_limit import fit_adaptation
    from metatrain.version import __version__

    RunDirectory.check_new(path, "finetune")
    overrides = pin(config, overrides, "checkpoint")
    with Display() as display:
        examples = _read(config.data, config.oos_false_rejection_rate is not None, display.say)
        task = examples.episode.task
        device, dtype, notes = hardware.apply(config.hardware)
        for note in notes:
            display.say(note)
        settings = Overrides(config.algorithm, config.inner, config.model)
        learner = open_checkpoint(config.checkpoint, settings, device, dtype, display.say).learner
        tokens = learner.model.tokens()
        tokens.check([task])
        for note in tokens.notes([task]):
            display.say(note)
        check_answers([task], learner.algorithm, scored=examples.tested)
        check_none_of_these(config.oos_false_rejection_rate, learner)
        if learner.algorithm.label_names and (unread := unread_note([(config.data.train, task.label_names)])):
            display.say(f"warning: {unread}")
        learner = learner.with_plan(fit_adaptation(config.hardware, learner, device))

        run = RunDirectory.create(path, config, overrides, "finetune")
        display.log_to(run.log)
        with recorded(run):
            labels = None if task.targets is not None else list(task.label_names)
            found = _adapt(learner, examples, config.oos_false_rejection_rate, display)
            results = {"format": 1, "labels": labels, **found.results}
            with atomic_directory(run.model) as folder:
                model = learner.functional.write_to_model(found.parameters)
                columns = {"text": config.data.text, **({"pair": config.data.pair} if config.data.pair else {})}
                kind = save_finetuned(folder, model, found.parameters, labels, found.threshold, None if task.of_images else columns, found.context)
                (folder / "README.md").write_text(finetuned_card(config.checkpoint, results, kind, config.seed, __version__), encoding="utf-8")
            write_json(run.results, results)
            if config.report:
                write_json(run.analysis, {"format": 1, **found.analysis})
                write_report(run.path, run.report, at_end=True)
            display.say(f"model: {shown(run.model)} (loads with {kind})")
            if config.report:
                display.say(f"report: {shown(run.report)}")
            what = "data=IMAGE" if task.of_images else "data=FILE" if config.data.pair else 'text="..."'
            display.say(f"next: metatrain predict {typed_setting('model', run.model)} {what}")


def _adapt(learner: Learner, examples: Examples, none: float | None, display: Display) -> Adaptation:
    """Adapt to the examples, and test."""
    import time

    from metatrain.checkpoints.adaptation import adapted_to
    from metatrain.commands.finetune_results import Adapted, cross_validation, held_out_results, logistic_regression, rejected_share, warn_of_loss
    from metatrain.meta.encoder_learner import EncoderLearner
    from metatrain.meta.language_learner import LanguageLearner
    from metatrain.models.generation import after_context
    from metatrain.tasks.encoded_episode import encode_episode

    episode, context = examples.episode, None
    tokens = learner.model.tokens()
    texts = encode_episode(episode, tokens)
    if isinstance(learner, LanguageLearner):
        context = learner.functional.context(texts)
        after_context(learner.model, context, texts.support)  # texts to come are about as long: what does not fit is said now
    begin = time.perf_counter()
    parameters, loss, fit = adapted_to(learner, texts, display)
    seconds = time.perf_counter() - begin
    steps, number = learner.steps(evaluation=True), len(episode.support)
    what = f"{number} examples" + (f" of {episode.way} classes" if episode.task.targets is None else "")
    if context is not None and len(context):
        display.say(f"{what}, {len(context)} tokens, form the context of every text; no parameter adapts")
    elif fit is not None:
        display.say(f"fitted to {what} in {seconds:.1f} s (training loss {loss:.3f})")
    else:
        display.say(f"adapted to {what} in {seconds:.1f} s ({f'{steps} inner steps, last loss {loss:.3f}' if steps else 'no inner steps'})")
    results: dict[str, Any] = {"examples": number, "steps": steps, "seconds": round(seconds, 3)}
    beside = None
    if fit is not None:
        results.update(cross_validation(fit, texts.support_labels, display.say))
    if isinstance(learner, EncoderLearner):
        warn_of_loss(loss, episode.way, learner, display.say)
        beside = logistic_regression(learner, fit, texts, display)
        if beside.cross_validated is not None:
            display.say(f"logistic regression on the same encodings, cross-validated accuracy: {beside.cross_validated:.3f}")
            results["logistic_regression"] = {"cross_validation": beside.cross_validated}
        names = fit.names if fit is not None else learner.choose_names(texts)
        if names is not None:
            display.say(f"label names are {'used as an extra example of each class' if names.read else 'not used'}: {names.why}")
            results["names"] = {"read": names.read, "why": names.why}
    if fit is not None and not learner.inner.fit_encoder and number >= _MANY * episode.way:
        display.say(f"with {_MANY} or more examples per class, inner.fit_encoder=true may be more accurate: it trains the whole encoder on them, in minutes")
    kind = "held-out" if examples.held_out else "training"
    adapted = Adapted(learner, parameters, episode, texts, None if fit is None or none is None else fit.threshold(none), kind)
    analysis: dict[str, Any] = {}
    if examples.tested:
        results["test"], analysis = held_out_results(adapted, beside, display)
        results["test"].update(held_out=examples.held_out, also_in_training=examples.num_seen)
    if adapted.threshold is not None and examples.strangers:
        share = rejected_share(adapted, tokens.encode(examples.strangers), display)
        results.setdefault("test", {})["strangers"] = {"examples": len(examples.strangers), "found": share}
    return Adaptation(parameters, results, adapted.threshold, context, analysis)


def _read(data: DataConfig, strangers: bool, say: Callable[[str], None]) -> Examples:
    """Read the files and report remarks about them; with `strangers`, set test rows with other labels aside as out of scope."""
    import numpy as np

    from metatrain.checkpoints.adaptation import check_no_label_is_none
    from metatrain.errors import UserError
    from metatrain.evaluation.text_scores import check_score
    from metatrain.paths import local_path
    from metatrain.tasks.episodes import given_episode
    from metatrain.tasks.files import Columns, read_file
    from metatrain.tasks.sources import images_of

    columns = Columns(data.text, data.label, pair=data.pair, target=data.target)

    def read(setting: str, name: str) -> Table:
        where = local_path(name)
        table = images_of(where, setting) if where.is_dir() else read_file(where, columns)
        for note in table.notes:
            say(note)
        return table

    if data.target:
        check_score(data.score, "data.score", computed=data.test is not None)
    train = read("data.train", data.train)
    names = ["text"] if data.target else sorted(set(train.labels))
    if not data.target:
        if len(names) < 2:
            raise UserError(f"{train.source}: only one class ({names[0]!r}); a classifier needs examples of at least two")
        if strangers:
            check_no_label_is_none(names, train.source)
    rows, seen = (
        ([], np.zeros(0, dtype=bool))
        if data.test is None
        else _test_rows(train, read("data.test", data.test), None if data.target or strangers else names, say)
    )
    known = [(text, answer) for text, answer in rows if data.target or answer in names]
    aside = [text for text, answer in rows if not data.target and answer not in names]
    texts, answers = [*train.texts, *(text for text, _ in known)], [*train.labels, *(answer for _, answer in known)]
    return Examples(
        given_episode(texts, answers, len(train.texts), data.score if data.target else None),
        bool(known),
        aside,
        int(seen.sum()),
        not seen.all() or not len(seen),
    )


def _test_rows(train: Table, test: Table, labels: Sequence[str] | None, say: Callable[[str], None]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """((text, answer) of the test rows, without those that training has too, unless it has all; which it has, shape [all test rows]).

    labels: those that they may have; None: any.

    Raises:
        UserError: a row has another label.
    """
    from metatrain.errors import UserError
    from metatrain.tasks.audit import seen_rows
    from metatrain.tasks.files import line_of
    from metatrain.tasks.texts import is_image, path_of

    for row, (text, label) in enumerate(zip(test.texts, test.labels)):
        if labels is not None and label not in labels:
            place = path_of(text) if is_image(text) else f"{test.source}:{line_of(Path(test.source), row)}"
            remedy = "use the same labels in both files, or set oos_false_rejection_rate=0.05 to treat texts with other labels as out of scope"
            raise UserError(f"{place}: label {label!r} is not in the training examples; their labels are {', '.join(labels)}; {remedy}")
    seen, warnings = seen_rows(train, test)
    for warning in warnings:
        say(warning)
    rows = [(text, answer) for text, answer, is_seen in zip(test.texts, test.labels, seen) if seen.all() or not is_seen]
    return rows, seen
