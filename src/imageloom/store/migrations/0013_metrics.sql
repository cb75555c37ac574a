-- What workers count, for who scrapes an API process. Apart from `worker`, whose row goes when a
-- worker stops in order: its last counts stay until they have been scraped. Not logged: after a crash
-- of the database the workers that live write theirs again.
create unlogged table worker_metrics (
    worker text primary key,
    samples jsonb not null,              -- [[metric, sample, labels, value], …]
    at timestamptz not null default now()
);
