-- What became of tasks and runs, for who watches them: written by triggers, so that nothing can
-- change a status and not say so. `seq` counts from 1 for each subject, without gaps.
create table event (
    subject text not null,               -- the id of a task or of a run
    seq integer not null,
    at timestamptz not null default clock_timestamp(),
    data jsonb not null,
    primary key (subject, seq)
);
create index event_age on event (at);

alter table task add column events integer not null default 0;

-- What was there before begins with how it stands.
insert into event (subject, seq, data) select id, 1, jsonb_build_object(
    'status', status, 'progress', progress, 'attempt', attempt, 'error', error, 'previews', previews)
    from task;
update task set events = 1;

-- Tells who listens that something of a subject is new, and its status. Not of a task that was just
-- made: nobody can know its id before this commits.
create function note_task() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if (new.status, new.progress, new.attempt, new.previews)
            is not distinct from (old.status, old.progress, old.attempt, old.previews) then
            return new;
        end if;
        perform pg_notify('imageloom_event', new.id || ' ' || new.status);
    end if;
    new.events := new.events + 1;
    insert into event (subject, seq, data) values (new.id, new.events, jsonb_build_object(
        'status', new.status, 'progress', new.progress, 'attempt', new.attempt,
        'error', new.error, 'previews', new.previews));
    return new;
end;
$$;
create trigger note_task before insert or update on task
    for each row execute function note_task();

create function note_run(wanted text) returns void language plpgsql as $$
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
    perform pg_notify('imageloom_event', noted.id || ' ' || noted.status);
end;
$$;

create function note_run_of_row() returns trigger language plpgsql as $$
begin
    if new.status is distinct from old.status then
        perform note_run(case tg_table_name when 'run' then to_jsonb(new) ->> 'id'
            else to_jsonb(new) ->> 'run_id' end);
    end if;
    return null;
end;
$$;
create trigger note_run after update of status on run
    for each row execute function note_run_of_row();
create trigger note_step after update of status on step
    for each row execute function note_run_of_row();

create function note_made_steps() returns trigger language plpgsql as $$
begin
    perform note_run(run_id) from (select distinct run_id from made) as runs;
    return null;
end;
$$;
create trigger note_made_steps after insert on step
    referencing new table as made for each statement execute function note_made_steps();
select count(note_run(id)) from run;

-- The end of a task moves its run. At most once a second: a step may have thousands.
create function note_run_of_task() returns trigger language plpgsql as $$
begin
    if new.status is distinct from old.status
        and new.status in ('completed', 'failed', 'cancelled')
        and not exists (
            select from (
                select at from event where subject = new.run_id order by seq desc limit 1
            ) as newest where at > clock_timestamp() - interval '1 second'
        ) then
        perform note_run(new.run_id);
    end if;
    return null;
end;
$$;
create trigger note_run_of_task after update of status on task
    for each row when (new.run_id is not null) execute function note_run_of_task();
