-- The keys that came first were their installation's own: they see all of it.
update api_key set scopes = scopes || '{monitor}' where tenant = 'default'
    and 'admin' = any(scopes) and not 'monitor' = any(scopes);
