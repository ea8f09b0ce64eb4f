"""Defines the version of the package; nothing else does."""

__version__ = "0.1.0"
