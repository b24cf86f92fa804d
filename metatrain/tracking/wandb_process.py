"""Separate process that talks to Weights & Biases: reads one JSON object per line from standard input, and prints messages for the user.

The separation protects the run from all failures of W&B: a server that does not answer, a crash, an exit that waits for uploads. If the
input ends without `finish`, W&B marks the run as crashed.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

import wandb


def main() -> None:
    """Start the W&B run described by the first line, log the following records, and finish the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run decides when this process ends
    first = json.loads(sys.stdin.readline())
    settings = wandb.Settings(silent=True, init_timeout=first.pop("seconds"), console="off")
    _say(server=wandb.setup(settings).settings.base_url)
    run = wandb.init(**first, settings=settings)
    _say(url=run.url)
    for line in sys.stdin:
        message = json.loads(line)
        if "finish" in message:
            run.summary.update(message.pop("finish"))
            _attach(run, **message)
            run.finish()
            return
        run.log(message["log"], step=message["step"])
    run.finish(exit_code=1)


def _attach(
    run: Any,
    page: str | None,
    files: Mapping[str, str],
    images: Mapping[str, str],
    tables: Mapping[str, Any],
    model: str | None,
    model_facts: Mapping[str, Any],
) -> None:
    """Log the fields of `Attached`: report, charts and tables, and as artifacts the results with the tables, and the model."""
    found: dict[str, Any] = {f"charts/{name}": wandb.Image(path) for name, path in images.items()}
    found.update({f"tables/{name}": _table(table) for name, table in tables.items()})
    if page is not None:
        found["report"] = wandb.Html(page)
    if found:
        run.log(found)
    if files:
        results = wandb.Artifact(f"results-{run.id}", type="results")
        for name, path in files.items():
            results.add_file(path, name)
        for name, table in tables.items():
            results.add(_table(table), f"tables/{name}")
        run.log_artifact(results)
    if model is not None:
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=dict(model_facts))
        artifact.add_dir(model)
        run.log_artifact(artifact)


def _table(table: Mapping[str, Any]) -> Any:
    return wandb.Table(columns=table["columns"], data=table["rows"])


def _say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001  third-party code with open-ended failures; the run reports the reason
        _say(error=" ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]]))
        sys.exit(1)
