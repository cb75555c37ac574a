"""When to try a request again, and after how long: one pure function and its numbers.

Every request of this client may safely be sent twice: it reads, or it brings one thing to a state
in which it may be already, or it carries an Idempotency-Key under which the server answers with
what the first one made. So the question is only whether trying again can help.
"""

from __future__ import annotations

from dataclasses import dataclass

from imageloom.client._errors import APIError, ConnectionFailed, ImageloomError

RETRYABLE_STATUSES = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently to try again. Times are seconds; `retries=0` turns it off."""

    retries: int = 3
    base: float = 0.5
    longest: float = 8.0
    longest_retry_after: float = 30.0


def delay_before_retry(
    failure: ImageloomError, *, tried: int, jitter: float, policy: RetryPolicy
) -> float | None:
    """Return the seconds to wait before the next try, or None to give up with `failure`.

    `tried` counts the tries so far, from 1; `jitter` is uniform in 0 to 1. A server that names a
    time is obeyed up to a cap, plus a little jitter so that its clients do not return as one.
    Otherwise the wait is exponential with full jitter.
    """
    if tried > policy.retries:
        return None
    match failure:
        case APIError(retry_after=float(seconds)) if failure.status in RETRYABLE_STATUSES:
            return min(seconds, policy.longest_retry_after) + jitter * policy.base
        case APIError() if failure.status not in RETRYABLE_STATUSES:
            return None
        case APIError() | ConnectionFailed():
            return jitter * min(policy.longest, policy.base * 2.0 ** (tried - 1))
        case _:
            return None
