"""The learner of encoders: classification by a head on encodings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.meta_gradient import LEARNED, SECOND_ORDER, meta_gradient
from metatrain.gradient.parameters import Parameters, leaves, vjp
from metatrain.meta import noise
from metatrain.meta.algorithm import method_at
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_fit import fit_encoder
from metatrain.meta.episodes_together import MODES, EpisodesTogether, Inputs, RuleOfEach, shape_of
from metatrain.meta.head_fit import FITS, Fit, fit_head
from metatrain.meta.learner import Learner, OuterGradient
from metatrain.meta.name_choice import NameChoice, choose_names
from metatrain.meta.text_losses import ENCODINGS, TextLosses
from metatrain.meta.watcher import Unwatched, Watcher
from metatrain.models.adapted import HEAD_STAYS, lowest_adapted_layer
from metatrain.models.batches import Batch, chunks, on_device
from metatrain.models.encoder import Encoder
from metatrain.models.heads import BY_NUMBERS, Head, make_head
from metatrain.models.pictures import PictureEncoder
from metatrain.tasks.encoded_episode import EncodedEpisode

_FIGURES = ("loss_before", "loss_after", "accuracy_before", "accuracy_after")


class EncoderLearner(Learner):
    """A learner whose model is an encoder, of texts, of pictures, or of both."""

    prefix = "encoder."
    model: Any  # Encoder | PictureEncoder; which batches it takes is its own affair

    def __init__(self, encoder: Encoder | PictureEncoder, algorithm: AlgorithmConfig, inner: InnerConfig, way: int | None, labels: Sequence[str] = ()):
        """`way`: classes of every episode, or None where it varies; `labels`: names of the training tasks' labels."""
        self.head = make_head(algorithm.head, algorithm.head_scale, labels)
        super().__init__(encoder, algorithm, inner)
        dtype, device = next(encoder.parameters()).dtype, encoder.device
        for name, value in self.head.learned(encoder.hidden_size, way).items():
            self.parameters[HEAD + name] = value.to(device, dtype)
        self.parameters.update({name: value.to(device, dtype) for name, value in noise.learned(algorithm, encoder.hidden_size).items()})
        self.head_adapts = algorithm.adapt not in HEAD_STAYS
        self.packs = isinstance(encoder, Encoder) and encoder.architecture is not None  # texts of any length, end to end
        head = {"weight": torch.zeros(1, encoder.hidden_size, dtype=dtype, device=device), "bias": torch.zeros(1, dtype=dtype, device=device)}
        self.learn_rule({HEAD + name: value for name, value in head.items()} if self.head_adapts else {})
        if encoder.word_embeddings is not None:
            self.embedding = self.prefix + encoder.word_embeddings
            shape = dict(encoder.named_parameters())[encoder.word_embeddings].shape
            self.by_row = [name for name in (self.embedding, LEARNED + self.embedding) if name in self.parameters and self.parameters[name].shape == shape]
        self.cut = min(lowest_adapted_layer(self.adapted), encoder.layers) if self.adapted else None

    @property
    def _kernels(self) -> dict[str, bool]:
        """On a GPU, where many small operations take the time, one for attention as long as no second derivatives of it are wanted.

        Its gradient cannot be taken of episodes together (torch 2.11: "LSE is not correctly aligned").
        """
        once = (self.cut is None or self.algorithm.meta_gradient not in SECOND_ORDER) and self.memory.together == 1 and self.recorded is None
        return {"fused": True} if once and self.packs and self.model.device.type == "cuda" else {}

    def losses(self, episode: EncodedEpisode, seed: int | None) -> TextLosses:
        if episode.targets is not None and episode.targets.choices is None:
            raise UserError("an encoder predicts labels, but the tasks have target texts: set algorithm.head=lm and a language model (model=t5_small)")
        return TextLosses.of(self, self._read(episode), seed)

    def probabilities(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray:
        return self.logits(parameters, episode.query).double().softmax(1).cpu().numpy()

    def adapt(self, episode: EncodedEpisode, steps: int | None = None) -> tuple[Parameters, float]:
        if self.inner.fit_head and steps is None:
            adapted, fit = self.fit(episode)
            return adapted, fit.loss
        choice = self.choose_names(episode)
        return super().adapt(episode if choice is None or choice.read else replace(episode, reads_names=False), steps)

    def choose_names(self, episode: EncodedEpisode) -> NameChoice | None:
        """Whether an episode's label names are examples in evaluation and finetuning, as its support set says; None: there are none to read."""
        support = self._read(episode.without_queries())
        return self._choose(support, len(episode.support), self.features(support.support)) if len(support.support) > len(episode.support) else None

    def _choose(self, support: EncodedEpisode, examples: int, features: Tensor) -> NameChoice:
        """The same from the encodings of a support set whose names come after this number of examples."""
        labels = torch.from_numpy(np.asarray(support.support_labels, dtype=np.int64))
        features = features.cpu()
        return choose_names(features[:examples], labels[:examples], features[examples:], labels[examples:], len(support.names))

    def fit(self, episode: EncodedEpisode, watcher: Watcher | None = None) -> tuple[Parameters, Fit]:
        """All parameters fitted to an episode's support set, and what was chosen; a watcher is told how it goes where that takes long.

        That is the head (`inner.fit_head`), and then the whole encoder, if that is wanted (`inner.fit_encoder`) and of use.
        """
        watcher = watcher or Unwatched()
        support = self._read(episode.without_queries())
        watcher.start("encoding examples", len(support.support), brief=True)
        features, choice = self.features(support.support, lambda texts: watcher.advance(by=texts)), None
        watcher.stop()
        encodings = features[: len(episode.support)].cpu()
        if len(support.support) > len(episode.support):
            choice = self._choose(support, len(episode.support), features)
            if not choice.read:
                support, features = episode.without_queries(), features[: len(episode.support)]
        labels = torch.from_numpy(np.asarray(support.support_labels, dtype=np.int64))
        examples = np.arange(len(labels)) < len(episode.support)  # before the names of the classes

        def start(rows: np.ndarray) -> Head:
            """The meta-learned head of some of the examples."""
            part = replace(support, support=[support.support[row] for row in rows], support_labels=support.support_labels[rows])
            theta = {**self.parameters, **dict(zip(ENCODINGS, (features[torch.from_numpy(rows)], features[:0])))}
            head, _ = self._adapted(TextLosses.of(self, part, None, encoded=True), theta, None)
            return {name: head[HEAD + name].cpu() for name in ("weight", "bias")}

        # Thousands of small operations one after the other: a CPU has done them before a GPU has started them.
        watcher.start("fitting the head", FITS, brief=True)
        fit = replace(fit_head(start, features.cpu(), labels, ~examples, episode.seed, watcher.advance), names=choice, encodings=encodings)
        watcher.stop()
        if self.inner.fit_encoder and (trained := fit_encoder(self, support, fit, watcher)) is not None:
            return trained
        return {**self.parameters, **{HEAD + name: value.to(features.device) for name, value in fit.head.items()}}, fit

    def keeps_encoder(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether adapted parameters have the encoder as it was meta-trained."""
        return all(value is self.parameters.get(name) for name, value in parameters.items() if name.startswith(self.prefix))

    def answers(self, parameters: Mapping[str, Tensor], episode: EncodedEpisode) -> np.ndarray:
        return self.logits(parameters, episode.query).argmax(1).cpu().numpy()

    def reached(self, parameters: Parameters) -> Tensor:
        return functional_call(self.model, parameters, (self.model.batch(self.model.example()),)).square().sum()

    def groups(self, episodes: Sequence[EncodedEpisode]) -> list[list[EncodedEpisode]]:
        """Episodes in groups for `outer_gradients`.

        Of one shape, as many as `memory` says; else as many as are encoded at once.
        """
        groups: list[list[EncodedEpisode]] = []
        for episode in episodes:
            last = groups[-1] if groups else []
            if self._go_together([episode]):
                fits = len(last) < self.memory.together and self._go_together([*last, episode])
            else:
                fits = self._encoded_together([*last, episode])
            if last and fits:
                last.append(episode)
            else:
                groups.append([episode])
        return groups

    def _encoded_together(self, episodes: Sequence[EncodedEpisode]) -> bool:
        """Whether all texts of these episodes are encoded at once: where nothing of the encoder adapts or is dropped, as many as fit."""
        tokens = sum(len(text) for episode in episodes for text in (*episode.support, *episode.query))
        return self.cut is None and not self.algorithm.dropout and tokens <= self.memory.joint_tokens

    def _go_together(self, episodes: Sequence[EncodedEpisode]) -> bool:
        """Whether the meta-gradients of these episodes are taken in one pass."""
        algorithm = self.algorithm
        random = algorithm.dropout or algorithm.meta_dropout or algorithm.information_penalty
        able = self.packs and not random and algorithm.head in BY_NUMBERS and algorithm.meta_gradient in MODES
        if (self.memory.together == 1 and self.recorded is None) or not able or len({shape_of(self._read(each)) for each in episodes}) > 1:
            return False
        return all(len(texts) * max(map(len, texts)) <= self.memory.part_tokens for each in episodes for texts in (each.support, each.query))

    def rows(self, episodes: Sequence[EncodedEpisode]) -> Tensor | None:
        if not self.by_row:
            return None
        return on_device(self.distinct([text for each in map(self._read, episodes) for text in (*each.support, *each.query)]), self.model.device)

    def outer_gradients(self, episodes: Sequence[EncodedEpisode], step: int = 0) -> list[OuterGradient]:
        """Meta-gradients of a group of episodes whose sum is wanted, in order.

        Where their texts are encoded at once, the encoder's share of the sum is in the last one.
        """
        if self._go_together(episodes):
            return self._together(episodes, step)
        if not self._encoded_together(episodes):
            return [self.outer_gradient(episode, step) for episode in episodes]
        episodes = [self._read(episode) for episode in episodes]
        texts, rows = self.occurring([text for episode in episodes for text in (*episode.support, *episode.query)])
        view = self.view(rows)
        encoder = leaves({name: value for name, value in view.items() if name.startswith(self.prefix)})
        others = {name: value for name, value in view.items() if not name.startswith(self.prefix)}
        together = self.encode(encoder, self.model.batch(texts))
        sizes = [size for episode in episodes for size in (len(episode.support), len(episode.query))]
        pieces = torch.split(together.detach(), sizes)
        found, cotangents = [], []
        for episode, encodings in zip(episodes, zip(pieces[::2], pieces[1::2])):
            losses = TextLosses.of(self, episode, episode.seed, encoded=True)
            part = self._outer_gradient(losses, {**others, **dict(zip(ENCODINGS, encodings))}, rows, step)
            cotangents += [part.gradient.pop(name, torch.zeros_like(value)) for name, value in zip(ENCODINGS, encodings)]
            found.append(part)
        found[-1].gradient.update(vjp([together], [torch.cat(cotangents)], encoder))
        return found

    def _together(self, episodes: Sequence[EncodedEpisode], step: int) -> list[OuterGradient]:
        """The same of episodes of one shape in one pass; the sum of what is not theirs by row is in the last one."""
        read = [self._read(episode) for episode in episodes]
        inputs, steps = Inputs.of(self, read), self.steps(evaluation=False)
        method = method_at(self.algorithm, steps, step)

        def taken(arguments: Sequence[Tensor]) -> Parameters:
            losses = EpisodesTogether(self, read[0].names, Inputs(*arguments))
            kept = replace(method, graphs=self.memory.graphs(losses.support_tokens))
            gradient = meta_gradient(losses, losses.view(), RuleOfEach(self.rule), steps, kept).gradient
            figures = dict(zip(_FIGURES, (*losses.query_losses[:2], *losses.query_accuracies[:2])))
            return figures | {name: value if name in self.by_row else value.sum(0) for name, value in gradient.items()}

        if self.recorded is None:
            total = taken(inputs)
        else:
            where = tuple(value.data_ptr() for value in self.parameters.values())
            total = self.recorded.call(taken, inputs, (len(read[0].names), str(method), self.memory, where))
        figures = [total.pop(name).unbind() for name in _FIGURES]
        by_row = {name: total.pop(name) for name in self.by_row if name in total}
        found = []
        for number, (before, after, right_before, right_after) in enumerate(zip(*figures)):
            own = {name: value[number] for name, value in by_row.items()}
            found.append(OuterGradient(own, inputs.rows[number] if self.by_row else None, before, after, right_before, right_after))
        found[-1].gradient.update(total)
        return found

    def _read(self, episode: EncodedEpisode) -> EncodedEpisode:
        """The episode with everything that is learned from in its support set."""
        return episode.with_names() if self.algorithm.label_names and episode.reads_names else episode

    def occurring(self, texts: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], Tensor | None]:
        """The texts over the word embeddings that occur in them alone, and which rows these are; None: all of them.

        With gradients wanted for the word embeddings, others need not take part: they are half of a small model's
        parameters, and all but some hundred have no gradient.
        """
        if not self.by_row:
            return texts, None
        rows = self.distinct(texts)
        return [np.searchsorted(rows, text) for text in texts], on_device(rows, self.model.device)

    def distinct(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """The token ids that occur, in order; those with a meaning of their own keep their place."""
        return np.unique(np.concatenate([np.arange(self.model.fixed_ids), *texts]))

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Scores of shape [texts, way] under adapted parameters, without a graph; `on_progress` is called with the number of texts just done."""
        return self._in_parts(texts, lambda batch: self.scores(parameters, batch), on_progress)

    def features(self, texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Encodings of shape [texts, H] under the meta-parameters, without a graph; `on_progress` as in `logits`."""
        return self._in_parts(texts, lambda batch: self.encode(self.initial, batch), on_progress)

    def _in_parts(self, texts: Sequence[np.ndarray], call: Callable[[Batch], Tensor], on_progress: Callable[[int], None]) -> Tensor:
        """What a function of a batch gives for texts, some at a time."""
        found = []
        with torch.no_grad():
            for part in chunks(texts, self.memory.part_tokens):
                found.append(call(self.model.batch(texts[part])))
                on_progress(len(found[-1]))
        return torch.cat(found)

    def encode(self, parameters: Mapping[str, Tensor], batch: Batch | None, **part: Any) -> Tensor:
        """The encoder as a function of its parameters; `part` as in `Encoder.forward`. batch: None only where `hidden` is all that is needed."""
        return self.call(parameters, batch, **part, **self._kernels)

    def encode_frozen(self, parameters: Mapping[str, Tensor], batch: Batch | None, seed: int | None) -> Tensor | None:
        """What the part that never adapts makes of a batch; None if every part adapts."""
        return None if self.cut == 0 else self.encode(parameters, batch, stop=self.cut, seed=seed)

    def encode_rest(self, parameters: Mapping[str, Tensor], batch: Batch | None, frozen: Tensor | None, seed: int | None) -> Tensor:
        """Encodings [B, H], going on from what `encode_frozen` returned."""
        if frozen is None:
            return self.encode(parameters, batch, seed=seed)
        return frozen if self.cut is None else self.encode(parameters, batch, hidden=frozen, start=self.cut, seed=seed)

    def scores(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Scores of shape [texts, way] under parameters that have a head."""
        return F.linear(self.encode(parameters, batch), parameters[HEAD + "weight"], parameters[HEAD + "bias"])
