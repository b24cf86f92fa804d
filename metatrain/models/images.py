"""Image encoders (ViT and similar), and encoders of images and texts into one space (CLIP and similar).

An image is an array [patches, values] of preprocessed pixels, so that its length is a measure of its cost, as for a text; a text is an
array of token ids [tokens].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, CLIPConfig, CLIPModel, PreTrainedTokenizerBase, ViTConfig, ViTModel

from metatrain.errors import UserError
from metatrain.models.backbone import Backbone
from metatrain.models.batches import Mixed, Padded, pad
from metatrain.models.config import BUILT_IN, ModelConfig
from metatrain.models.dropout import dropout, set_dropout
from metatrain.models.pretrained import attention_for, attention_in_log, load_backbone, load_image_processor, load_tokenizer, model_type, name_in_log
from metatrain.models.scratch import check_size, scratch_tokenizer
from metatrain.plugins import check_installed
from metatrain.tasks.tokens import Tokens

IMAGES_ONLY = ("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model")  # architectures of image encoders
WITH_TEXTS = ("clip", "siglip")  # architectures of encoders of images and texts
SCRATCH = ("scratch:vit", "scratch:clip")
_SIDE, _PATCH = 32, 8  # side of an image and of a patch in pixels, for models with random weights


class ImageReader:
    """Callable that reads an image file into an array [patches, values]."""

    def __init__(self, processor: Any, side: int, patch: int):
        self.processor, self.side, self.patches = processor, side, (side // patch) ** 2

    def __call__(self, path: str) -> np.ndarray:
        """Raises: UserError: the file is no image."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                pixels = self.processor(images=image.convert("RGB"), return_tensors="np")["pixel_values"][0]
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{path}: cannot be read as an image: {str(error).splitlines()[0]}") from error
        return np.asarray(pixels, dtype=np.float32).reshape(self.patches, -1)


