"""`Prefer: wait=N` on the routes that create a task: answer when it is over, or after N seconds.

RFC 7240: a preference that is unknown or malformed is no error. `Preference-Applied` tells what was
honoured; where it is missing, the answer did not wait.
"""

from __future__ import annotations

from fastapi import Request, Response

from imageloom.api.context import Context
from imageloom.core.waiting import wait_until_over
from imageloom.domain.tasks import Task

LONGEST_WAIT = 60  # seconds; proxies between a caller and the API give up at about that
PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": (
        "`wait=N` answers when the task is over, or after N seconds with the task as it is then; "
        f"more than {LONGEST_WAIT} is {LONGEST_WAIT}. `Preference-Applied` says what was done; "
        "what is not understood is ignored"
    ),
    "schema": {"type": "string"},
    "example": "wait=30",
}


async def wait_as_preferred(
    request: Request, response: Response, context: Context, task: Task
) -> Task:
    """Return the task, over if the caller prefers to wait and it is over in time."""
    seconds = preferred_wait(request)
    if seconds is None:
        return task
    response.headers["Preference-Applied"] = f"wait={seconds}"

    async def left() -> None:
        # The body has been read: what comes now is that the caller hung up.
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return await wait_until_over(context.services, task, seconds=seconds, left=left)


def preferred_wait(request: Request) -> int | None:
    """Return the seconds that the caller prefers to wait, None where it does not say so rightly."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":  # the first counts, whatever it says
            digits = value.strip().strip('"')
            whole = digits.isascii() and digits.isdigit() and len(digits) < 10
            return min(int(digits), LONGEST_WAIT) if whole else None
    return None
