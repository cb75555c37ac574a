-- A task that makes an output of another again: {"task_id", "output"}.
alter table task add column reproduces jsonb;
