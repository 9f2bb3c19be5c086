-- What the key providers say of keys. Calls KMS: one DescribeKey for each, and one GetKeyRotationStatus where AWS could rotate it.
CREATE OR REPLACE FUNCTION envelope_internal.check_keys(known_keys text[])
    RETURNS TABLE (severity text, finding text, object text, detail text, mend text)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH key AS MATERIALIZED (
        SELECT k.* FROM jsonb_to_recordset(envelope_internal.describe_keys(to_jsonb($1))) AS k (
            key_id text, key_arn text, state text, encrypts_symmetrically boolean, is_rotated boolean, clock_ahead_seconds bigint,
            sqlstate text, message text, detail text, hint text)
    )
    SELECT CASE WHEN k.sqlstate = '42501' THEN 'notice' ELSE 'error' END,
           CASE WHEN k.sqlstate = '42501' THEN 'key_not_described' ELSE 'key_unreachable' END, k.key_id,
           concat_ws(' ', k.message || '.', k.detail),
           CASE WHEN k.sqlstate = '42501' THEN '-- Allow kms:DescribeKey; values do not need it.'
                ELSE '-- ' || coalesce(replace(replace(k.hint, E'\n', ' '), E'\r', ' '), 'See the detail.') END
    FROM key AS k WHERE k.sqlstate IS NOT NULL
    UNION ALL
    SELECT 'error', 'key_state', k.key_id, format('its state in KMS is %s: values under it cannot be read', k.state),
           '-- aws kms ' || CASE WHEN k.state LIKE 'Pending%Deletion' THEN 'cancel-key-deletion, then enable-key,' ELSE 'enable-key' END
               || ' --key-id with this key; or env_rotate values to another one while it works.'
    FROM key AS k WHERE k.state <> 'Enabled'
    UNION ALL
    SELECT 'error', 'key_usage', k.key_id, 'it is no symmetric key for encryption, so it wraps no data keys',
           '-- Make one: aws kms create-key (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT).'
    FROM key AS k WHERE NOT k.encrypts_symmetrically
    UNION ALL
    SELECT 'warning', 'key_rotation', k.key_id, 'AWS makes no new key material for it each year',
           '-- aws kms enable-key-rotation --key-id with this key.'
    FROM key AS k WHERE NOT k.is_rotated AND k.state = 'Enabled'
    UNION ALL
    SELECT 'warning', 'clock', 'server', format('its clock is %s s %s that of KMS, which refuses requests from 300 s on', abs(k.ahead),
           CASE WHEN k.ahead > 0 THEN 'ahead of' ELSE 'behind' END), '-- Set the clock of the server, and see why it was wrong.'
    FROM (SELECT max(clock_ahead_seconds) AS ahead FROM key) AS k WHERE abs(k.ahead) > 60
$$;

REVOKE ALL ON FUNCTION envelope_internal.check_keys(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION envelope_internal.check_keys(text[]) TO envelope_admin;

COMMENT ON FUNCTION envelope_internal.check_keys(text[]) IS
    'part of env_check: what the key providers say of keys';
