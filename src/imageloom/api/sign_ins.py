"""How often an address may send a wrong key: ten at once, then one every six seconds.

A key that we made cannot be guessed at any speed; one that an operator chose may be. The count is
in the memory of one process and stays small, whoever asks from wherever.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from imageloom.domain.errors import TooManySignIns

AT_ONCE: Final = 10
SECONDS_EACH: Final = 6.0  # until one more may fail
ADDRESSES: Final = 4096  # that are remembered; about 1 MB


class SignIns:
    """Counts wrong keys by address, as the instant at which the address has none to its account."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._even_at: OrderedDict[str, float] = OrderedDict()  # the longest unheard of is first

    def check(self, address: str) -> None:
        """Make sure that the address may try a key. Raises: TooManySignIns."""
        owed = self._even_at.get(_network(address), 0.0) - self._clock()
        wait = owed - (AT_ONCE - 1) * SECONDS_EACH
        if wait > 0:
            seconds = math.ceil(wait)
            raise TooManySignIns(
                f"too many wrong keys from this address; try again in {seconds} s",
                retry_after=seconds,
            )

    def failed(self, address: str) -> None:
        """Note a wrong key."""
        network, now = _network(address), self._clock()
        self._even_at[network] = max(self._even_at.get(network, 0.0), now) + SECONDS_EACH
        self._even_at.move_to_end(network)
        if len(self._even_at) > ADDRESSES:
            self._even_at.popitem(last=False)


def _network(address: str) -> str:
    """Return what one customer of a provider has: an IPv4 address, or 2^64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
