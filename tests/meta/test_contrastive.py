"""The contrastive terms are their formulas, and their gradient is that of one graph over all texts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from metatrain.errors import UserError
from metatrain.gradient.config import InnerConfig
from metatrain.meta.config import AlgorithmConfig
from metatrain.meta.contrastive import check_contrastive, supervised, unsupervised
from metatrain.meta.encoder_learner import EncoderLearner
from metatrain.models.config import ModelConfig
from metatrain.models.encoder import load_encoder
from metatrain.tasks.encoded_episode import EncodedEpisode

TEXTS = ["a dull film", "a wonderful plot that never lets go", "the brakes are unpredictable", "fast", "cold soup and a long wait", "we came back twice"]
TEMPERATURE = 0.2


def test_the_supervised_loss_by_loops():
    torch.manual_seed(0)
    z, classes = torch.randn(6, 4, dtype=torch.float64), [0, 1, 0, 2, 1, 0]  # class 2 has nothing to be near to
    unit = F.normalize(z, dim=1)
    losses = []
    for i in range(6):
        same = [p for p in range(6) if p != i and classes[p] == classes[i]]
        if same:
            total = sum(math.exp(float(unit[i] @ unit[a]) / TEMPERATURE) for a in range(6) if a != i)
            losses.append(-sum(math.log(math.exp(float(unit[i] @ unit[p]) / TEMPERATURE) / total) for p in same) / len(same))
    assert float(supervised(z, torch.tensor(classes), TEMPERATURE)) == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert float(supervised(z, torch.arange(6), TEMPERATURE)) == 0  # nothing is of another's class


def test_the_unsupervised_loss_by_loops():
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(5, 4, dtype=torch.float64), dim=1) for _ in range(2))
    expected = [-float(a[i] @ b[i]) / TEMPERATURE + math.log(sum(math.exp(float(a[i] @ b[j]) / TEMPERATURE) for j in range(5))) for i in range(5)]
    assert float(unsupervised(3 * a, b, TEMPERATURE)) == pytest.approx(sum(expected) / 5, rel=1e-12)


def learner(kind: str, **more) -> tuple[EncoderLearner, list[EncodedEpisode]]:
    torch.manual_seed(0)
    encoder = load_encoder(ModelConfig(name="tiny", max_length=16), second_order=True, dtype=torch.float64)[0]
    algorithm = AlgorithmConfig(head="prototype", contrastive=kind, contrastive_temperature=TEMPERATURE, **more)
    ids = [np.array(encoder.tokenizer(text)["input_ids"]) for text in TEXTS]
    first = EncodedEpisode(ids[:2], np.array([0, 1]), ids[2:3], np.array([1]), ["no", "yes"], 3)
    second = EncodedEpisode(ids[3:5], np.array([0, 1]), ids[5:], np.array([0]), ["yes", "perhaps"], 4)
    return EncoderLearner(encoder, algorithm, InnerConfig(steps=1), way=None), [first, second]


def test_the_supervised_gradient_is_that_of_one_graph_whatever_the_parts():
    subject, episodes = learner("supervised")
    plain = {name[len("encoder.") :]: value.clone().requires_grad_() for name, value in subject.parameters.items() if name.startswith("encoder.")}
    texts = [text for episode in episodes for text in (*episode.support, *episode.query)]
    encodings = torch.cat([functional_call(subject.model, plain, (subject.model.batch([text]),)) for text in texts])
    loss = supervised(encodings, torch.tensor([0, 1, 1, 1, 2, 1]), TEMPERATURE)  # by name: no, yes, yes, yes, perhaps, yes
    expected = dict(zip(plain, torch.autograd.grad(loss, list(plain.values()))))
    for part_tokens in (8192, 1):
        found = subject.with_plan(replace(subject.plan, part_tokens=part_tokens)).auxiliary_gradient(episodes)
        total = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
        subject.add_gradient(total, found, 1.0)
        assert found.loss == pytest.approx(float(loss), rel=1e-12)
        for name, value in expected.items():
            assert torch.allclose(total["encoder." + name], value, rtol=1e-9, atol=1e-13), name


def test_the_unsupervised_gradient_is_a_slope_of_its_loss():
    subject, episodes = learner("unsupervised", dropout=0.2)
    found = subject.auxiliary_gradient(episodes)
    assert found.loss == subject.auxiliary_gradient(episodes).loss  # dropout is the episodes' own
    total = {name: torch.zeros_like(value) for name, value in subject.parameters.items()}
    subject.add_gradient(total, found, 1.0)
    generator = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(value.shape, generator=generator, dtype=torch.float64) for name, value in total.items()}

    def loss_at(step: float) -> float:
        for name, value in subject.parameters.items():
            value.add_(direction[name], alpha=step)
        return subject.auxiliary_gradient(episodes).loss

    distance = 1e-6
    slope = (loss_at(distance) - loss_at(-2 * distance)) / (2 * distance)
    assert slope == pytest.approx(sum(float((total[name] * direction[name]).sum()) for name in total), rel=1e-5)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"contrastive": "other"}, "contrastive=other is unknown"),
        ({"contrastive_weight": 0.0}, "contrastive_weight=0.0 must be a positive"),
        ({"contrastive": "unsupervised"}, "set algorithm.dropout"),
        ({"head": "lm"}, "needs encodings"),
        ({"train": "adapted", "adapt": "head"}, "set algorithm.train=all"),
    ],
)
def test_terms_that_cannot_be(changes, expected):
    with pytest.raises(UserError, match=expected):
        check_contrastive(AlgorithmConfig(**{"contrastive": "supervised", **changes}))
