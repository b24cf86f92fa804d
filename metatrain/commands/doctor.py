"""`metatrain doctor`: this machine and what is installed on it; the ways of taking a meta-gradient, compared on the user's own settings."""

from __future__ import annotations

from pathlib import Path

from metatrain.commands import check_plugin
from metatrain.commands.effects import effects_of
from metatrain.config.compose import run_under_hydra
from metatrain.config.schema import TrainConfig

USAGE = """\
usage: metatrain doctor [SETTING=VALUE ...]
       metatrain doctor plugin=NAME [SETTING=VALUE ...]

Check this machine and its installed packages. Then compare the meta-gradient modes on your model, method and tasks in float64, and check the
exact meta-gradient against finite differences. With plugin=NAME, check a plug-in instead: shapes, its exact gradient against central differences
(of a prompt, its wording), export and reload, and that a resumed run and one in two processes have the same bits.

examples:
  metatrain doctor
  metatrain doctor model=minilm algorithm=metasgd
"""
SHOWN = (
    "algorithm.head",
    "algorithm.adapt",
    "inner.rule",
    "inner.steps",
    "episode.shots",
    "episode.queries",
    "model.name",
    "hardware.device",
)


def main(arguments: list[str]) -> None:
    """Entry point; `arguments` are Hydra's, or those of the checks of a plug-in."""
    if any(item.startswith("plugin=") for item in arguments):
        check_plugin.main(arguments)
        return
    run_under_hydra("doctor", arguments, TrainConfig, start, effects=effects_of)


def completions(before: list[str]) -> list[str]:
    """Return the completions that are no settings: the plug-ins to check."""
    return check_plugin.completions(before)


def start(config: TrainConfig, path: Path, overrides: list[str]) -> None:
    """Print the findings on this machine, the error and cost of each meta-gradient mode, and the result of a resume check."""
    from dataclasses import replace

    import torch
    from rich.table import Table

    from metatrain.checkpoints.building import build_learner
    from metatrain.checkpoints.recipe import Recipe
    from metatrain.gradient.parameters import Parameters
    from metatrain.meta.algorithm import check_algorithm
    from metatrain.meta.probe import COMPARED, probe, slope_error
    from metatrain.run import hardware
    from metatrain.run.diagnosis import RESUME_RUNS, findings, resumes_exactly
    from metatrain.run.ranks import Ranks
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tasks.encoded_episode import encode_episode
    from metatrain.tasks.episodes import check_tasks, training_episode
    from metatrain.tracking.console import Display

    with Display() as display:
        for finding in findings():
            display.say(finding.line)
        check_algorithm(config.algorithm, config.inner, config.model)
        device, _, notes = hardware.apply(config.hardware, Ranks())
        tasks = load_tasks(config.tasks, config.seed, hold_out_seed=config.evaluation.seed_of(config.seed))
        check_tasks(tasks.meta_train, config.episode, "meta_train")
        for note in notes:
            display.say(note)
        # The modes are compared with each other, so the method's own is replaced, and what belongs to it alone.
        algorithm = replace(config.algorithm, meta_gradient="exact", proximal=0.0, first_order_until=0)
        recipe = replace(Recipe.of_run(config, tasks.meta_train), algorithm=algorithm)
        learner = build_learner(recipe, device, torch.float64, display.say, tasks.training_texts())
        tokens = learner.model.tokens()
        tokens.check(tasks.meta_train)
        episode = encode_episode(training_episode(tasks, config.episode, config.seed, 0), tokens)
        idle = probe(learner, episode, "exact", None).idle  # also warms up, before anything is timed

        table = Table(title=f"One episode, {recipe.inner.steps} inner steps, float64", title_justify="left")
        for column in ("meta-gradient", "relative error", "cosine to exact", "seconds", "memory MB"):
            table.add_column(column, justify="left" if column == "meta-gradient" else "right")
        display.start("comparing", len(COMPARED))
        exact: Parameters | None = None
        rows = {}
        for mode in COMPARED:
            with hardware.measured_memory(device) as memory:
                rows[mode] = probe(learner, episode, mode, exact)
            exact = exact or rows[mode].gradient
            row = rows[mode]
            table.add_row(mode, f"{row.error:.1e}", f"{row.cosine:.4f}", f"{row.seconds:.2f}", f"{memory() / 1e6:.0f}")
            display.advance()
        display.table(table)
        first = rows["first_order"]
        display.say(f"first order: cosine similarity {first.cosine:.2f} with the exact meta-gradient, {first.seconds / rows['exact'].seconds:.2f} of its time")
        error = slope_error(learner, episode, rows["exact"].gradient, config.seed)
        display.say(f"exact meta-gradient against a central difference of the query loss: relative error {error:.1e}")
        display.say(f"parameters without a meta-gradient: {', '.join(idle) if idle else 'none'}")
        display.start("checking that a small run resumes", RESUME_RUNS)
        finding = resumes_exactly(display.advance)
        display.stop()
        display.say(finding.line)
