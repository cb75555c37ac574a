"""Receipts: what a picture was made from, so that it can be made again and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Result = Literal["identical", "near", "different"]

# Levels of 255 that two pictures may be apart and still be called near. A batch on a GPU promises
# one; a lossy encoder makes up to 23 of one (JPEG 95 and WebP 92, three photographs of 512 px).
NEAR_LOSSLESS: Final = 2
NEAR_LOSSY: Final = 24
_LOSSLESS: Final = frozenset({"image/png"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterReceipt:
    """One adapter that acted on a picture: the digest of its file, and how strongly it acted."""

    name: str
    sha256: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a picture was made from, beyond its task's parameters.

    `weights` is the digest of the model's, `input` that of the bytes of the picture it began from.
    `scheduler` is a class and its settings, `device` the machine, its kernels and the dtype of the
    weights, `versions` those of Imageloom and the libraries, with a digest of our code.
    """

    seed: int
    model: str
    weights: str
    adapters: tuple[AdapterReceipt, ...]
    input: str | None
    scheduler: Mapping[str, Any]
    device: Mapping[str, str]
    versions: Mapping[str, str]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Receipt:
        """Return a receipt from the map that `dataclasses.asdict` made of it."""
        adapters = tuple(AdapterReceipt(**adapter) for adapter in stored["adapters"])
        return cls(**{**stored, "adapters": adapters})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRef:
    """One output of a task, by its index."""

    task_id: str
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """How an output that was made again compares with the first.

    `largest_difference` is that of a channel of a pixel, 0 to 255, None where the sizes differ.
    `changed` are the fields of the receipt that are not what they were, as `versions.torch`.
    """

    result: Result
    largest_difference: int | None
    changed: tuple[str, ...]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Reproduction:
        """Return a comparison from the map that `dataclasses.asdict` made of it."""
        return cls(**{**stored, "changed": tuple(stored["changed"])})


def judge(
    *,
    same_bytes: bool,
    largest_difference: int | None,
    media_type: str,
    before: Receipt | None,
    now: Receipt | None,
) -> Reproduction:
    """Return what is to be said of two pictures; of those without a receipt, nothing changed."""
    near = NEAR_LOSSLESS if media_type in _LOSSLESS else NEAR_LOSSY
    result: Result = "different"
    if same_bytes:
        result = "identical"
    elif largest_difference is not None and largest_difference <= near:
        result = "near"
    return Reproduction(
        result=result,
        largest_difference=largest_difference,
        changed=() if before is None or now is None else changed_fields(before, now),
    )


def changed_fields(before: Receipt, now: Receipt) -> tuple[str, ...]:
    """Return the names of the fields that differ, in order of their name."""
    first, second = _flat(asdict(before)), _flat(asdict(now))
    names = sorted(first.keys() | second.keys())
    return tuple(name for name in names if first.get(name) != second.get(name))


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        children = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        children = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {name: list(value) if isinstance(value, tuple) else value}
    found: dict[str, Any] = {}
    for key, inner in children:
        found |= _flat(inner, f"{name}.{key}" if name else key)
    return found
