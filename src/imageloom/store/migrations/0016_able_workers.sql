-- Workers of different sizes: what each may be given, and how it takes its next job.

alter table worker
    add column serves text[],            -- the models that it may serve; null where it is any
    add column too_large text[] not null default '{}';  -- models that its device cannot hold

-- The model that a task needs, by its parameters; null where it needs none.
create function needed_model(params jsonb) returns text language sql immutable as $$
    select coalesce(params ->> 'model', params ->> 'base_model')
$$;

-- A job names the model, so that who looks for one need not read its task. By a trigger: jobs are
-- made in three ways, and during an upgrade by the version before, which does not know of it.
create function name_model() returns trigger language plpgsql as $$
begin
    new.args := new.args || jsonb_strip_nulls(jsonb_build_object('model',
        (select needed_model(params) from task where id = new.args ->> 'task_id')));
    return new;
end;
$$;
create trigger name_model before insert on procrastinate_jobs
    for each row when (new.args ? 'task_id') execute function name_model();

update procrastinate_jobs as job
    set args = job.args || jsonb_build_object('model', needed_model(task.params))
    from task where job.status = 'todo' and task.id = job.args ->> 'task_id'
        and needed_model(task.params) is not null;

create index job_by_model on procrastinate_jobs
    (queue_name, (coalesce(args ->> 'model', '')), priority desc, id) where status = 'todo';

-- Takes the next job of a queue, in the order of procrastinate_fetch_job_v2, of those that need one
-- of these models or none. A row of nulls where there is none. What is passed over stays as it is.
-- One look into the index for each model that it could take, whatever waits before them.
-- `enable_sort = off`: as in 0005_rounds.sql. It makes the few heads look dear enough to compile the
-- query, which takes 200 ms; hence `jit = off`.
create function take_job(queue text, taker bigint, able text[]) returns procrastinate_jobs
    language plpgsql set enable_sort = off set jit = off as $$
declare
    needed text;
    taken procrastinate_jobs;
begin
    for needed in
        select name from unnest(able || ''::text) as names (name), lateral (
            select priority, id from procrastinate_jobs
                where status = 'todo' and queue_name = queue
                    and coalesce(args ->> 'model', '') = name
                    and (scheduled_at is null or scheduled_at <= now())
                order by priority desc, id limit 1
        ) as head order by head.priority desc, head.id
    loop
        update procrastinate_jobs set status = 'doing', worker_id = taker where id = (
            select id from procrastinate_jobs
                where status = 'todo' and queue_name = queue
                    and coalesce(args ->> 'model', '') = needed
                    and (scheduled_at is null or scheduled_at <= now())
                order by priority desc, id limit 1 for update skip locked
        ) returning * into taken;
        exit when found;
    end loop;
    return taken;
end;
$$;

-- Whether a training published anything is asked before it is deleted: core/retention.py.
create index adapter_of_task on adapter (task_id);
