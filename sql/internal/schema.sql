-- What the extension is made of, and nobody calls by himself. Nothing in it is found by a search_path, and only superusers may
-- create in it: so all calls of the extension's functions to each other go to names in this schema.
CREATE SCHEMA envelope_internal;
