-- What an attempt left in storage that did not complete is deleted, once.
alter table attempt add column swept boolean not null default false;
create index attempt_unswept on attempt (ended_at) where not swept and outcome <> 'completed';
