"""Ways to execute the meta-gradients of a group of episodes whose sum is needed.

- sequential: one episode after the other;
- shared encoding: if nothing of the encoder adapts, the texts of all episodes are encoded at once;
- vectorised: episodes of one shape in one pass (`torch.vmap`), on a GPU as a captured CUDA graph.

Which one applies follows from the method and the execution plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from metatrain.gradient.inner_rules import InnerRule, observes
from metatrain.gradient.meta_gradient import EpisodeLosses, meta_gradient, mode_of
from metatrain.gradient.parameters import Gradient, Parameters, leaves, vjp
from metatrain.meta.functional import FunctionalClassifier, FunctionalModel
from metatrain.meta.schedule import method_at
from metatrain.meta.text_losses import ENCODINGS, TextLosses
from metatrain.meta.vectorised import Inputs, VectorisedLosses, VectorisedRule, shape_of
from metatrain.tasks.encoded_episode import EncodedEpisode

FIGURES = ("loss_before", "loss_after", "accuracy_before", "accuracy_after")  # of each episode; meta-training logs their means


class Losses(EpisodeLosses, Protocol):
    """Losses of an episode of texts, with the figures that are logged."""

    @property
    def rows(self) -> Tensor | None:
        """Rows of the word embeddings that take part; None: all."""

    def head(self, phi: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> Parameters:
        """Return the head with which queries are predicted at phi; empty for a language model."""

    support_tokens: int
    query_accuracies: list[Tensor]  # one for each complete pass over `query_parts`


@dataclass(frozen=True)
class OuterGradient(Gradient):
    """Contribution of one episode to an outer step."""

    loss_before: Tensor
    loss_after: Tensor
    accuracy_before: Tensor
    accuracy_after: Tensor
    residual: float | None = None  # implicit meta-gradients: relative residual of conjugate gradients
    damping: float | None = None  # implicit meta-gradients: factor by which `algorithm.proximal` was multiplied to find a solution


@dataclass(frozen=True)
class Adaptation:
    """The inner loop of meta-training: initial parameters, inner rule and number of steps."""

    parameters: Parameters  # all meta-parameters
    rule: InnerRule
    steps: int


def episode_gradient(
    functional: FunctionalModel, adaptation: Adaptation, losses: Losses, theta: Mapping[str, Tensor], rows: Tensor | None, step: int
) -> OuterGradient:
    """Return the meta-gradient of one episode at theta in meta-update `step`."""
    plan, steps = functional.plan, adaptation.steps
    method = replace(method_at(functional.algorithm, steps, step), graphs=plan.graphs(losses.support_tokens), segment=plan.segment(steps))
    found = meta_gradient(losses, theta, adaptation.rule, adaptation.steps, method)
    before, after = losses.query_accuracies[:2]
    return OuterGradient(found.gradient, rows, found.query_loss_before, found.query_loss, before, after, found.residual, found.damping)


def sequential(
    functional: FunctionalModel, adaptation: Adaptation, losses_of: Callable[[EncodedEpisode], Losses], episodes: Sequence[EncodedEpisode], step: int
) -> list[OuterGradient]:
    """Return the meta-gradients of episodes, taken one after the other."""
    found = []
    for episode in episodes:
        losses = losses_of(episode)
        found.append(episode_gradient(functional, adaptation, losses, functional.view(adaptation.parameters, losses.rows), losses.rows, step))
    return found


def shares_encoding(classifier: FunctionalClassifier, episodes: Sequence[EncodedEpisode]) -> bool:
    """Return whether the texts of all these episodes are encoded at once: nothing of the encoder adapts, there is no dropout, and they fit."""
    tokens = sum(len(text) for episode in episodes for part in classifier.texts_of(episode) for text in part)
    if classifier.head_facts.reads_word_embeddings:  # the meta-gradient reaches the encoder through the head, too
        return False
    return classifier.first_adapted_layer is None and not classifier.algorithm.dropout and tokens <= classifier.plan.shared_tokens


def shared_encoding(classifier: FunctionalClassifier, adaptation: Adaptation, episodes: Sequence[EncodedEpisode], step: int) -> list[OuterGradient]:
    """Return the meta-gradients of episodes whose texts are encoded at once; the encoder's share of the sum is in the last one."""
    episodes = [classifier.read(episode) for episode in episodes]
    parts = [classifier.texts_of(episode) for episode in episodes]
    texts, rows = classifier.occurring([text for each in parts for part in each for text in part])
    view = classifier.view(adaptation.parameters, rows)
    encoder = leaves({name: value for name, value in view.items() if name.startswith(classifier.prefix)})
    others = {name: value for name, value in view.items() if not name.startswith(classifier.prefix)}
    encoded = classifier.encode(encoder, classifier.model.batch(texts))
    split = iter(torch.split(encoded.detach(), [len(part) for each in parts for part in each]))
    found, cotangents = [], []
    for episode, each in zip(episodes, parts):
        encodings = [next(split) for _ in each]
        losses = TextLosses.of(classifier, episode, episode.seed, encoded=True)
        part = episode_gradient(classifier, adaptation, losses, {**others, **dict(zip(ENCODINGS, encodings))}, rows, step)
        cotangents += [part.gradient.pop(name, torch.zeros_like(value)) for name, value in zip(ENCODINGS, encodings)]
        found.append(part)
    if encoder:  # nothing of it is trained with algorithm.train=adapted
        found[-1].gradient.update(vjp([encoded], [torch.cat(cotangents)], encoder))
    return found


