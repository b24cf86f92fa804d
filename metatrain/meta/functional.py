"""Models as functions of their parameters: an encoder with the head of an episode, and a language model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.inner_rules import HEAD
from metatrain.gradient.meta_gradient import LEARNED, mode_of
from metatrain.gradient.parameters import Parameters, leaves
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.output_cache import OutputCache
from metatrain.meta.plan import ExecutionPlan
from metatrain.models.adapted import lowest_adapted_layer, row_of, select
from metatrain.models.adapters import is_adapter
from metatrain.models.batches import Batch, Packed, chunks, on_device
from metatrain.models.encoder import Encoder
from metatrain.models.head_rule import Head, HeadRule, LogitHead, facts_of
from metatrain.models.heads import head_facts
from metatrain.models.images import ImageEncoder
from metatrain.models.language_model import LanguageModel
from metatrain.models.reading import Reading, reading_of
from metatrain.models.scoring import with_stop
from metatrain.tasks.encoded_episode import EncodedEpisode, TargetTokens, targets_of


class FunctionalModel:
    """A module as a function of its parameters, whose names begin with `prefix`."""

    model: Any
    prefix: str
    embedding: str | None = None  # name of the word embeddings, if their gradients are sparse
    reads_support = False  # whether each query is read after the whole support set
    head_after = False  # whether the head of an episode is made after the inner steps
    head_adapts = False  # whether an episode has a head that adapts, in addition to the model
    is_transductive = False  # whether logits of a text depend on the other texts, so that a loss is not a sum over parts of the texts
    first_adapted_layer: int | None = 0  # layers below it give the same in the whole episode; None: no part of the model adapts

    def __init__(self, model: Any, algorithm: AlgorithmConfig):
        self.model = model.requires_grad_(False)
        self.algorithm = algorithm
        self.plan = ExecutionPlan()
        self.sparse: list[str] = []  # meta-parameters with one row per token: the word embeddings, and learned rates of their elements
        model.set_dropout(algorithm.dropout)
        self.unreached = self._unreached()
        names = [name for name, _ in model.named_parameters() if name not in self.unreached]
        self.adapted = [self.prefix + name for name in select(names, algorithm.adapt, algorithm.last_layers, algorithm.pattern)]
        # Parameters that start at zero in every episode adapt without being meta-parameters.
        context = self.adapted if row_of(algorithm.adapt).starts_at_zero else []
        self.reset: Parameters = {name: torch.zeros_like(value) for name, value in self._named().items() if name in context}

    def with_plan(self, plan: ExecutionPlan) -> Self:
        """Return the same model, executed by another plan."""
        other = copy.copy(self)
        other.plan = plan
        return other

    def with_algorithm(self, algorithm: AlgorithmConfig) -> Self:
        """Return the same model with other settings of the method; those that choose parameters have no effect."""
        other = copy.copy(self)
        other.algorithm = algorithm
        return other

    def meta_parameters(self) -> Parameters:
        """Return copies of the model's parameters that the outer loop trains."""
        named = self._named()
        if self.algorithm.train == "adapted":
            named = {name: value for name, value in named.items() if name in self.adapted or is_adapter(name)}
        return {name: value.detach().clone() for name, value in named.items() if name not in self.reset}

    def call(self, parameters: Mapping[str, Tensor], batch: Any, **options: Any) -> Any:
        """Call the model with these parameters; those that are missing are the module's own."""
        prefix = len(self.prefix)
        own = {name[prefix:]: value for name, value in parameters.items() if name.startswith(self.prefix)}
        return functional_call(self.model, own, (batch,), options)

    def view(self, parameters: Parameters, rows: Tensor | None) -> Parameters:
        """Return meta-parameters with these rows of the word embeddings; None: with all."""
        if rows is None:
            return dict(parameters)
        return {**parameters, **{name: parameters[name].index_select(0, rows) for name in self.sparse}}

    def write_to_model(self, parameters: Mapping[str, Tensor]) -> Any:
        """Copy parameters (adapted or not) into the module, for export, and return it."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                if self.prefix + name in parameters:
                    value.copy_(parameters[self.prefix + name])
        return self.model

    def probe(self, parameters: Parameters) -> Tensor:
        """Return a number that depends on every parameter of the module that a text reaches; names have no prefix."""
        raise NotImplementedError

    def _named(self) -> dict[str, Tensor]:
        return {self.prefix + name: value for name, value in self.model.named_parameters() if name not in self.unreached}

    def _unreached(self) -> list[str]:
        """Return the names of model parameters that no text reaches (an unused pooler, for example): they cannot be trained.

        Raises:
            UserError: no parameter is reached at all.
        """
        parameters = leaves(dict(self.model.named_parameters()))
        found = torch.autograd.grad(self.probe(parameters), list(parameters.values()), allow_unused=True)
        missing = [name for name, value in zip(parameters, found) if value is None]
        if len(missing) == len(parameters):
            raise UserError("model.name: no parameter of the model affects its output")
        return missing


class FunctionalClassifier(FunctionalModel):
    """An encoder, of texts, of images, or of both, and the head of an episode."""

    prefix = "encoder."
    model: Any  # Encoder | ImageEncoder, which take different batches

    def __init__(self, encoder: Encoder | ImageEncoder, algorithm: AlgorithmConfig, head: HeadRule, head_after: bool = False):
        """`head_after`: the head is made from the encodings after the inner steps, instead of before."""
        self.head, self.head_facts, self.head_after = head, facts_of(head), head_after
        super().__init__(encoder, algorithm)
        self.is_transductive = self.head_facts.reads_queries
        self.head_adapts = row_of(algorithm.adapt).head_adapts and not head_after and not self.head_facts.reads_word_embeddings
        self.packs = isinstance(encoder, Encoder) and encoder.architecture is not None and encoder.windows is None  # texts of any length, end to end
        self.first_adapted_layer = min(lowest_adapted_layer(self.adapted), encoder.layers) if self.adapted else None
        self.cache: OutputCache | None = None  # of the output of the layers that never adapt; None: it is computed each time
        self._cached_parameters: Parameters = {}  # the parameters of the cached outputs

    def use_sparse_rows(self, parameters: Parameters) -> None:
        """Find the meta-parameters with one row per token; their gradients have only the rows of tokens that occur."""
        words = self.model.word_embeddings
        if words is not None:
            self.embedding = self.prefix + words
            shape = dict(self.model.named_parameters())[words].shape
            self.sparse = [name for name in (self.embedding, LEARNED + self.embedding) if name in parameters and parameters[name].shape == shape]

    def read(self, episode: EncodedEpisode) -> EncodedEpisode:
        """Return the episode with label names in its support set, if the method reads them."""
        return episode.with_names(self.algorithm.label_names_weight) if self.algorithm.label_names and episode.reads_names else episode

    def texts_of(self, episode: EncodedEpisode) -> tuple[Sequence[np.ndarray], ...]:
        """Return the texts that are read: the support texts, the queries and, if the head reads their encodings or words, the label names.

        Raises:
            UserError: the head reads label encodings, and the model reads no texts.
        """
        if not self.head_facts.reads_label_encodings and not self.head_facts.reads_word_embeddings:
            return episode.support, episode.query
        if not episode.name_tokens:
            raise UserError(f"algorithm.head={self.algorithm.head} reads label names, which an image model cannot; choose algorithm.head=prototype")
        return episode.support, episode.query, episode.name_tokens

    def with_head(self, head: HeadRule) -> Self:
        """Return the same encoder with another head rule."""
        other = copy.copy(self)
        other.head, other.head_facts = head, facts_of(head)
        other.is_transductive = other.head_facts.reads_queries
        return other

    def words(self, parameters: Mapping[str, Tensor], rows: Sequence[np.ndarray], ids: Sequence[np.ndarray]) -> Head:
        """Return the means of the output embeddings and biases of the label words' tokens, as a linear head.

        ids: tokens of each label word; rows: the same as rows of the word embeddings among the parameters.
        """
        (embeddings, biases), device = self.model.outputs, self.model.device
        found = self.own_or(parameters, self.prefix + embeddings)
        is_sparse = self.prefix + embeddings in self.sparse
        shares = torch.block_diag(*(found.new_full((1, len(each)), 1 / len(each)) for each in ids))  # [way, tokens]

        def of(values: Tensor, places: Sequence[np.ndarray]) -> Tensor:
            return shares @ values.index_select(0, on_device(np.concatenate(places).astype(np.int64), device))

        weight = of(found, rows if is_sparse else ids)
        return {"weight": weight, "bias": weight.new_zeros(len(ids)) if biases is None else of(self.own_or(parameters, self.prefix + biases), ids)}

    def own_or(self, parameters: Mapping[str, Tensor], name: str) -> Tensor:
        """Return a parameter of the model; if it is missing, the module's own."""
        return parameters[name] if name in parameters else self.model.get_parameter(name[len(self.prefix) :])

    def occurring(self, texts: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], Tensor | None]:
        """Return the texts over only the word embeddings that occur in them, and the rows of these; None: all rows.

        Word embeddings are half of a small model's parameters, and all but a few hundred rows have no gradient.
        """
        if not self.sparse:
            return texts, None
        rows = self.distinct(texts)
        return [np.searchsorted(rows, text) for text in texts], on_device(rows, self.model.device)

    def distinct(self, texts: Sequence[np.ndarray]) -> np.ndarray:
        """Return the token ids that occur, in order; ids with a meaning of their own keep their place."""
        return np.unique(np.concatenate([np.arange(self.model.fixed_ids), *texts]))

    def encode(self, parameters: Mapping[str, Tensor], batch: Batch | None, **part: Any) -> Tensor:
        """Return encodings [B, H]; `part` as in `Encoder.forward`. batch: None only if `hidden` is all that is needed."""
        return self.call(parameters, batch, **part, **self._kernels)

    def encode_frozen(self, parameters: Mapping[str, Tensor], batch: Batch | None, seed: int | None) -> Tensor | None:
        """Return the output of the layers that never adapt; None if every layer adapts."""
        return None if self.first_adapted_layer == 0 else self.encode(parameters, batch, stop=self.first_adapted_layer, seed=seed)

    def encode_rest(self, parameters: Mapping[str, Tensor], batch: Batch | None, frozen: Tensor | None, seed: int | None) -> Tensor:
        """Return encodings [B, H], computed from the output of `encode_frozen`."""
        if frozen is None:
            return self.encode(parameters, batch, seed=seed)
        first = self.first_adapted_layer
        return frozen if first is None else self.encode(parameters, batch, hidden=frozen, start=first, seed=seed)

    def caching(self, parameters: Parameters) -> Self:
        """Return the same encoder, with a cache of the output of the layers that never adapt, which has no graph; itself if it has one, or cannot.

        For use without dropout. parameters: all of the model, adapted or not.
        """
        can = self.first_adapted_layer is None or (self.first_adapted_layer > 0 and self.packs)
        return self if not can or self.cache is not None else self.with_cache(OutputCache(partial(self._frozen_states, parameters)), parameters)

    def with_cache(self, cache: OutputCache, parameters: Parameters) -> Self:
        """Return the same encoder, with a cache of the output of the layers that never adapt; parameters: those of the cached outputs."""
        other = copy.copy(self)
        other.cache, other._cached_parameters = cache, parameters
        return other

    def _frozen_states(self, parameters: Parameters, texts: Sequence[np.ndarray], on_progress: Callable[[int], None]) -> list[Tensor]:
        """Return the output of the layers that never adapt for each text: hidden states [tokens, H], or an encoding [H] if no layer adapts."""
        found: list[Tensor] = []
        with torch.no_grad():
            for part in chunks(texts, self.plan.part_tokens):
                batch = self.model.batch(texts[part])
                output = self.encode_frozen(parameters, batch, seed=None)
                assert output is not None  # some layer never adapts
                if self.first_adapted_layer is None:
                    found += output.unbind()
                else:
                    assert isinstance(batch, Packed)  # else nothing is cached
                    found += [output[start : start + len(text)] for text, start in zip(texts[part], batch.starts.tolist())]
                on_progress(len(texts[part]))
        return found

    def known(self, texts: Sequence[np.ndarray], batch: Batch, parameters: Mapping[str, Tensor] | None = None) -> Tensor | None:
        """Return the output of the layers that never adapt for a batch of these texts; None: it has no cache.

        parameters: those of a model that may differ in layers that never adapt, and then nothing is known; None: it does not.
        """
        if self.cache is None or not (parameters is None or self._keeps_frozen(parameters)):
            return None
        found = self.cache.of(texts)
        if self.first_adapted_layer is None:
            return torch.stack(found)
        assert isinstance(batch, Packed)
        return torch.cat([found[place] for place in batch.starts.argsort().tolist()])

    def _keeps_frozen(self, parameters: Mapping[str, Tensor]) -> bool:
        """Return whether the layers that never adapt have the parameters of the cached outputs."""
        own, adapted = self._cached_parameters, set(self.adapted)
        return all(own.get(name) is value for name, value in parameters.items() if name.startswith(self.prefix) and name not in adapted)

    def scores(self, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return logits [texts, way] under parameters that have a head."""
        return self.logits_of(parameters, self.encode(parameters, batch))

    def logits_of(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """Return logits [texts, way] of encodings [texts, H] under parameters that have a head."""
        if self.head_facts.is_linear:
            return F.linear(features, parameters[HEAD + "weight"], parameters[HEAD + "bias"])
        head = {name[len(HEAD) :]: value for name, value in parameters.items() if name.startswith(HEAD)}
        return cast(LogitHead, self.head).logits(head, features)

    def logits(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Return logits [texts, way] under adapted parameters, without a graph; `on_progress` is called with the number of texts just done."""
        if not self.is_transductive:
            return self._in_parts(texts, lambda part, batch: self.logits_of(parameters, self._encoded(parameters, part, batch)), on_progress)
        features = self.features(parameters, texts, on_progress)
        with torch.no_grad():
            return self.logits_of(parameters, features)

    def features(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], on_progress: Callable[[int], None] = lambda texts: None) -> Tensor:
        """Return encodings [texts, H], without a graph; `on_progress` as in `logits`."""
        return self._in_parts(texts, lambda part, batch: self._encoded(parameters, part, batch), on_progress)

    def _encoded(self, parameters: Mapping[str, Tensor], texts: Sequence[np.ndarray], batch: Batch) -> Tensor:
        return self.encode_rest(parameters, batch, self.known(texts, batch, parameters), None)

    def probe(self, parameters: Parameters) -> Tensor:
        found = functional_call(self.model, parameters, (self.model.batch(self.model.example()),)).square().sum()
        if not self.head_facts.reads_word_embeddings:
            return found
        outputs = [parameters[name] for name in self.model.outputs if name is not None]
        return found + sum(each.sum() for each in outputs)

    @property
    def _kernels(self) -> dict[str, bool]:
        """Choose the fused attention kernel on a GPU if no second derivative of it is needed.

        Its gradient cannot be taken under vmap (torch 2.11: "LSE is not correctly aligned").
        """
        first_order = self.first_adapted_layer is None or not mode_of(self.algorithm.meta_gradient).is_second_order
        sequential = self.plan.vectorised == 1 and self.plan.cuda_graphs is None
        return {"fused": True} if first_order and sequential and self.packs and self.model.device.type == "cuda" else {}

    def _in_parts(self, texts: Sequence[np.ndarray], call: Callable[[Sequence[np.ndarray], Batch], Tensor], on_progress: Callable[[int], None]) -> Tensor:
        """Apply a function of some texts and their batch to texts, some at a time, without a graph."""
        found = []
        with torch.no_grad():
            for part in chunks(texts, self.plan.part_tokens):
                found.append(call(texts[part], self.model.batch(texts[part])))
                on_progress(len(found[-1]))
        return torch.cat(found)


