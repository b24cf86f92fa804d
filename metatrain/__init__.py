"""metatrain: meta-pre-training of language models over a distribution of NLP tasks."""

__version__ = "0.1.0"
