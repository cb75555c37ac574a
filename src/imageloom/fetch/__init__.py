"""The one way by which a user's URL is ever opened.

`Fetcher` reads http, https and data URLs within a total time and a number of bytes, and dials only
public addresses, each one checked at the moment of the connection. `check_url` refuses at the
door what could never be fetched. Every refusal is an `InvalidInput` with a public sentence.
`Poster` sends to a URL, by the same checks, and shows nothing of the answer but its status.
"""

from imageloom.fetch.addresses import is_public
from imageloom.fetch.fetcher import Answer, Fetched, Fetcher
from imageloom.fetch.posting import Posted, Poster, PostFailed
from imageloom.fetch.targets import check_url, check_web_url

__all__ = [
    "Answer",
    "Fetched",
    "Fetcher",
    "PostFailed",
    "Posted",
    "Poster",
    "check_url",
    "check_web_url",
    "is_public",
]
