-- A workflow is what a user wrote. A run is one execution of it, with its own copy of every step, so
-- that what is edited in one run stays there.

create table workflow (
    id text primary key,
    tenant text not null,
    name text not null,
    description text,
    origin_instance text,                -- the other dialect's name for the calling system
    steps jsonb not null,
    input jsonb,                         -- what a run starts with unless it says otherwise
    created_at timestamptz not null default now()
);
create index workflow_by_tenant on workflow (tenant, created_at desc, id desc);

-- Whoever locks a run and a task locks the run first.
create table run (
    id text primary key,
    workflow_id text not null references workflow (id),
    tenant text not null,
    number integer not null,
    status text not null default 'created'
        check (status in ('created', 'running', 'paused', 'completed', 'failed', 'cancelled')),
    held boolean not null default false, -- paused by a request: its pending tasks have no job
    input jsonb not null default '{}',
    inputs jsonb not null default '{}',  -- values of input that named our own files: storage keys
    cache boolean not null default true,
    error text,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    cleaned_at timestamptz,
    unique (workflow_id, number),
    check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null)),
    check (not held or status = 'paused')
);

create table step (
    run_id text not null references run (id),
    position integer not null,
    spec jsonb not null,
    status text not null default 'pending' check (status in
        ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled', 'skipped')),
    output jsonb,
    error text,
    deadline timestamptz,                -- when a waiting approval takes its default
    started_at timestamptz,
    completed_at timestamptz,
    primary key (run_id, position),
    check ((status = 'completed') = (output is not null))
);
create index step_deadline on step (deadline) where status = 'paused';

alter table task
    add column workflow_id text,
    add column run_id text references run (id),
    add column step integer,             -- by position, and by name for who reads
    add column step_name text,
    add column item integer,             -- which picture of its step
    add column replaced boolean not null default false,  -- a resume made another one for its item
    add column backoff_seconds double precision,
    add column cache_base text;          -- the part of its cache key that is known before its inputs
-- A step starts once: a second task for the same picture cannot be written.
create unique index task_of_step on task (run_id, step, item)
    where run_id is not null and not replaced;
-- Whether a step's last task has ended is asked whenever one ends, of steps of up to 10,000 tasks.
create index task_live_of_step on task (run_id, step)
    where run_id is not null and status in ('pending', 'running');
-- Only what was computed is reused; what was deleted has another output and drops out.
create index task_cached on task (tenant, (output ->> 'cache_key'))
    where output ->> 'cache' = 'miss';
