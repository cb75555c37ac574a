"""One seed per picture, so that any picture of a task can be asked for again alone."""

from __future__ import annotations

import secrets

MAX_SEED = 2**63 - 1


def draw_seed() -> int:
    """Return a seed for a request that named none; 32 bits, so that it is easy to copy."""
    return secrets.randbits(32)


def picture_seed(seed: int, index: int) -> int:
    """Return the seed of picture `index` of a task: `seed + index`, wrapping after 2^63 - 1."""
    return (seed + index) % (MAX_SEED + 1)
