"""Unsupervised domain adaptation of pre-trained language models with adapters."""

__version__ = "0.1.0"
