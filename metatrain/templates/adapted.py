"""Adapted parameters: the biases of the encoder and the head (BitFit, Ben Zaken et al. 2022)."""

from metatrain.models.adapters import AdaptedRow

biases = AdaptedRow(pattern=r"\.bias$", reads=())
