"""Sign URLs that are read without a key: what they open, and until when, stands in the signature.

HMAC-SHA256 by itsdangerous, compared in constant time. Tokens need no escaping in a URL path.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from itsdangerous import BadData, URLSafeSerializer

from imageloom.domain.errors import Gone, NotFound

SHORTEST_SECRET = 16  # bytes
LONGEST_TOKEN = 2048  # characters


class UrlSigner:
    """Makes and checks tokens. A token of one `kind` is worthless for any other.

    `secret` is at least 16 random bytes, the same in every process. `now` is the clock, in Unix
    seconds.
    """

    def __init__(self, secret: bytes, *, now: Callable[[], float] = time.time) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(
                f"the signing secret has {len(secret)} bytes; at least {SHORTEST_SECRET} are needed"
            )
        self._secret = secret
        self._now = now

    def sign(self, kind: str, ref: str, expires_at: int) -> str:
        """Return a token for `ref` that is good before `expires_at`, in Unix seconds.

        The same arguments give the same token.
        """
        return self._serializer(kind).dumps([ref, expires_at])

    def verify(self, kind: str, token: str) -> str:
        """Return the `ref` that `token` was signed for.

        Raises: NotFound when this secret did not sign it for this kind, Gone when it has expired.
        """
        serializer = self._serializer(kind)
        if len(token) > LONGEST_TOKEN:
            raise NotFound("there is nothing at this URL")
        try:
            ref, expires_at = serializer.loads(token)
        except (BadData, UnicodeError) as exc:
            raise NotFound("there is nothing at this URL") from exc
        # Base64 has spare bits: some tokens that differ in their last character decode alike.
        # Only the one that was given out is good.
        if serializer.dumps([ref, expires_at]) != token:
            raise NotFound("there is nothing at this URL")
        if self._now() >= expires_at:
            raise Gone("this URL has expired; read the task again for a new one")
        return str(ref)

    def _serializer(self, kind: str) -> URLSafeSerializer:
        return URLSafeSerializer(
            self._secret,
            salt=f"imageloom.url.{kind}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