def vectorises(classifier: FunctionalClassifier, rule: InnerRule, episodes: Sequence[EncodedEpisode]) -> bool:
    """Return whether the meta-gradients of these episodes are taken in one pass."""
    algorithm, plan, facts = classifier.algorithm, classifier.plan, classifier.head_facts
    random = algorithm.dropout or algorithm.meta_dropout or algorithm.information_penalty
    able = classifier.packs and not random and not classifier.head_after and not facts.reads_names and not facts.reads_label_encodings
    able = able and mode_of(algorithm.meta_gradient).separates_episodes and not observes(rule)
    if (plan.vectorised == 1 and plan.cuda_graphs is None) or not able or len({shape_of(classifier.read(each)) for each in episodes}) > 1:
        return False
    return all(len(texts) * max(map(len, texts)) <= plan.part_tokens for each in episodes for texts in (each.support, each.query))


def vectorised(classifier: FunctionalClassifier, adaptation: Adaptation, episodes: Sequence[EncodedEpisode], step: int) -> list[OuterGradient]:
    """Return the meta-gradients of episodes of one shape, taken in one pass; the sum of all but the sparse rows is in the last one."""
    read = [classifier.read(episode) for episode in episodes]
    inputs, plan = Inputs.of(classifier, read), classifier.plan
    method = method_at(classifier.algorithm, adaptation.steps, step)

    def gradients(arguments: Sequence[Tensor]) -> Parameters:
        losses = VectorisedLosses(classifier, adaptation.parameters, read[0].names, Inputs(*arguments))
        by_plan = replace(method, graphs=plan.graphs(losses.support_tokens), segment=plan.segment(adaptation.steps))
        gradient = meta_gradient(losses, losses.view(), VectorisedRule(adaptation.rule), adaptation.steps, by_plan).gradient
        figures = dict(zip(FIGURES, (*losses.query_losses[:2], *losses.query_accuracies[:2])))
        return figures | {name: value if name in classifier.sparse else value.sum(0) for name, value in gradient.items()}

    if plan.cuda_graphs is None:
        total = gradients(inputs)
    else:
        where = tuple(value.data_ptr() for value in adaptation.parameters.values())
        total = plan.cuda_graphs.call(gradients, inputs, (len(read[0].names), str(method), plan, where))
    figures = [total.pop(name).unbind() for name in FIGURES]
    sparse = {name: total.pop(name) for name in classifier.sparse if name in total}
    found = []
    for number, (loss_before, loss_after, accuracy_before, accuracy_after) in enumerate(zip(*figures)):
        own = {name: value[number] for name, value in sparse.items()}
        rows = inputs.rows[number] if classifier.sparse else None
        found.append(OuterGradient(own, rows, loss_before, loss_after, accuracy_before, accuracy_after))
    found[-1].gradient.update(total)
    return found


def grouped(classifier: FunctionalClassifier, rule: InnerRule, episodes: Sequence[EncodedEpisode]) -> list[list[EncodedEpisode]]:
    """Split episodes, in order, into groups that are executed together: of one shape as many as the plan says, else as many as share an encoding."""
    groups: list[list[EncodedEpisode]] = []
    for episode in episodes:
        last = groups[-1] if groups else []
        if vectorises(classifier, rule, [episode]):
            fits = len(last) < classifier.plan.vectorised and vectorises(classifier, rule, [*last, episode])
        else:
            fits = shares_encoding(classifier, [*last, episode])
        if last and fits:
            last.append(episode)
        else:
            groups.append([episode])
    return groups
