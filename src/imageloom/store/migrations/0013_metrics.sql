-- What workers count, for who scrapes an API process. Apart from `worker`, whose row goes when a
-- worker stops in order: its last counts stay until they have been scraped. Not logged: after a crash
-- of the database the workers that live write theirs again.
create unlogged table worker_metrics (
    worker text primary key,
    samples jsonb not null,              -- [[metric, sample, labels, value], …]
    at timestamptz not null default now()
);

-- The span, as W3C says it, that a task or an event is part of, where traces are made.
alter table task add column traceparent text;
alter table webhook_event add column traceparent text;
