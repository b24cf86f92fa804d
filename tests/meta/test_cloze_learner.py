"""Meta-gradients of cloze prompts in float64 against plain loops over transformers' own masked language model, and what is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from small_models import save_masked
from torch.func import functional_call

from metatrain.checkpoints.opening import open_checkpoint
from metatrain.checkpoints.recipe import Recipe
from metatrain.checkpoints.saving import save_model
from metatrain.config.schema import Overrides
from metatrain.errors import UserError
from metatrain.evaluation.chosen_arms import chosen_arms
from metatrain.evaluation.config import EvaluationConfig
from metatrain.gradient.config import InnerConfig
from metatrain.meta.algorithm import check_algorithm
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.cloze import load_cloze_encoder
from metatrain.models.config import ModelConfig, PromptConfig
from metatrain.models.export import Classifier, save_finetuned
from metatrain.tasks.config import EpisodeConfig
from metatrain.tasks.encoded_episode import EncodedEpisode

LR, STEPS = 0.05, 2
PROMPT = PromptConfig(text="{text} It was {mask}.")
SUPPORT, QUERY = ["a dull film", "a wonderful plot that never lets go", "good and fast"], ["cold soup and a long wait", "the film was very good"]
LABELS, NAMES = ([0, 1, 1], [0, 1]), ["bad", "very good"]  # a word that also occurs in the texts, and one of two tokens


def cloze(folder: str, mode: str = "exact", adapt: str = "all", dtype: torch.dtype = torch.float64, steps: int = STEPS) -> EncoderLearner:
    encoder, _ = load_cloze_encoder(ModelConfig(name=folder), PROMPT, second_order=True, dtype=dtype)
    algorithm = AlgorithmConfig(head="mlm", adapt=adapt, last_layers=1, meta_gradient=mode)
    return EncoderLearner(encoder, algorithm, InnerConfig(lr=LR, steps=steps), None)


def episode_of(learner: EncoderLearner, support=SUPPORT, query=QUERY, labels=LABELS, names=NAMES) -> EncodedEpisode:
    tokens = learner.model.tokens()
    return EncodedEpisode(
        tokens.encode(support), np.array(labels[0]), tokens.encode(query), np.array(labels[1]), names, name_tokens=tokens.names(names)
    )  # fmt: skip


class Plain:
    """Finetuning of transformers' masked language model on cross-entropy over the logits of the label words, in one graph."""

    def __init__(self, folder: str, adapt: str, first_order: bool):
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model: Any = transformers.AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").double().eval()
        self.words = [[self.tokenizer.convert_tokens_to_ids(word) for word in name.split()] for name in NAMES]
        self.theta = {name: value.detach().clone().requires_grad_() for name, value in self.model.named_parameters()}
        self.adapted = [name for name in self.theta if adapt == "all" or ".layer.1." in name]
        self.first_order = first_order

    def loss(self, parameters, texts, labels) -> torch.Tensor:
        rows = []
        for text in texts:
            inputs = self.tokenizer(f"{text} It was {self.tokenizer.mask_token}.", return_tensors="pt", return_token_type_ids=False)
            logits = functional_call(self.model, parameters, (), dict(inputs)).logits[inputs["input_ids"] == self.tokenizer.mask_token_id][0]
            rows.append(torch.stack([logits[word].mean() for word in self.words]))
        return F.cross_entropy(torch.stack(rows), torch.tensor(labels))

    def objective(self, theta) -> torch.Tensor:
        phi = dict(theta)
        for _ in range(STEPS):
            loss = self.loss(phi, SUPPORT, LABELS[0])
            found = torch.autograd.grad(loss, [phi[name] for name in self.adapted], create_graph=True, materialize_grads=True)
            phi.update({name: phi[name] - LR * (each.detach() if self.first_order else each) for name, each in zip(self.adapted, found)})
        return self.loss(phi, QUERY, LABELS[1])


