"""Arms of a language model that is not adapted: its prompt has the support set as examples, or no example."""

from __future__ import annotations

from typing import Any

from metatrain.errors import UserError
from metatrain.evaluation.prediction import Prediction
from metatrain.meta.language_learner import LanguageLearner
from metatrain.meta.learner import Learner
from metatrain.models.language_model import LanguageModel
from metatrain.tasks.encoded_episode import EncodedEpisode

CALIBRATED = "calibrated"


class Prompted:
    """A language model with its own parameters, which reads the support set before each query or does not."""

    def __init__(self, learner: Learner, reads_support: bool, scoring: str | None = None):
        """scoring: score of a label (`prompt.scoring`); None: that of the learner."""
        assert isinstance(learner, LanguageLearner)  # `chosen_arms` refuses these arms for encoders
        self.learner = learner.prompted(reads_support, scoring)

    def predict(self, episode: EncodedEpisode) -> Prediction:
        parameters, left_out = self.learner.initial, self.learner.functional.reading(episode).left_out
        probabilities = self.learner.probabilities(parameters, episode)
        if probabilities is None:
            return Prediction(self.learner.predictions(parameters, episode), None, 0.0, self.learner.target_loss(parameters, episode), left_out)
        return Prediction(probabilities.argmax(1), probabilities, 0.0, left_out=left_out)


def check_reads_examples(model: Any) -> None:
    """Raises: UserError: the model cannot read examples before a text."""
    if isinstance(model, LanguageModel) and not model.decoder_only:
        raise UserError("evaluation.arms: in_context reads examples before a text, which needs a decoder-only model; remove it")


def check_calibrated(model: Any) -> None:
    """Raises: UserError: the prompts of the model begin with the label."""
    if isinstance(model, LanguageModel) and model.prompt_config.scoring == "channel":
        raise UserError("evaluation.arms: the calibrated arms score labels after texts, and prompt.scoring=channel scores texts after labels; remove them")


def check_calibrated_examples(model: Any) -> None:
    """Raises: UserError: `check_reads_examples` or `check_calibrated` does."""
    check_reads_examples(model)
    check_calibrated(model)
