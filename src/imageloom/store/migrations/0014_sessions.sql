-- Who is signed in with a browser. A session does what its key does, and ends with it.
create table session (
    hash bytea primary key,              -- sha-256 of the cookie; the cookie itself is never stored
    key_id text not null references api_key (id),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null
);
create index session_age on session (expires_at);