class ImageEncoder(nn.Module):
    """Encoder of images, and of texts if the model has a text encoder: `encoder(batch)` has shape [inputs, H]."""

    new_tokenizer = False  # True: the tokenizer was trained on the training tasks and is not saved yet
    layers = 0  # it cannot be split
    fixed_ids = 0
    word_embeddings = None

    def __init__(self, backbone: Backbone, tokenizer: PreTrainedTokenizerBase | None, reader: ImageReader, config: ModelConfig):
        super().__init__()
        self.backbone: Backbone = backbone.eval()
        self.tokenizer, self.reader = tokenizer, reader
        self.pooling, self.normalize = config.pooling, config.normalize
        self.max_length = config.max_length if tokenizer is not None else reader.patches

    @property
    def hidden_size(self) -> int:
        config = self.backbone.config
        return config.projection_dim if config.model_type == "clip" else getattr(config, "hidden_size", None) or config.text_config.hidden_size

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def tokens(self) -> Tokens:
        """Return the preprocessing of its images and the tokenisation of its texts."""
        return Tokens(self.tokenizer, self.max_length, read_image=self.reader)

    def probe(self, tokens: int) -> np.ndarray:
        """Return a test image."""
        return np.ones((self.reader.patches, 3 * self.reader.side**2 // self.reader.patches), dtype=np.float32)

    def example(self) -> list[np.ndarray]:
        """Return a test image, and a text if the model encodes texts."""
        image = self.probe(self.reader.patches)
        return [image] if self.tokenizer is None else [image, np.array(self.tokenizer("a b")["input_ids"])]

    def set_dropout(self, rate: float) -> None:
        set_dropout(self.backbone, rate)

    def batch(self, inputs: Sequence[np.ndarray]) -> Mixed:
        """Return model inputs.

        Raises:
            UserError: there are texts, and the model reads only images.
        """
        is_text = np.array([each.ndim == 1 for each in inputs])
        if is_text.any() and self.tokenizer is None:
            raise UserError("the tasks have texts, but this is an image model; choose a model of images and texts (CLIP)")
        padding = 0 if self.tokenizer is None else self.tokenizer.pad_token_id or 0
        texts = [each for each in inputs if each.ndim == 1]
        side = self.reader.side
        images = [each.reshape(3, side, side) for each in inputs if each.ndim == 2]
        dtype = next(self.backbone.parameters()).dtype
        return Mixed(
            pad(texts, padding, self.device) if texts else None,
            torch.from_numpy(np.stack(images)).to(self.device, dtype) if images else None,
            torch.from_numpy(np.argsort(np.argsort(~is_text, kind="stable"))).to(self.device),
        )

    def forward(self, batch: Mixed, hidden: None = None, start: int = 0, stop: int | None = None, seed: int | None = None) -> Tensor:
        """Return encodings of shape [inputs, H]. With a `seed`, dropout is on; the other arguments have no effect."""
        if seed is not None:
            with dropout(self.backbone, seed, self.device):
                return self(batch)
        parts = [] if batch.texts is None else [self._texts(batch.texts)]
        if batch.images is not None:
            parts.append(self._images(batch.images))
        encodings = torch.cat(parts).index_select(0, batch.order)
        return F.normalize(encodings, dim=-1) if self.normalize else encodings

    def _texts(self, texts: Padded) -> Tensor:
        groups = [self.backbone.get_text_features(input_ids=group.input_ids, attention_mask=group.attention_mask).pooler_output for group in texts.groups]
        return torch.cat(groups).index_select(0, texts.order)

    def _images(self, images: Tensor) -> Tensor:
        if self.tokenizer is not None:
            return self.backbone.get_image_features(pixel_values=images).pooler_output
        hidden = self.backbone(pixel_values=images).last_hidden_state  # [images, 1 + patches, H]
        return hidden.mean(1) if self.pooling == "mean" else hidden[:, 0]


def is_image_model(config: ModelConfig) -> bool:
    """Return True if the model reads images.

    Raises:
        UserError: there is no such model.
    """
    if config.name in SCRATCH:
        return True
    built_in = config.name in BUILT_IN or ":" in config.name
    return not built_in and model_type(config) in (*IMAGES_ONLY, *WITH_TEXTS)


def load_image_encoder(
    config: ModelConfig, second_order: bool, dtype: torch.dtype = torch.float32, texts: Iterable[str] = ()
) -> tuple[ImageEncoder, list[str]]:
    """Load `config.name`; return the encoder and lines for the log.

    texts: texts of the training tasks, from which a randomly initialised CLIP learns its tokenizer.

    Raises:
        UserError: the model does not exist, cannot be read, or the settings do not fit it.
    """
    check_installed("an image model", "PIL", "pictures")
    if dtype == torch.bfloat16:
        raise UserError("hardware.precision=bf16 is not supported for image models; set hardware.precision=float32")
    if config.pooling == "last":
        raise UserError("model.pooling=last needs causal attention, which image models do not have; choose mean or first")
    attention = attention_for(second_order)
    if config.name in SCRATCH:
        backbone, tokenizer, processor = _from_scratch(config, texts, attention)
    else:
        backbone = load_backbone(config.name, config, lambda _: (AutoModel, {}), attention, dtype)
        tokenizer = load_tokenizer(config.name, config) if model_type(config) in WITH_TEXTS else None
        processor = load_image_processor(config)
    vision = getattr(backbone.config, "vision_config", backbone.config)
    encoder = ImageEncoder(backbone.to(dtype), tokenizer, ImageReader(processor, vision.image_size, vision.patch_size), config)
    encoder.new_tokenizer = config.name in SCRATCH and tokenizer is not None and config.tokenizer is None
    size = sum(parameter.numel() for parameter in encoder.parameters())
    what = "images" if tokenizer is None else "images and texts"
    return encoder, [
        f"model: {name_in_log(config)}, of {what}, {size / 1e6:.1f}M parameters{', normalised' if config.normalize else ''}",
        attention_in_log(encoder.backbone, second_order),
    ]


def _from_scratch(config: ModelConfig, texts: Iterable[str], attention: str | None) -> tuple[Backbone, PreTrainedTokenizerBase | None, Any]:
    """Return a small model with random weights, which depend on the global seed."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    check_size(config.scratch)
    size: dict[str, Any] = {
        "hidden_size": config.scratch.hidden,
        "num_hidden_layers": config.scratch.layers,
        "num_attention_heads": config.scratch.heads,
        "intermediate_size": 4 * config.scratch.hidden,
        "attention_dropout": 0.0,
    }
    image = {**size, "image_size": _SIDE, "patch_size": _PATCH}
    processor = ViTImageProcessorPil(size={"height": _SIDE, "width": _SIDE})
    if config.name == "scratch:vit":
        vision = ViTConfig(**{**image, "attn_implementation": attention})
        return ViTModel(vision, add_pooling_layer=False), None, processor
    tokenizer = scratch_tokenizer(config, texts, ends=True)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**size, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": config.max_length}
    both: dict[str, Any] = {"text_config": text, "vision_config": image, "attn_implementation": attention}
    clip = CLIPConfig(projection_dim=config.scratch.hidden, **both)
    return CLIPModel(clip), tokenizer, processor
