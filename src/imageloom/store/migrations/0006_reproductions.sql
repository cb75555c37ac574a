-- A task that makes an output of another again: {"task_id", "output"}.
alter table task add column reproduces jsonb;
-- What the pictures of a running attempt may become: null where nobody asked.
alter table task add column previews jsonb;
