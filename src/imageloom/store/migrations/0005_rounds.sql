-- The order of a queue, fair between tenants: store/rounds.py says what a round is. Only a job that
-- waits for its first turn names its tenant, and the priority that the tenant gave it, in `args`.

create index job_by_round on procrastinate_jobs (queue_name, priority desc, id)
    where status = 'todo';
create index job_by_tenant on procrastinate_jobs (queue_name, (args ->> 'tenant'), priority)
    where status = 'todo' and args ? 'tenant';

-- The lowest round of those who wait for their first turn. Where there is none, the last of what
-- came back, or newcomers would pass it. An empty queue begins again at 0.
-- `enable_sort = off`: without it a plan that was made while the queue was short reads all of a long
-- one and sorts it. The same below.
create function head_round(queue text) returns integer
    language plpgsql stable set enable_sort = off as $$
begin
    return coalesce(
        (select -priority from procrastinate_jobs
            where status = 'todo' and queue_name = queue and args ? 'tenant'
            order by priority desc, id limit 1),
        (select -priority from procrastinate_jobs
            where status = 'todo' and queue_name = queue
            order by priority, id desc limit 1),
        0);
end;
$$;

-- Of the last of an owner's jobs that wait for their first turn: its round, and its priority, which
-- is the lowest of them. Null where none waits.
create function last_in_line(queue text, owner text, out round integer, out lowest integer)
    language plpgsql stable set enable_sort = off as $$
begin
    select -job.priority, (job.args ->> 'priority')::integer into round, lowest
        from procrastinate_jobs as job
        where job.status = 'todo' and job.queue_name = queue
            and job.args ? 'tenant' and job.args ->> 'tenant' = owner
        order by job.priority limit 1;
end;
$$;

-- Gives tasks of one owner and priority their first jobs, in one call of a client: whoever else
-- makes tasks of that owner waits from the lock to the end of the transaction.
create function enqueue(queue text, owner text, wanted integer, tasks text[])
    returns table (task_id text, job_id bigint)
    language plpgsql as $$
declare
    count constant integer := cardinality(tasks);
    line record;
    next integer;
    rounds integer[];
    freed integer[];
begin
    -- One lock for all queues: two workflows may start steps of two types in different orders.
    perform pg_advisory_xact_lock(hashtextextended(owner, 2));
    -- From here on every statement sees what was committed before the lock was ours.
    line := last_in_line(queue, owner);
    next := greatest(head_round(queue), line.round + 1);
    rounds := array(select generate_series(next, next + count - 1));
    if line.lowest < wanted then
        -- The owner's jobs of lower priority move back among the rounds that they and the new ones
        -- have. What a worker fetches in this moment is passed over and keeps its round.
        with held as materialized (
            select id, priority from procrastinate_jobs
                where status = 'todo' and queue_name = queue
                    and args ? 'tenant' and args ->> 'tenant' = owner
                    and (args ->> 'priority')::integer < wanted
                for update skip locked
        ), behind as (
            select id, -priority as round, lead(-priority, count) over line as later,
                row_number() over line as place, count(*) over () as length
                from held window line as (order by priority desc, id)
        ), moved as (
            update procrastinate_jobs as job
                set priority = -coalesce(behind.later, rounds[place + count - length])
                from behind where job.id = behind.id
        )
        select array_agg(round order by place) into freed from behind where place <= count;
        rounds := freed || rounds[1 : count - coalesce(cardinality(freed), 0)];
    end if;
    return query
        with new as (
            select unnest(tasks) as id, unnest(procrastinate_defer_jobs_v1(array(
                select (queue, 'run', -round, null, null, jsonb_build_object(
                    'task_id', id, 'tenant', owner, 'priority', wanted
                ), null)::procrastinate_job_to_defer_v1
                    from unnest(tasks, rounds) as added (id, round)
            ))) as job
        )
        update task set job_id = new.job from new where task.id = new.id
            returning task.id, task.job_id;
end;
$$;
