"""`metatrain doctor plugin=NAME`: check a plug-in: shapes, exact gradient, export and reload, resume to the same bits, the same bits on two ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from metatrain import plugins
from metatrain.commands import check_prompt
from metatrain.errors import UserError

if TYPE_CHECKING:
    from metatrain.config.schema import TrainConfig
    from metatrain.meta.learner import Learner
    from metatrain.run.diagnosis import Finding
    from metatrain.tasks.encoded_episode import EncodedEpisode


def _of_head(name: str) -> list[str]:
    """Return the settings that a head needs."""
    from metatrain.models.heads import head_facts

    return ["model.normalize=true"] if head_facts(name).needs_normalized else []


def _of_outer_loss(name: str) -> list[str]:
    """Return the settings that a term of the outer loss needs."""
    from metatrain.meta.contrastive import outer_loss

    return ["algorithm.dropout=0.1"] if outer_loss(name).views > 1 else []


_ACCURATE = 1e-5  # relative error of a gradient in float64, from which it is not exact
_METHOD = ["algorithm=protomaml", "inner.steps=2"]
# By group: settings that select a plug-in in a small run.
_SETTINGS: dict[str, Callable[[str], list[str]]] = {
    plugins.HEADS: lambda name: [*_METHOD, f"algorithm.head={name}", *_of_head(name)],
    plugins.INNER_RULES: lambda name: [*_METHOD, f"inner.rule={name}"],
    plugins.INNER_LOSSES: lambda name: [*_METHOD, f"inner.loss={name}", "algorithm.adapt=last_layers", "algorithm.last_layers=1"],
    plugins.ADAPTED: lambda name: [*_METHOD, f"algorithm.adapt={name}"],
    plugins.MODES: lambda name: [*_METHOD, f"algorithm.meta_gradient={name}"],
    plugins.OUTER_LOSSES: lambda name: [*_METHOD, f"algorithm.contrastive={name}", *_of_outer_loss(name)],
    plugins.OUTER_OPTIMIZERS: lambda name: [*_METHOD, f"outer.optimizer={name}"],
    plugins.SCHEDULES: lambda name: [*_METHOD, f"outer.schedule={name}", "outer.warmup=0"],
    plugins.SAMPLERS: lambda name: [*_METHOD, f"tasks.sampling.by={name}"],
    plugins.PROMPTS: check_prompt.settings,
    plugins.METRICS: lambda name: [f"evaluation.metrics=[{name}]"],
    plugins.ARMS: lambda name: [f"evaluation.arms=[{name}]"],
    plugins.SOURCES: lambda name: [*_METHOD, "tasks=files", f"tasks.path='{name}:'"],
    plugins.SELF_SUPERVISED: lambda name: [*_METHOD, f"+tasks.self_supervised={{{name}: {{share: 0.5}}}}"],
}
_DIFFERENTIATED = (plugins.HEADS, plugins.INNER_RULES, plugins.INNER_LOSSES, plugins.ADAPTED)  # exported with a model, and part of its meta-gradient
_EVALUATED = (plugins.METRICS, plugins.ARMS)
_SMALL = {"evaluation.episodes": 2, "evaluation.shots": [2], "evaluation.queries": 4, "report": False, "hardware.threads": 1}


@dataclass(frozen=True)
class _Subject:
    """A plug-in, and the settings of its checks."""

    group: str
    name: str
    settings: list[str]

    @property
    def kind(self) -> plugins.Kind:
        return plugins.KINDS[self.group]


def main(arguments: list[str]) -> None:
    """Entry point; the arguments are `plugin`, and settings of `metatrain train` that the plug-in needs.

    Raises:
        UserError: no package announces the plug-in, it cannot be imported, or a check fails.
    """
    from metatrain.tracking.console import Display

    name = next(item.partition("=")[2] for item in arguments if item.startswith("plugin="))
    groups = plugins.groups_with(name)
    if not groups:
        known = sorted({each for group in plugins.KINDS for each in plugins.names(group)})
        raise UserError(f"plugin={name}: no installed package announces it; installed are {', '.join(known) or 'none'}")
    more = [item for item in arguments if not item.startswith("plugin=")]
    given = {item.lstrip("+").partition("=")[0] for item in more}
    found = []
    with Display() as display:
        for group in groups:
            own = [item for item in _SETTINGS[group](name) if item.lstrip("+").partition("=")[0] not in given]
            subject = _Subject(group, name, [*own, *more])
            for finding in checks(subject):
                display.say(f"{subject.kind.name} {finding.line}" if len(groups) > 1 else finding.line)
                found.append(finding)
    if failed := [finding.what for finding in found if not finding.is_well]:
        raise UserError(f"plugin={name}: {len(failed)} of {len(found)} checks failed: {', '.join(failed)}")


def completions(before: list[str]) -> list[str]:
    """Return the completions of `plugin=`."""
    return [] if before else [f"plugin={name}" for group in plugins.KINDS for name in plugins.names(group)]


def checks(subject: _Subject) -> Iterator[Finding]:
    """Yield the results of the checks of a plug-in."""
    from metatrain.run.diagnosis import Finding, resumes_in, shares_among_ranks

    component = plugins.load(subject.group, subject.name)
    yield Finding("import", component is not None, f"{subject.kind.name} {subject.name}, chosen by {subject.kind.setting}")
    if subject.group in _EVALUATED:
        yield _evaluates(subject)
        return
    if subject.group == plugins.SCHEDULES:
        factors = [component(step / 10) for step in range(10)]  # type: ignore[misc]
        is_well = all(isinstance(factor, float) and 0 <= factor < math.inf for factor in factors)
        yield Finding(
            "factors", is_well, ", ".join(f"{factor:.3g}" for factor in factors), "return a finite factor, zero or more, for every share from 0 to below 1"
        )
    if subject.group in (*_DIFFERENTIATED, plugins.OUTER_LOSSES, plugins.MODES):
        config = _config(subject)
        learner, episodes = _learner(config)
        yield _shapes(learner)
        yield _gradient(subject, learner, episodes)
        if subject.group in _DIFFERENTIATED:
            yield _vectorised(learner, episodes)
    with TemporaryDirectory(prefix="metatrain-") as folder:
        if subject.group == plugins.PROMPTS:
            subject = _with_tokenizer(subject, Path(folder))
            yield check_prompt.wording(_learner(_config(subject))[0])
        yield resumes_in(Path(folder), subject.settings)
        if not (Path(folder) / "whole" / "model").is_dir():
            return  # its run failed, which the finding before says
        yield shares_among_ranks(Path(folder), subject.settings)
        if subject.group in (*_DIFFERENTIATED, plugins.PROMPTS):
            yield _exports(Path(folder) / "whole")


def _with_tokenizer(subject: _Subject, folder: Path) -> _Subject:
    """Return a prompt with a tokenizer that has a chat template, if it needs one and none is given."""
    given = {item.partition("=")[0] for item in subject.settings}
    if not plugins.load(subject.group, subject.name).chat or "model" in given or "model.tokenizer" in given:  # type: ignore[union-attr]
        return subject
    check_prompt.write_tokenizer(folder / check_prompt.TOKENIZER)
    return replace(subject, settings=[*subject.settings, f"model.tokenizer={folder / check_prompt.TOKENIZER}"])


def _config(subject: _Subject) -> TrainConfig:
    """Return the settings of a small run with the plug-in."""
    from metatrain.config.compose import composed
    from metatrain.config.overrides import normalise
    from metatrain.config.schema import TrainConfig
    from metatrain.meta.algorithm import check_algorithm

    model = [] if any(item.startswith("model=") for item in subject.settings) else ["model=tiny"]
    small = [*model, "episode.shots=2", "episode.queries=2"]
    found: TrainConfig = composed("train", normalise("train", [*small, *subject.settings]), TrainConfig)
    check_algorithm(found.algorithm, found.inner, found.model)
    return found


def _learner(config: TrainConfig) -> tuple[Learner, list[EncodedEpisode]]:
    """Return a learner in float64, and two training episodes."""
    import torch

    from metatrain.checkpoints.building import build_learner
    from metatrain.checkpoints.recipe import Recipe
    from metatrain.tasks.distribution import load_tasks
    from metatrain.tasks.encoded_episode import encode_episode
    from metatrain.tasks.episodes import training_episode

    tasks = load_tasks(config.tasks, config.seed)
    learner = build_learner(Recipe.of_run(config, tasks.meta_train), torch.device("cpu"), torch.float64, lambda line: None, tasks.training_texts())
    tokens = learner.model.tokens()
    return learner, [encode_episode(training_episode(tasks, config.episode, config.seed, index), tokens) for index in range(2)]


def _shapes(learner: Learner) -> Finding:
    """Check the probabilities of an episode of three classes, which the meta-parameters do not know."""
    import numpy as np

    from metatrain.run.diagnosis import Finding
    from metatrain.tasks.encoded_episode import encode_episode
    from metatrain.tasks.episodes import given_episode

    texts = ["It broke.", "Useless.", "Late again.", "Never came.", "Superb.", "I love it.", "Broken on arrival.", "Two weeks late.", "A joy."]
    labels = ["broken", "broken", "late", "late", "good", "good", "broken", "late", "good"]
    episode = encode_episode(given_episode(texts, labels, 6), learner.model.tokens())
    adapted, _ = learner.adapt(episode)
    found = learner.probabilities(adapted, episode)
    is_well = found is not None and found.shape == (3, 3) and bool(np.isfinite(found).all())
    said = "none" if found is None else f"{list(found.shape)}{'' if np.isfinite(found).all() else ', some not finite'}"
    return Finding("shapes", is_well, f"probabilities of 3 queries of 3 classes: {said}", "make them finite, [queries, way], for any number of classes")


def _gradient(subject: _Subject, learner: Learner, episodes: list[EncodedEpisode]) -> Finding:
    """Check the gradient of the outer loss against central differences; that of a meta-gradient mode is compared with the exact one."""
    from metatrain.gradient.parameters import dot
    from metatrain.meta.probe import probe, slope_error
    from metatrain.run.diagnosis import Finding

    if subject.group == plugins.MODES:
        exact = probe(learner, episodes[0], "exact", None).gradient
        cosine = probe(learner, episodes[0], subject.name, exact).cosine
        return Finding("gradient", cosine > 0, f"cosine similarity {cosine:.3f} with the exact meta-gradient", "a descent direction has a positive one")
    if subject.group == plugins.OUTER_LOSSES:
        import torch

        part = learner.auxiliary_gradient(episodes)
        assert part is not None  # algorithm.contrastive is set
        gradient = {name: torch.zeros_like(value) for name, value in learner.parameters.items()}
        learner.add_gradient(gradient, part, 1.0)
        generator = torch.Generator().manual_seed(0)
        direction = {name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in learner.parameters.items()}

        def loss(distance: float) -> float:
            moved = learner.with_parameters({name: value + distance * direction[name] for name, value in learner.parameters.items()})
            found = moved.auxiliary_gradient(episodes)
            assert found is not None
            return found.loss

        slope, predicted = (loss(1e-6) - loss(-1e-6)) / 2e-6, dot(gradient, direction)
        error = abs(slope - predicted) / abs(predicted)
    else:
        error = slope_error(learner, episodes[0], probe(learner, episodes[0], learner.algorithm.meta_gradient, None).gradient, seed=0)
    remedy = "use differentiable operations with second derivatives, and nothing that is detached or random"
    return Finding("gradient", error < _ACCURATE, f"relative error {error:.1e} against a central difference in float64", remedy)


def _vectorised(learner: Learner, episodes: list[EncodedEpisode]) -> Finding:
    """Check that episodes in one pass have the gradients of sequential ones."""
    from metatrain.gradient.parameters import dot
    from metatrain.meta.plan import ExecutionPlan
    from metatrain.run.diagnosis import Finding

    sequential = learner.mean_gradient(episodes)
    together = learner.with_plan(ExecutionPlan(vectorised=2))
    if len(together.groups(episodes)) > 1:
        return Finding("vectorised", True, "its episodes are never vectorised")
    difference = {name: value - sequential[name] for name, value in together.mean_gradient(episodes).items()}
    error = (dot(difference, difference) / dot(sequential, sequential)) ** 0.5
    return Finding("vectorised", error < _ACCURATE, f"relative error {error:.1e} against sequential episodes", "let no operation mix episodes (torch.vmap)")


def _exports(run: Path) -> Finding:
    """Check that the exported model has the scores of the run."""
    from metatrain.run.diagnosis import Finding

    scores = [_scores(str(path), run.parent / f"scores of {path.name}", {"evaluation.arms": ["meta_trained"]}) for path in (run, run / "model")]
    is_well = scores[0] == scores[1]
    return Finding("export", is_well, f"the exported model has {'the' if is_well else 'other'} scores of the run", "let `learned` hold all that is trained")


def _evaluates(subject: _Subject) -> Finding:
    """Check that an arm or metric gives finite numbers, and the same ones again."""
    from metatrain.run.diagnosis import Finding

    is_arm = subject.group == plugins.ARMS
    settings = {"evaluation.arms": [subject.name if is_arm else "prototypes"], "evaluation.metrics": [] if is_arm else [subject.name]}
    with TemporaryDirectory(prefix="metatrain-") as folder:
        found = [_scores("tiny", Path(folder) / str(number), settings) for number in range(2)]
    numbers = [value for values in found[0].values() for value in values]
    finite = all(math.isfinite(value) for value in numbers)
    same = found[0] == found[1]
    said = f"{len(numbers)} numbers, {'all finite' if finite else 'some not finite'}, {'the same' if same else 'others'} in a second evaluation"
    return Finding("evaluation", finite and same, said, "return finite numbers that depend only on the episode")


def _scores(checkpoint: str, directory: Path, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Return the scores of an evaluation by arm, metric and task."""
    from metatrain.runs import evaluate

    run = evaluate({"checkpoint": checkpoint, "tasks": "reviews", **_SMALL, **settings}, directory=directory, quiet=True)
    found: dict[str, list[float]] = {}
    for arm, scores in run.results["arms"].items():
        found |= {f"{arm}/{task}": values["scores"] for task, values in scores["per_task"].items()}
        found |= {f"{arm}/{metric}": list(values["per_task"].values()) for metric, values in scores.get("metrics", {}).items()}
    return found