class FunctionalLanguageModel(FunctionalModel):
    """A language model, which adapts its parameters or, with `algorithm.head=in_context`, reads the support set before each query."""

    prefix = "language_model."
    model: LanguageModel
    scoring: str | None = None  # score of a label; None: `prompt.scoring`

    def __init__(self, model: LanguageModel, algorithm: AlgorithmConfig):
        """Raises: UserError: the support set has to be read before a query, and the model is not decoder-only."""
        self.reads_support = head_facts(algorithm.head).reads_support
        check_reads_support(model, self.reads_support)
        super().__init__(model, algorithm)

    def read(self, episode: EncodedEpisode) -> EncodedEpisode:
        """Return the episode as its losses read it: with `prompt.scoring=channel`, labels are the inputs and texts the targets.

        Raises:
            UserError: it has no labels, which the channel needs.
        """
        if self.model.prompt is None or not self.model.prompt.is_channel:
            return episode
        targets = targets_of(episode)
        if targets.choices is None:
            raise UserError("prompt.scoring=channel scores labels, and a task has target texts; set prompt.scoring=sum")
        labels = [choice[:-1] for choice in targets.choices]
        support, query = ([with_stop(self.model, text) for text in texts] for texts in (episode.support, episode.query))
        return replace(
            episode,
            support=[labels[label] for label in episode.support_labels],
            query=[labels[label] for label in episode.query_labels],
            targets=TargetTokens(support, query, labels),
        )

    def reading(self, episode: EncodedEpisode) -> Reading:
        """Return what is read around each query: the support set before it, if the model reads that."""
        names = () if targets_of(episode).choices is None else episode.names
        read = self.read(episode)
        targets, texts = targets_of(read), [*read.support, *read.query]
        longest = max(map(len, texts), default=0)
        if read is not episode:
            longest += max(map(len, (*targets.support, *targets.query)), default=0)
        if not self.reads_support:
            return reading_of(self.model, names, (), (), longest)
        # In an order of the episode's own, else the last class would always be the nearest. An example ends as its target does.
        order = np.random.default_rng(episode.seed).permutation(len(episode.support))
        return reading_of(self.model, names, [(read.support[row], targets.support[row]) for row in order], episode.support_labels[order].tolist(), longest)

    def prompts(self, episode: EncodedEpisode) -> Sequence[np.ndarray]:
        """Return the token ids that are read before generation: the queries, each after the support set if the model reads it."""
        return self.reading(episode).of(self.model, episode.query)

    def prompted(self, reads_support: bool, scoring: str | None) -> Self:
        """Return the same model, which reads the support set before each query or does not, with another score of labels; None: `prompt.scoring`."""
        other = copy.copy(self)
        other.reads_support, other.scoring = reads_support, scoring
        return other

    def probe(self, parameters: Parameters) -> Tensor:
        text = np.array(self.model.tokenizer("a")["input_ids"])
        return functional_call(self.model, parameters, (self.model.batch([text, text], [text, text]),)).loss.sum()


def check_reads_support(model: LanguageModel, reads_support: bool) -> None:
    """Raises: UserError: the support set has to be read before a query, and the model is not decoder-only."""
    if reads_support and not model.decoder_only:
        raise UserError("algorithm.head=in_context needs a decoder-only model (GPT-2, Llama); for an encoder-decoder choose algorithm.head=lm")
