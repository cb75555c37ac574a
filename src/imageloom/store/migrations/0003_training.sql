-- How a training goes: its metrics, its samples, the checkpoint that it can go on from.
alter table task add column training jsonb;

-- The loss of every optimiser step; what came after a checkpoint is overwritten by who goes on from it.
create table loss (
    task_id text not null references task (id),
    step integer not null,
    loss double precision not null,
    learning_rate double precision not null,
    primary key (task_id, step)
);

create table adapter (
    tenant text not null,
    name text not null,
    version integer not null,
    base_model text not null,
    key text not null,
    sha256 text not null,
    size bigint not null,
    rank integer not null,
    trigger_word text,
    task_id text not null references task (id),
    lineage jsonb not null,              -- digests of data set and base model, the config, the step
    created_at timestamptz not null default now(),
    retired_at timestamptz,
    primary key (tenant, name, version)
);
