"""Logs as events with fields: one line per transition; never prompts or secrets.

Whatever a user wrote stays within its line: control characters are shown, not written.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Final

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

# Control characters, of terminals too; line ends of Unicode; what turns the direction of text.
_CONTROL: Final = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_INDENT: Final = "    | "  # before each line of a traceback: none of them can pass for an event


def configure_logs(log_format: str) -> None:
    """Write events to stderr: `json`, `text`, or `auto`: text on a terminal, else JSON."""
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    renderer: list[Processor] = (
        [
            contained,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
        if as_text
        else [structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            with_trace,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Contained("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # procrastinate logs every job by name at INFO; our own events say it once, with the task's id.
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    # They say of each batch of spans that it was not sent; `tracing` says it once.
    for name in ("opentelemetry", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def with_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the trace that the event is part of, where there is one and it names no other."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
    return event


def contained(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Show control characters in whatever the event says, so that it stays one line.

    A traceback keeps its lines, each behind a bar.
    """
    return {name: _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: object) -> object:
    if name == "exception" and isinstance(value, str):
        return "\n".join(_INDENT + _escaped(line) for line in value.split("\n"))
    if isinstance(value, str):
        return _escaped(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _escaped(repr(value))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


class _Contained(logging.Formatter):
    """What libraries log, in one line as well."""

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).split("\n")
        return "\n".join([_escaped(first), *(_INDENT + _escaped(line) for line in rest)])
