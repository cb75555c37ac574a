-- Every attempt at a task: who made it, how it ended, and what came of that.
create table attempt (
    task_id text not null,
    number integer not null,
    worker text not null,
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    outcome text check (outcome in ('completed', 'failed', 'cancelled', 'interrupted', 'lost')),
    code text,                           -- of what failed
    message text,
    next text,                           -- the status that the task had afterwards
    next_at timestamptz,                 -- when it is tried again, where it is
    primary key (task_id, number),
    check ((ended_at is null) = (outcome is null))
);
