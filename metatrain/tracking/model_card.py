"""Model cards: training data, scores, cost and limitations of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from metatrain.tracking.console import mean_of, way_name

_SHOWN = 40  # maximum number of task or label names listed


@dataclass(frozen=True)
class DataSet:
    """A data set that a model was trained or chosen on."""

    name: str
    splits: tuple[str, ...]  # splits with tasks from it
    origin: str | None  # where it comes from; None: not stated
    licence: str | None  # None: not stated


def meta_trained_card(
    config: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    tasks: Mapping[str, Sequence[str]],
    data: Sequence[DataSet],
    updates: int,
    seconds: float,
    device: str,
    version: str,
) -> str:
    """Return the card of a meta-trained model, README.md of its directory.

    config: settings of `train`; results: results.json, None: there was no meta-test; tasks: names of the tasks of each split; data: the data sets of
    meta-training and meta-validation; updates: number of meta-updates; seconds: training time.
    """
    algorithm, episode, outer = config["algorithm"], config["episode"], config["outer"]
    head = "yes" if algorithm["adapt"] == "head" else f"no (algorithm.adapt={algorithm['adapt']})"
    lines = [
        _front("transformers", config["model"]["name"]),
        f"# {config['name']}",
        "",
        f"{config['model']['name']}, meta-trained by metatrain {version} with `{algorithm['name']}` so that a new task needs only a few labelled examples.",
        "",
        "## Usage",
        "",
        "```python",
        "import metatrain",
        "",
        'task = metatrain.load("THIS_DIRECTORY").adapt([("a text", "a label"), ("another text", "another label")])',
        'task.predict(["a new text"])',
        "```",
        "",
        "or `metatrain finetune checkpoint=THIS_DIRECTORY data.train=examples.csv`. The directory is also a plain Hugging Face model;",
        "its adaptation settings are in `adaptation.json`.",
        "",
        "## Training data",
        "",
        "| | |",
        "|---|---|",
        f"| task distribution | {config['tasks']['name']} |",
        *(f"| {split.replace('_', '-')} tasks | {len(names)}: {_some(names)} |" for split, names in tasks.items()),
        f"| episodes | {updates * outer['meta_batch']:,} ({updates} meta-updates of {outer['meta_batch']}) |",
        f"| way, shots, queries per episode | {episode['way'] or 'all classes'}, {episode['shots']}, {episode['queries'] or 'all'} |",
        f"| only the head adapts | {head} |",
        f"| head | {algorithm['head']} |",
        f"| label names as support texts | {'yes' if algorithm['label_names'] else 'no'} |",
        f"| training seed | {config['seed']} |",
        f"| cost of training | {seconds / 60:.1f} minutes on {device} |",
        "",
        "Data sets and their licences, as their sources state them:",
        "",
        "| data set | used for | origin | licence |",
        "|---|---|---|---|",
        *(_cells(each.name, ", ".join(each.splits).replace("_", "-"), each.origin or "not stated", each.licence or "not stated") for each in data),
        "",
        "## Evaluation",
        "",
        *(_results(results) if results else ["Not evaluated: no task was held out for a meta-test.", ""]),
        "## Limitations",
        "",
        *(_limits_of(results) if results else []),
        "- A task that differs from the training tasks may not benefit from meta-training. Evaluate on a few held-out labelled examples.",
        "- The model inherits the biases of its base model and training texts.",
        "",
    ]
    return "\n".join(lines)


def finetuned_card(
    checkpoint: str, results: Mapping[str, Any], library: str, seed: int, version: str, of_images: bool = False, adapter_of: str | None = None
) -> str:
    """Return the card of a finetuned model.

    results: results.json of `finetune`; library: the library that loads the model; adapter_of: the model that an adapter is added to, None: it is none.
    """
    labels, folds = results["labels"], results.get("cross_validation")
    test: dict[str, Any] = results.get("test", {})
    given = "data=IMAGE" if of_images else 'text="..."'
    lines = [
        _front(library, adapter_of),
        "# A finetuned model",
        "",
        f"Adapted by metatrain {version} from `{checkpoint}` in {results['seconds']} s.",
        "",
        "| | |",
        "|---|---|",
        *([] if labels is None else [f"| labels | {len(labels)}: {_some(labels)} |"]),
        f"| examples | {results['examples']} |",
        f"| inner steps | {results['steps']} |",
        *([f"| encoder updates | {results['updates']} |"] if results.get("updates") else []),
        *_scores("cross-validated", folds or {}),
        *_scores("held-out", test),
        f"| seed | {seed} |",
        "",
        "Not evaluated: no held-out examples were given." if not test and not folds else "",
        "Every test text was also a training example, so the scores do not measure generalisation." if not test.get("held_out", True) else "",
        "",
        f"Use it with `metatrain predict model=THIS_DIRECTORY {given}`.",
        "",
    ]
    return "\n".join(lines)


def _scores(kind: str, scores: Mapping[str, Any]) -> list[str]:
    """Return a row of a table for each number among the scores."""
    return [f"| {kind} {key.replace('_', ' ')} | {value:.3f} of {scores['examples']} |" for key, value in scores.items() if isinstance(value, float)]


def _front(library: str, base: str | None) -> str:
    """Return the YAML metadata of a card; a base model that is a local path is left out."""
    known = base if base and not base.startswith(("/", ".", "~")) else None
    return f"---\n{ModelCardData(library_name=library, base_model=known, tags=['metatrain', 'few-shot', 'meta-learning']).to_yaml()}\n---\n"


def _limits_of(results: Mapping[str, Any]) -> list[str]:
    """Return a remark on the scope of the scores."""
    number = len(results["protocol"]["tasks"])
    return [f"- The scores are from one training seed and {number} meta-test tasks; intervals cover these tasks and their episodes, not other kinds of tasks."]


def _cells(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _results(results: Mapping[str, Any]) -> list[str]:
    protocol, lines = results["protocol"], []
    for shots, part in results["by_shots"].items():
        against = {item["against"]: item for item in part["comparisons"]}
        lines += [f"{way_name(protocol)} {shots}-shot, {protocol['episodes_per_task']} episodes per task: {_some(protocol['tasks'])}. 95% intervals.", ""]
        lines += ["| arm | score | calibration error | this model minus arm |", "|---|---|---|---|"]
        for name, arm in sorted(part["arms"].items(), key=lambda item: -item[1]["mean"]):
            error = "" if arm["calibration_error"] is None else f"{100 * arm['calibration_error']:.1f}"
            paired = ""
            if name in against:
                low, high = (100 * bound for bound in against[name]["ci95"])
                paired = f"{100 * against[name]['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            lines.append(f"| {name} | {mean_of(arm)} | {error} | {paired} |")
        lines.append("")
    return lines


def _some(names: Sequence[str]) -> str:
    """Return names as code, at most `_SHOWN`."""
    shown = ", ".join(f"`{name.replace('|', '/').replace('`', '')}`" for name in names[:_SHOWN])
    return f"{shown}, ..." if len(names) > _SHOWN else shown
