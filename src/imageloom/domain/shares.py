"""Who is next on a device: fair between tenants, then by priority, and short work before long.

Tenants are served by start-time fair queueing: each has a clock of the device seconds that it has
had, and the one with the least is next. A tenant that comes, for the first time or again, starts at
the time of the device, which is the least clock of those it served last: so nobody saves up time,
and nobody waits behind all that another has had or has asked for. A priority orders a tenant's own
attempts and leaves its clock alone, so that nobody can ask for the share of another.

Source: Goyal, Vin and Cheng 1996, Start-time Fair Queuing (SIGCOMM), section 2.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant(Generic[K]):
    """An attempt that could use the device: `remaining` units of work are still to come.

    `waited` counts the turns of the device since it last had one.
    """

    key: K
    tenant: str
    priority: int
    remaining: int
    waited: int


class Shares:
    """The clocks of the tenants of one device."""

    def __init__(self) -> None:
        self._clocks: dict[str, float] = {}
        self._time = 0.0

    def order(self, claimants: Sequence[Claimant[K]]) -> list[K]:
        """Return the claimants in the order in which they should be served.

        Tenants take turns, the one that had the least first. Within a tenant the higher priority
        and then the least remaining work comes first; each turn waited counts as a unit less to do,
        so that a long task is not passed by for ever.
        """
        here = {claimant.tenant for claimant in claimants}
        clocks = {tenant: max(self._clocks.get(tenant, 0.0), self._time) for tenant in here}
        self._time = min(clocks.values(), default=self._time)
        # Who is away keeps what it had too much, and loses what it had too little.
        ahead = {tenant: clock for tenant, clock in self._clocks.items() if clock > self._time}
        self._clocks = ahead | clocks
        queues = [
            sorted(
                (claimant for claimant in claimants if claimant.tenant == tenant),
                key=lambda each: (-each.priority, each.remaining - each.waited),
            )
            for tenant in sorted(here, key=lambda name: (self._clocks[name], name))
        ]
        return [each.key for turn in zip_longest(*queues) for each in turn if each is not None]

    def charge(self, tenant: str, *, seconds: float) -> None:
        """Note that a tenant had the device for so long."""
        self._clocks[tenant] = self._clocks.get(tenant, 0.0) + seconds


class Ration:
    """Gives the background its share of a device that is never idle, within one unit of its work.

    What it does while nobody else is there is free.
    """

    def __init__(self) -> None:
        self._balance = 0.0

    @property
    def due(self) -> bool:
        """Whether others have paid for what the background had."""
        return self._balance >= 0

    def earn(self, seconds: float, *, share: float) -> None:
        """Note that others had the device while the background waited; `share` is 0 to 1.

        No more than one unit of theirs is saved up.
        """
        earned = share * seconds
        self._balance = min(earned, self._balance + earned)

    def spend(self, seconds: float, *, share: float) -> None:
        """Note that the background had the device while others waited."""
        self._balance -= (1 - share) * seconds
