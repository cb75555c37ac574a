-- What attempts had of their device, how much work tasks are, and when they were expected.

alter table attempt
    add column device_seconds double precision,  -- null where it was lost, or had no device
    add column device_memory_bytes bigint,
    add column relief text[],            -- the rungs that were taken because memory did not suffice
    add column tried_next text,          -- what came of it, in words
    add column pace text,                -- both as its task has them
    add column units double precision;

alter table task
    add column pace text,                -- those of one name take the same time for a unit of work
    add column units double precision;   -- how much work it is; null where nobody can know before

-- How fast the last of a pace went. A first attempt that completed had its device as a later one
-- has not: alone, or from a checkpoint on.
create index attempt_by_pace on attempt (pace, ended_at desc)
    where outcome = 'completed' and number = 1 and device_seconds > 0;

-- What was told of a task when it was made. How it went then is in `task` and `attempt`: nothing is
-- written when it ends.
create table forecast (
    task_id text primary key,
    tenant text not null,
    type text not null,
    made_at timestamptz not null default now(),
    position integer not null,
    unit_seconds double precision,             -- of its pace, as it was known then
    start_seconds double precision not null,   -- from then on, before it is set right by the ratios
    finish_seconds double precision,           -- of earlier forecasts to what became of them
    start_p50 timestamptz not null,
    start_p90 timestamptz not null,
    finish_p50 timestamptz,
    finish_p90 timestamptz
);
create index forecast_age on forecast (made_at);

alter table worker
    add column slots integer,            -- tasks that share its device; null before it said so
    add column lacking text[] not null default '{}';  -- models whose weights are not there
