"""Times as answers have them: UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

Time = Annotated[datetime, AfterValidator(lambda value: value.astimezone(UTC))]