@pytest.mark.parametrize(
    "family, adapt, mode", [("bert", "all", "exact"), ("bert", "last_layers", "exact"), ("bert", "all", "first_order"), ("albert", "all", "exact_recomputed")]
)
def test_meta_gradients_are_those_of_plain_finetuning(family, adapt, mode, tmp_path):
    folder = save_masked(family, tmp_path, mask_is_last=adapt == "all")
    learner, plain = cloze(folder, mode, adapt), Plain(folder, adapt, mode == "first_order")
    found = learner.mean_gradient([episode_of(learner)])
    objective = plain.objective(plain.theta)
    expected = torch.autograd.grad(objective, list(plain.theta.values()), materialize_grads=True)
    assert {name.removeprefix("encoder.backbone.") for name in found} == set(plain.theta)
    for name, value in zip(plain.theta, expected):
        torch.testing.assert_close(found[f"encoder.backbone.{name}"], value, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_meta_gradients_are_central_differences_of_plain_finetuning(tmp_path):
    folder, step = save_masked("bert", tmp_path, mask_is_last=False), 1e-6
    learner, plain = cloze(folder), Plain(folder, "all", False)
    found = learner.mean_gradient([episode_of(learner)])
    torch.manual_seed(2)
    direction = {name: torch.randn_like(value) for name, value in plain.theta.items()}

    def at(sign: int) -> torch.Tensor:
        moved = {name: (value + sign * step * direction[name]).detach().requires_grad_() for name, value in plain.theta.items()}
        return plain.objective(moved).detach()

    slope = sum((found[f"encoder.backbone.{name}"] * value).sum() for name, value in direction.items())
    torch.testing.assert_close(slope, (at(1) - at(-1)) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_head_is_the_adapted_word_embedding(tmp_path):
    learner = cloze(save_masked("bert", tmp_path, False))
    assert not learner.functional.head_adapts and learner.functional.sparse == ["encoder.backbone.bert.embeddings.word_embeddings.weight"]
    adapted, _ = learner.adapt(episode_of(learner))
    (row,) = learner.model.tokens().names(["bad"])[0]
    torch.testing.assert_close(adapted["head.weight"][0], adapted["encoder.backbone.bert.embeddings.word_embeddings.weight"][row], rtol=0, atol=0)
    assert not torch.equal(adapted["head.weight"][0], learner.parameters["encoder.backbone.bert.embeddings.word_embeddings.weight"][row])
    torch.testing.assert_close(adapted["head.bias"][0], adapted["encoder.backbone.cls.predictions.bias"][row], rtol=0, atol=0)


def test_meta_training_learns_words_that_a_new_episode_reads(tmp_path):
    """Without inner steps: the label word is what the texts say, and the text of the query is none of the training's.

    The support texts of both classes are the same, so a head made from them has the same logits for both classes, before and after meta-training.
    """
    learner = cloze(save_masked("bert", tmp_path, False), adapt="head", dtype=torch.float32, steps=0)
    fillers = ["film", "plot", "wait", "soup", "brakes"]
    said = [(f"{word} and {other}", label) for label, word in enumerate(["dull", "wonderful"]) for other in ("fast", "cold")]
    texts = [(f"the {filler} was {words}", label) for filler in fillers for words, label in said]
    train, held_out = texts[:-4], texts[-4:]
    names = ["bad", "good"]
    optimizer = torch.optim.Adam(learner.parameters.values(), lr=3e-3)
    query, labels = map(list, zip(*train))
    episode = episode_of(learner, ["film", "film"], query, ([0, 1], labels), names)
    for _ in range(15):
        gradient = learner.mean_gradient([episode])
        for name, value in learner.parameters.items():
            value.grad = gradient[name]
        optimizer.step()
    query, labels = map(list, zip(*held_out))
    new = episode_of(learner, ["film", "film"], query, ([0, 1], labels), names)
    adapted, _ = learner.adapt(new)
    assert learner.predictions(adapted, new).tolist() == labels


def test_an_exported_model_and_a_finetuned_one_score_as_the_learner(tmp_path):
    torch.manual_seed(0)
    learner = cloze(save_masked("bert", tmp_path / "base", False), dtype=torch.float32)
    config = ModelConfig(name=str(tmp_path / "base"), max_length=32)
    recipe = Recipe(config, learner.algorithm, learner.inner, EpisodeConfig(), 0, prompt=PROMPT)
    for value in learner.parameters.values():
        value += 0.05 * torch.randn_like(value)  # what meta-training would have changed
    save_model(tmp_path / "model", learner, recipe)
    episode = episode_of(learner)
    adapted, _ = learner.adapt(episode)
    expected = learner.logits(adapted, episode.query)

    opened = open_checkpoint(str(tmp_path / "model"), Overrides(), torch.device("cpu"), torch.float32, lambda line: None).learner
    again, _ = opened.adapt(episode_of(opened))
    torch.testing.assert_close(opened.logits(again, episode.query), expected, rtol=1e-5, atol=1e-5)

    model = learner.functional.write_to_model(adapted)
    assert save_finetuned(tmp_path / "finetuned", model, adapted, NAMES) == "metatrain"
    torch.testing.assert_close(Classifier(tmp_path / "finetuned", torch.device("cpu")).scores(QUERY), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "algorithm, inner, message",
    [
        ({"adapt": "head"}, {}, "algorithm.adapt=head adapts nothing, because the rows of algorithm.head=mlm are word embeddings"),
        ({"adapt": "head"}, {"fit_head": True, "steps": 0}, "inner.fit_head=true fits the rows of a head"),
        ({"label_names": True}, {}, "algorithm.head=mlm already reads the label names"),
        ({"adapt": "last_layers"}, {"loss": "leave_one_out"}, "which algorithm.head=mlm does not read"),
        ({"adapt": "head", "train": "adapted"}, {"steps": 0}, "leaves nothing to train"),
    ],
)
def test_what_does_not_go_together(algorithm, inner, message):
    with pytest.raises(UserError) as error:
        check_algorithm(AlgorithmConfig(head="mlm", **algorithm), InnerConfig(**inner), ModelConfig(name="tiny"))
    assert message in str(error.value)


def test_arms_that_encode_label_names_are_refused():
    with pytest.raises(UserError, match="leave_one_out encodes label names as texts, and algorithm.head=mlm predicts them as words"):
        chosen_arms(EvaluationConfig(arms=["leave_one_out"]), AlgorithmConfig(head="mlm"), [])
