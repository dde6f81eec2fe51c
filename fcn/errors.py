"""The errors of the trainer whose text is meant for the person at the keyboard."""

from __future__ import annotations


class FcnError(Exception):
    """Base of the errors below; their text says what was wrong, where, and what to do."""


class ConfigError(FcnError):
    """A configuration key or value that cannot be used."""


class DataError(FcnError):
    """A list, image, mask or MindRecord file that cannot be used."""


class WeightsError(FcnError):
    """A checkpoint or weights file that does not fit the network."""


class SaveError(FcnError):
    """A checkpoint that could not be written."""
