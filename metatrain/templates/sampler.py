"""A sampler: favours the tasks with losses near the mean, neither the easiest nor the hardest ones."""

import numpy as np

from metatrain.tasks.sampler import Sampler


def intermediate(sampler: Sampler, step: int) -> np.ndarray:
    """Return the logarithm of the factor on each task's weight, [tasks]; hardness: standardised mean losses, [tasks]."""
    return -sampler.config.strength * np.abs(sampler.hardness())
