"""SetFit (Tunstall et al. 2022) as an arm, run by its own library (extra `compare`)."""

from __future__ import annotations

import tempfile
import time
import warnings

import numpy as np

from metatrain.errors import UserError
from metatrain.evaluation.prediction import Prediction
from metatrain.meta.learner import Learner
from metatrain.models.encoder import Encoder
from metatrain.models.export import Model
from metatrain.tasks.encoded_episode import EncodedEpisode

_POOLING = {"mean": "mean", "first": "cls", "cls": "cls", "last": "lasttoken"}


def check_setfit(encoder: Model) -> None:
    """Raises: UserError: SetFit cannot represent this encoder."""
    if not isinstance(encoder, Encoder):
        raise UserError("evaluation.arms: setfit needs a text encoder; remove it")
    if encoder.pooling not in _POOLING or encoder.uses_pooler:
        raise UserError(f"evaluation.arms: setfit does not support model.pooling={encoder.pooling}; set model.pooling=mean, or remove the arm")


class SetFit:
    """Contrastive finetuning of the encoder on pairs of support texts, then logistic regression; all settings are the defaults of setfit."""

    def __init__(self, untrained: Learner):
        """untrained: a learner whose encoder has passed `check_setfit`."""
        import setfit.trainer
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

        setfit.trainer.logger.setLevel("WARNING")  # otherwise it logs a heading for every episode
        encoder = untrained.model
        with tempfile.TemporaryDirectory() as folder:
            untrained.load_model().backbone.save_pretrained(folder)
            encoder.tokenizer.save_pretrained(folder)
            reader = Transformer(folder, max_seq_length=encoder.max_length)
        modules = [reader, Pooling(encoder.hidden_size, _POOLING[encoder.pooling]), *([Normalize()] if encoder.normalize else [])]
        self._body = SentenceTransformer(modules=modules, device=str(encoder.device))
        self._prefix = encoder.prefix
        self._start = {name: value.clone() for name, value in self._body.state_dict().items()}

    def predict(self, episode: EncodedEpisode) -> Prediction:
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments
        from sklearn.linear_model import LogisticRegression
        from transformers.trainer_callback import PrinterCallback

        raw = episode.raw
        assert raw is not None  # which every episode of an evaluation has
        support, query = ([self._prefix + text for text in texts] for texts in (raw.support, raw.query))
        labels = [int(label) for label in episode.support_labels]
        begin = time.perf_counter()
        self._body.load_state_dict(self._start)
        model = SetFitModel(model_body=self._body, model_head=LogisticRegression())
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                output_dir=folder, report_to="none", save_strategy="no", logging_strategy="no", show_progress_bar=False, seed=episode.seed % 2**31
            )
            trainer = Trainer(model=model, args=settings, train_dataset=Dataset.from_dict({"text": support, "label": labels}))
            trainer.st_trainer.remove_callback(PrinterCallback)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator")
                trainer.train()
        seconds = time.perf_counter() - begin
        probabilities = np.asarray(model.predict_proba(query, as_numpy=True, show_progress_bar=False))
        return Prediction(probabilities.argmax(1), probabilities, seconds)
