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
