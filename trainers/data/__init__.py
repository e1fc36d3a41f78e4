"""Data that tasks read from files, memory-mapped and shared by the worker processes of a node."""

from __future__ import annotations

from spectune.trainers.data.corpora import Corpus, CorpusError, read_corpus

__all__ = ["Corpus", "CorpusError", "read_corpus"]
