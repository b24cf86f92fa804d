"""Adaptation on the console: loss and score (accuracy; with several labels per text micro F1) before and after, and by inner step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from metatrain.tracking.score_names import ACCURACY, read_name


def query_figures(record: Mapping[str, Any], adapts: bool, score: str = ACCURACY) -> dict[str, str]:
    """Return what the progress line says of the queries of a meta-update: before and after adaptation, or once if the method takes no inner steps.

    score: key of the score that the record has under `accuracy_before` and `accuracy_after`.
    """
    figures = {}
    for name, digits in (("loss", 3), ("accuracy", 2)):
        before, after = (f"{record[f'{name}_{when}']:.{digits}f}" for when in ("before", "after"))
        figures[read_name(score) if name == ACCURACY else name] = f"{before} → {after}" if adapts else after
    return figures


def steps_table(by_steps: Mapping[str, Any], shots: str, score: str = ACCURACY) -> Table:
    """Return the table of the meta-trained model by inner step, for one number of shots; by_steps: as in analysis.json; score: its name."""
    part, used, episodes = by_steps["by_shots"][shots], by_steps["steps_used"], by_steps["episodes_per_task"]
    table = Table(
        title=f"meta_trained by inner step, {shots}-shot, {episodes} episode{'s' if episodes > 1 else ''} per task; the run takes {used}", title_justify="left"
    )
    columns = {f"query {score}": "steps", "query loss": "losses", f"support {score}": "support_steps", "support loss": "support_losses"}
    there = {column: part[key] for column, key in columns.items() if key in part}
    for column in ("inner steps", *there):
        table.add_column(column, justify="right", no_wrap=True)
    for steps in part["steps"]:
        table.add_row(steps, *(f"{values[steps]:.3f}" if "loss" in column else f"{100 * values[steps]:.1f}" for column, values in there.items()))
    return table


def adaptation_line(by_step: Mapping[str, Sequence[float]], counts: Sequence[int], score: str = ACCURACY) -> str:
    """Return one line with the loss and the score, by its name, of the query and support set after each number of inner steps."""
    last = f"{counts[-1]}" if len(counts) == counts[-1] + 1 else f"{counts[-1]} ({', '.join(map(str, counts))})"
    parts = []
    for part in ("query", "support"):
        if f"{part}_loss" in by_step:
            losses, accuracies = (" ".join(f"{value:.{digits}f}" for value in by_step[f"{part}_{name}"]) for name, digits in (("loss", 3), ("accuracy", 2)))
            parts.append(f"{part} loss {losses}, {score} {accuracies}")
    return f"  inner steps 0 to {last}, one episode per task: {'; '.join(parts)}"
