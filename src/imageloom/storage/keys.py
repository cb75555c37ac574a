"""Name what is stored. A key is relative, has no `..`, and means the same in a folder and a bucket.

Every segment begins with a letter or digit, so no key is hidden, a parent folder or an option.
"""

from __future__ import annotations

import re

from imageloom.domain.errors import NotFound

LONGEST_KEY = 512
_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*", re.ASCII)
_ONE_SEGMENT = re.compile(_SEGMENT, re.ASCII)


def output_key(task_id: str, attempt: int, index: int, suffix: str) -> str:
    """Return where attempt `attempt` of a task writes its output `index`.

    The attempt is part of the key, so an attempt that lost its lease never overwrites.
    """
    return _join("outputs", task_id, str(attempt), f"{index}.{suffix}")


def preview_key(task_id: str, attempt: int, index: int, step: int) -> str:
    """Return where a preview of output `index` is, seen after so many steps."""
    return _join("outputs", task_id, str(attempt), f"preview-{index}-{step}.jpg")


def output_prefix(task_id: str) -> str:
    """Return the folder of everything that a task made, in all its attempts."""
    return _join("outputs", task_id)


def attempt_prefix(task_id: str, attempt: int) -> str:
    """Return the folder of what one attempt made."""
    return _join("outputs", task_id, str(attempt))


def task_of(output: str) -> str:
    """Return the id of the task whose output key this is. Raises: NotFound where it is none."""
    match output.split("/"):
        case ["outputs", task_id, _, _]:
            return task_id
        case _:
            raise NotFound("nothing is stored under that name")


def upload_key(tenant: str, file_id: str) -> str:
    """Return where a tenant's uploaded file is."""
    return _join("uploads", tenant, file_id)


def file_of(key: str) -> str | None:
    """Return the id of the upload whose key this is, None where it is none."""
    match key.split("/"):
        case ["uploads", _, file_id]:
            return file_id
        case _:
            return None


def checkpoint_prefix(task_id: str) -> str:
    """Return the folder of what a training can go on from."""
    return _join("checkpoints", task_id)


def checkpoint_key(task_id: str, attempt: int, step: int) -> str:
    """Return where attempt `attempt` of a training writes its checkpoint after `step` steps."""
    return _join("checkpoints", task_id, str(attempt), f"{step}.safetensors")


def adapter_key(tenant: str, task_id: str, sha256: str) -> str:
    """Return where an adapter with those bytes is that a training of the tenant made.

    Each training has its own copy: one that goes on deletes what it has left behind, which another
    with the same bytes may have published.
    """
    return _join("adapters", tenant, task_id, f"{sha256}.safetensors")


def is_key(text: str) -> bool:
    """Return whether `text` is a key that `put` accepts."""
    return len(text) <= LONGEST_KEY and _KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return `key` as it is.

    Raises: NotFound when it is no key: nothing can be stored under it.
    """
    if not is_key(key):
        raise NotFound("nothing is stored under that name")
    return key


def _join(*segments: str) -> str:
    for segment in segments:
        if not _ONE_SEGMENT.fullmatch(segment):
            raise NotFound("nothing is stored under that name")
    return check_key("/".join(segments))
