-- Tenants are names, not rows: a tenant exists as soon as a key or a task names it.

create table api_key (
    id text primary key,
    tenant text not null,
    hash bytea not null unique,          -- sha-256 of the key; the key itself is never stored
    scopes text[] not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

create table task (
    id text primary key,
    tenant text not null,
    type text not null,
    status text not null default 'pending'
        check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    params jsonb not null,
    inputs jsonb not null default '{}',  -- parameters that named our own files: their storage keys
    priority integer not null default 0,
    attempt integer not null default 0,  -- the fencing token: every write of a worker carries it
    interruptions integer not null default 0,  -- attempts handed back by a living worker
    max_attempts integer not null check (max_attempts > 0),
    worker text,
    job_id bigint,                       -- its place in procrastinate_jobs, null once terminal
    progress double precision not null default 0 check (progress >= 0 and progress <= 1),
    output jsonb,
    error text,
    error_detail jsonb,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    cleaned_at timestamptz,
    check ((status = 'completed') = (output is not null)),
    check ((status = 'failed') = (error is not null)),
    check ((status in ('completed', 'failed', 'cancelled')) = (completed_at is not null))
);
create index task_by_tenant on task (tenant, created_at desc, id desc);
create index task_live on task (type, status) where status in ('pending', 'running');

create table idempotency (
    tenant text not null,
    route text not null,
    key text not null,
    body_hash bytea not null,
    resource_id text not null,           -- the task or file that the key made
    created_at timestamptz not null default now(),
    primary key (tenant, route, key)
);
create index idempotency_age on idempotency (created_at);

create table file (
    id text primary key,
    tenant text not null,
    key text not null,
    media_type text not null,
    size bigint not null,
    sha256 text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index file_age on file (expires_at);

create table worker (
    id text primary key,
    host text not null,
    pid integer not null,
    version text not null,
    status text not null check (status in ('idle', 'busy', 'draining', 'unhealthy')),
    queues text[] not null,
    device text not null,
    memory_bytes bigint,
    gpu_utilization double precision,
    models text[] not null default '{}',
    tasks text[] not null default '{}',
    started_at timestamptz not null default now(),
    last_heartbeat timestamptz not null default now()
);

create table model (
    name text primary key,
    entry jsonb not null,
    created_at timestamptz not null default now()
);

create table secret (
    name text primary key,
    value bytea not null
);
