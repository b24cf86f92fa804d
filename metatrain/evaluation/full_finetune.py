"""Full finetuning as an arm: all encoder parameters and a zero-initialised head are trained on the support set only.

A baseline must be as strong as common practice makes it: a few hundred updates in small batches with warm-up (Mosbach et al. 2021 show the
cost of fewer), and a learning rate chosen on validation tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from metatrain.errors import UserError
from metatrain.evaluation.config import EvaluationConfig, FullFinetuneConfig
from metatrain.evaluation.prediction import Prediction
from metatrain.evaluation.statistics import accuracy, log_loss
from metatrain.meta.encoder_fit import Start, Support, Training
from metatrain.meta.learner import EncodingLearner
from metatrain.meta.progress import Silent
from metatrain.models.heads import ZeroHead
from metatrain.tasks.encoded_episode import EncodedEpisode

VALIDATION_TASKS, VALIDATION_EPISODES = 4, 2  # number of tasks, and of episodes per task, for the choice of the learning rate


class FullFinetuned:
    """Adam on all parameters of a learner's encoder, which starts from the same weights in every episode."""

    def __init__(self, start: EncodingLearner, config: FullFinetuneConfig):
        self.start = start.with_head(ZeroHead())  # its head is a linear layer, whatever that of the method is
        self.config, self.lr = config, config.lr

    def predict(self, episode: EncodedEpisode) -> Prediction:
        begin = time.perf_counter()
        parameters = self._trained(episode)
        seconds = time.perf_counter() - begin
        probabilities = self.start.probabilities(parameters, episode)
        return Prediction(probabilities.argmax(1), probabilities, seconds)

    def choose_rate(self, episodes: Sequence[EncodedEpisode], on_progress: Callable[[int], None] = lambda done: None) -> None:
        """Choose the learning rate with the highest mean accuracy on these episodes; ties go to the lowest log loss.

        `on_progress` is called with the number of episodes finished since its last call.
        """
        tried = []
        for rate in self.config.rates:
            self.lr = rate
            scores = []
            for episode in episodes:
                found = self.predict(episode)
                labels = np.asarray(episode.query_labels)
                assert found.probabilities is not None
                scores.append((accuracy(np.asarray(found.predicted), labels), -log_loss(found.probabilities, labels)))
                on_progress(1)
            tried.append((*np.mean(scores, axis=0), rate))
        self.lr = max(tried)[-1]

    def _trained(self, episode: EncodedEpisode) -> dict[str, torch.Tensor]:
        """Return all parameters after the updates."""
        support = Support.of(self.start.functional, episode)
        rows, hidden, dtype = len(episode.names), self.start.model.hidden_size, next(self.start.model.parameters()).dtype
        head = {"weight": torch.zeros(rows, hidden, dtype=dtype), "bias": torch.zeros(rows, dtype=dtype)}
        head_lr = self.config.head_lr if self.config.head_lr is not None else self.lr
        training = Training(Start(self.start.functional, self.start.parameters), support, np.arange(len(support.texts)), head, episode.seed, (self.lr, head_lr))
        training.train(self.config.steps, Silent())
        return training.result(1.0)


def check_full_finetune(config: EvaluationConfig) -> None:
    """Raises: UserError: a value makes no sense."""
    found = config.full_finetune
    if found.rule != "adam":
        raise UserError(f"evaluation.full_finetune.rule={found.rule}: full finetuning always uses Adam; remove it")
    for key, rates in (("lr", [found.lr]), ("rates", found.rates), ("head_lr", [] if found.head_lr is None else [found.head_lr])):
        if not all(0 <= rate < float("inf") for rate in rates):
            raise UserError(f"evaluation.full_finetune.{key}={getattr(found, key)}: a learning rate must be a finite number, zero or more")
    if found.steps < 1:
        raise UserError(f"evaluation.full_finetune.steps={found.steps} must be 1 or more")
