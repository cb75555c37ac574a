-- Where a task, a workflow or a run tells what happens to it: {"url", "events"}.
alter table task add column webhook jsonb;
alter table workflow add column webhook jsonb;
alter table run add column webhook jsonb;  -- the workflow's own copy, as of its steps

-- What happened and is to be told: written in the transaction in which it happened.
create table webhook_event (
    id text primary key,                 -- the webhook-id of every delivery
    tenant text not null,
    resource text not null check (resource in ('task', 'training', 'workflow')),
    resource_id text not null,
    run_id text,
    type text not null,
    url text not null,
    endpoint text not null,              -- digest of tenant and url
    host text not null,
    occurred_at timestamptz not null default clock_timestamp(),
    snapshot jsonb not null,             -- what the resource said then and may not say any more
    body text,                           -- written before it is first sent, and never again
    state text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    attempt integer not null default 0,  -- the fencing token: what became of it carries it
    tries integer not null default 0,    -- since it was made, or replayed
    due_at timestamptz not null default clock_timestamp(),  -- while it is sent: when that is given up
    sending boolean not null default false,
    begun_at timestamptz,
    attempts jsonb not null default '[]',
    ended_at timestamptz,
    check ((state = 'pending') = (ended_at is null))
);
create index webhook_due on webhook_event (endpoint, due_at) where state = 'pending';
create index webhook_sending on webhook_event (endpoint) where sending;
create index webhook_begun on webhook_event (endpoint, begun_at);
create index webhook_by_tenant on webhook_event (tenant, occurred_at desc, id desc);
create index webhook_by_resource on webhook_event (resource_id);
create index webhook_ended on webhook_event (ended_at) where ended_at is not null;
-- Of progress only the newest is worth telling.
create index webhook_progress on webhook_event ((coalesce(run_id, resource_id)))
    where state = 'pending' and type like '%.progress';

-- URLs that answered 410 Gone: nothing is sent there until the tenant says so.
create table webhook_endpoint (
    endpoint text primary key,
    tenant text not null,
    url text not null,
    disabled_at timestamptz not null default now()
);

-- What a tenant's deliveries are signed with. Those that were replaced sign too, for a day.
create table webhook_secret (
    tenant text not null,
    secret bytea not null,
    given text,                          -- its digest, where it came from the settings
    created_at timestamptz not null default clock_timestamp(),
    replaced_at timestamptz
);
create unique index webhook_secret_current on webhook_secret (tenant) where replaced_at is null;
create index webhook_secret_by_tenant on webhook_secret (tenant, created_at);
