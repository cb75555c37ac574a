-- The failed or cancelled task that a task does over.
alter table task add column retries text;
