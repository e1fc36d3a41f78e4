"""Data that tasks read from files, memory-mapped and shared by the worker processes of a node."""

from __future__ import annotations

from trainers.data.text import CorpusError, Text, read_text

__all__ = ["CorpusError", "Text", "read_text"]
