"""What every list takes and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from imageloom.api.shapes import PageView
from imageloom.domain.errors import InvalidParams

T = TypeVar("T")


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(50, ge=1, le=500)

    def view(self, items: Sequence[T], total: int) -> PageView[T]:
        """Return the page that these items are."""
        return PageView(items=list(items), total=total, page=self.page, page_size=self.page_size)


class SpanQuery(PageQuery):
    """A page of what was created in a span of time."""

    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    sort_order: Literal["asc", "desc"] = "desc"

    def check_span(self) -> None:
        """Make sure that something could have been created then. Raises: InvalidParams."""
        after, before = self.created_after, self.created_before
        if after is not None and before is not None and after >= before:
            raise InvalidParams(
                "created_after: is not before created_before", param="created_after"
            )
