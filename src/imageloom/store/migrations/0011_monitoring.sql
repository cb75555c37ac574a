-- What an operator looks at, without reading every task.

-- What waits and runs, by type and since when; a paused run's tasks have no job and do not wait.
drop index task_live;
create index task_live on task (type, status, created_at) include (tenant, job_id)
    where status in ('pending', 'running');
-- Lists, the newest first: a tenant's and everybody's. What they are filtered by is in the index.
drop index task_by_tenant;
create index task_by_tenant on task (tenant, created_at desc, id desc, status, type);
create index task_by_age on task (created_at desc, id desc, status, type);
-- What ended lately, with what statistics are made of.
create index task_ended on task (completed_at) include (tenant, type, status, created_at, started_at)
    where completed_at is not null;
create index task_failed on task (completed_at) include (tenant) where status = 'failed';

create index workflow_by_age on workflow (created_at desc, id desc);
create index run_live on run (status) include (tenant) where completed_at is null;
create index run_ended on run (completed_at) include (tenant, status, started_at)
    where completed_at is not null;

-- What a worker says of its device; null of one that has not said it yet.
alter table worker
    add column device_kind text,         -- cpu, cuda, mps
    add column memory_used_bytes bigint,
    add column reason text;              -- why it is unhealthy

-- Notices say whose it is and of what kind, for who watches all: "id status kind tenant". As in
-- 0008_events.sql otherwise, but that a new task is told of too, unless its run tells of itself.
create or replace function note_task() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and (new.status, new.progress, new.attempt, new.previews)
        is not distinct from (old.status, old.progress, old.attempt, old.previews) then
        return new;
    end if;
    if tg_op = 'UPDATE' or new.run_id is null then
        perform pg_notify('imageloom_event', concat_ws(' ', new.id, new.status,
            case new.type when 'training' then 'training' else 'task' end, new.tenant));
    end if;
    new.events := new.events + 1;
    insert into event (subject, seq, data) values (new.id, new.events, jsonb_build_object(
        'status', new.status, 'progress', new.progress, 'attempt', new.attempt,
        'error', new.error, 'previews', new.previews));
    return new;
end;
$$;

create or replace function note_run(wanted text) returns void language plpgsql as $$
declare
    noted run;
begin
    -- Held, as by everybody who moves the graph, and not updated: the second update of a row in one
    -- transaction checks its foreign keys, and would wait for who holds the workflow.
    select * into noted from run where id = wanted for no key update;
    insert into event (subject, seq, data)
        select noted.id, 1 + coalesce((
            select seq from event where subject = wanted order by seq desc limit 1
        ), 0), jsonb_build_object(
            'status', noted.status, 'error', noted.error,
            'progress', avg(told.progress), 'steps', jsonb_agg(jsonb_build_object(
                'name', told.name, 'status', told.status, 'progress', told.progress
            ) order by told.position))
        from (
            select position, spec ->> 'name' as name, status,
                case status when 'completed' then 1 else coalesce((
                    select avg(task.progress) from task
                    where task.run_id = step.run_id and task.step = step.position
                        and not task.replaced
                ), 0) end as progress
            from step where run_id = wanted
        ) as told;
    perform pg_notify('imageloom_event', concat_ws(' ', noted.id, noted.status, 'run', noted.tenant));
end;
$$;
