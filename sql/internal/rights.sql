GRANT USAGE ON SCHEMA envelope_internal TO envelope_encrypt, envelope_decrypt, envelope_rotate, envelope_admin, envelope_search, pg_monitor;

COMMENT ON SCHEMA envelope_internal IS
    'what envelope_pg is made of: nothing here is for applications, and all of it can change with each release';
