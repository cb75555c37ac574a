"""What a background remover answers, whichever way it works."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOut:
    """Where the subject is. `alpha` is row-major uint8, one byte a pixel of the input's size.

    `confidence` is 0 to 1: how much the method trusts itself on this picture; 0 with everything
    opaque means that it found no subject. `method` names it for the user.
    """

    alpha: bytes = field(repr=False)
    confidence: float
    method: str
