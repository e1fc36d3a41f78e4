"""Seeds: one generator per purpose, so that model, data and steps never share random numbers.

A purpose is a word. Equal seeds under two purposes give unrelated streams, and a stream depends on nothing but its
purpose and its numbers: not on what was drawn before, not on torch's global state.
"""

from __future__ import annotations

import hashlib

import torch


def generator_for(purpose: str, *numbers: int) -> torch.Generator:
    """Make the CPU generator of one purpose, for example `generator_for("model", seed)`."""
    text = ":".join([purpose, *map(str, numbers)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator
