"""Traces, sent by OTLP over HTTP, where a collector is named: what one request set off, as spans.

Without a collector everything here does nothing. With one, spans wait in a bounded buffer and go
out from a thread of their own: a collector that is down or slow costs what does not fit, and one
line in the log. No span says what a user wrote: no prompt, no URL, no text of an error.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from imageloom import __version__

_log = structlog.get_logger("imageloom.tracing")
_w3c = TraceContextTextMapPropagator()

Value = str | int | float

MOST_WAITING: Final = 4096  # spans in memory; the oldest go
DELAY: Final = 1000.0  # milliseconds between two batches
EXPORT_TIMEOUT: Final = 5.0  # seconds for a batch
CLOSE_TIMEOUT: Final = 3.0  # seconds at the end of a process for what still waits


class Tracing:
    """Makes the spans of one process; a span that is opened without a parent continues the one
    around it.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("imageloom", __version__) if provider else None

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        began: float | None = None,
        **attributes: Value | None,
    ) -> Iterator[Span]:
        """Have a span around the block; `parent` is a W3C traceparent, `began` Unix time.

        What the block raises marks it as failed, by the kind of error alone.
        """
        if self._tracer is None:
            yield INVALID_SPAN
            return
        span = self._tracer.start_span(
            name,
            context=_context(parent),
            kind=kind,
            attributes=_named(attributes),
            start_time=None if began is None else _nanoseconds(began),
        )
        try:
            # What was raised stays out of it: its message may be a user's.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as exc:
            fail(span, getattr(exc, "code", type(exc).__name__))
            raise
        finally:
            span.end()

    def begin(
        self,
        name: str,
        *,
        began: float,
        parent: Span | str | None = None,
        **attributes: Value | None,
    ) -> Span:
        """Return a span that began at that Unix time, for the caller to end."""
        if self._tracer is None:
            return INVALID_SPAN
        return self._tracer.start_span(
            name,
            context=_context(parent),
            attributes=_named(attributes),
            start_time=_nanoseconds(began),
        )

    def record(
        self,
        name: str,
        *,
        began: float,
        ended: float,
        parent: Span | str | None = None,
        **attributes: Value | None,
    ) -> None:
        """Add a span of something that is over."""
        end(self.begin(name, began=began, parent=parent, **attributes), at=ended)

    def close(self) -> None:
        """Send what waits; blocks until that is done or given up."""
        if self._provider is not None:
            self._provider.shutdown()


def traceparent() -> str | None:
    """Return the span around as W3C says it, None where there is none."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get("traceparent")


def trace_of(parent: str) -> str:
    """Return the id of the trace that a W3C traceparent is of."""
    return parent.split("-")[1]


def end(span: Span, *, at: float) -> None:
    """End a span at that Unix time."""
    span.end(_nanoseconds(at))


def event(span: Span, name: str, *, at: float, attributes: Mapping[str, Value]) -> None:
    """Add to a span what happened at that Unix time."""
    span.add_event(name, _named(attributes), timestamp=_nanoseconds(at))


def fail(span: Span, kind: str) -> None:
    """Mark a span as failed, by a kind of error that is ours."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


@asynccontextmanager
async def open_tracing(endpoint: str | None, *, process: str) -> AsyncIterator[Tracing]:
    """Yield what makes the spans of this process and sends them to `endpoint`, if there is one.

    At the end what waits has a moment to arrive.
    """
    if endpoint is None:
        yield Tracing()
        return
    provider = TracerProvider(
        resource=Resource.create(
            {"service.name": f"imageloom-{process}", "service.version": __version__}
        ),
        shutdown_on_exit=False,
    )
    exporter = _OnceTold(OTLPSpanExporter(endpoint, timeout=EXPORT_TIMEOUT))
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=DELAY)
    )
    tracing = Tracing(provider)
    try:
        yield tracing
    finally:
        # A daemon: a collector that does not answer must not keep the process.
        closing = threading.Thread(target=tracing.close, name="tracing", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_TIMEOUT)


class _OnceTold(SpanExporter):
    """Says once that the collector does not take spans, and once that it does again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            _log.warning("traces_not_sent", lost=len(spans))
        if self._failing and not failed:
            _log.info("traces_sent_again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(parent: Span | str | None) -> Context | None:
    """Return what OpenTelemetry calls a parent, None for the span around."""
    if parent is None:
        return None
    if isinstance(parent, str):
        return _w3c.extract({"traceparent": parent}, context=Context())
    return trace.set_span_in_context(parent)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _named(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    """Return what is known of these, under our own name where they have no dot in theirs."""
    return {
        name if "." in name else f"imageloom.{name}": value
        for name, value in attributes.items()
        if value is not None
    }
