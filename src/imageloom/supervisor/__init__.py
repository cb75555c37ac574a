"""`imageloom serve`: every process of one machine, kept alive together."""
