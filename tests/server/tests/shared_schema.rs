//! Others may create in the schema of the extension: what they put there is never called by it, nor makes its calls ambiguous.

use testkit::{Client, Fixture, Session};

/// Operators for pairs of types that PostgreSQL has none for and so converts, and which would be the better match.
const OPERATORS: &str = "
    CREATE FUNCTION shared.operator_is_ours() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    DO $$
    DECLARE
        o record;
    BEGIN
        FOR o IN SELECT row_number() OVER () AS n, oprname, l.typ AS l, r.typ AS r
                 FROM unnest('{+,-,*,/,=,<>,<,>,<=,>=,&,>>,||,->,->>}'::text[]) AS oprname,
                      unnest('{int2,int4,int8,float8,numeric,oid,text,name,jsonb,bytea,tid,\"\\\"char\\\"\"}'::text[]) AS l (typ),
                      unnest('{int2,int4,int8,float8,numeric,oid,text,name,jsonb,bytea,tid,\"\\\"char\\\"\"}'::text[]) AS r (typ)
        LOOP
            EXECUTE format('CREATE FUNCTION shared.o%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', o.n, o.l, o.r,
                CASE WHEN o.oprname IN ('=', '<>', '<', '>', '<=', '>=') THEN 'bool' ELSE o.l END,
                'BEGIN RAISE ''an operator of somebody else was called''; END');
            EXECUTE format('CREATE OPERATOR shared.%s (FUNCTION = shared.o%s, LEFTARG = %s, RIGHTARG = %s)', o.oprname, o.n, o.l, o.r);
        END LOOP;
    END
    $$";

/// A function beside each function of the extension, which takes what that one takes and has a default for one argument more.
const OVERLOADS: &str = "
    DO $$
    DECLARE
        f record;
        entry_points CONSTANT name[] := '{env_rotate,env_encrypt_column,env_decrypt_column,env_key_usage,env_rotation_plan,
            env_rotation_abandon,env_encrypt_trigger}';
    BEGIN
        FOR f IN SELECT DISTINCT ON (proname, types) proname, types
                 FROM pg_proc, LATERAL (SELECT string_agg(format_type(t, NULL), ', ' ORDER BY n) AS types
                                        FROM unnest(proargtypes) WITH ORDINALITY AS u (t, n)) AS a
                 WHERE pronamespace IN ('shared'::regnamespace, 'envelope_internal'::regnamespace)
                   AND (proname ~ '^env_' OR pronamespace = 'envelope_internal'::regnamespace)
                   AND types !~ 'internal' AND proname <> ALL (entry_points)
        LOOP
            EXECUTE format('CREATE FUNCTION shared.%I(%s, integer DEFAULT 0) RETURNS text LANGUAGE plpgsql AS %L',
                f.proname, f.types, 'BEGIN RAISE ''a function of somebody else was called''; END');
        END LOOP;
        CREATE FUNCTION shared.env_inventory(integer DEFAULT 0) RETURNS text LANGUAGE sql AS 'SELECT NULL';
        CREATE FUNCTION shared.env_inventory_columns(integer DEFAULT 0) RETURNS text LANGUAGE sql AS 'SELECT NULL';
        CREATE FUNCTION shared.env_encrypt_trigger(integer) RETURNS text LANGUAGE sql AS 'SELECT NULL';
        CREATE FUNCTION shared.env_rotation_fail(bigint, oid, tid, text, integer, text, text) RETURNS text LANGUAGE sql AS 'SELECT NULL';
    END
    $$";

fn shared_schema() -> (Fixture, Client) {
    let fixture = Fixture::local();
    fixture.connect().run("SELECT env_local_create_key('next')");
    fixture.cluster.sql("CREATE DATABASE shared");
    let mut client = fixture.cluster.connect("postgres", "shared");
    client.run(
        "CREATE ROLE neighbour; CREATE SCHEMA shared; GRANT ALL ON SCHEMA shared TO neighbour; SET ROLE neighbour",
    );
    client.run(OPERATORS);
    client.run("RESET ROLE; CREATE EXTENSION envelope_pg SCHEMA shared; SET ROLE neighbour");
    client.run(OVERLOADS);
    client.run("RESET ROLE");
    (fixture, client)
}

#[test]
fn what_somebody_puts_there_is_never_called() {
    let (_fixture, mut client) = shared_schema();
    client.run(
        "CREATE TABLE public.patient (id int PRIMARY KEY, ssn text, ssn_enc bytea, plain text);
         CREATE TRIGGER encrypt BEFORE INSERT OR UPDATE ON public.patient FOR EACH ROW EXECUTE FUNCTION
             shared.env_encrypt_trigger('{\"source\": \"ssn\", \"target\": \"ssn_enc\", \"key_id\": \"local:dev\"}');
         INSERT INTO public.patient SELECT i, 'ssn ' || i, NULL, NULL FROM generate_series(1, 300) AS i;
         ALTER TABLE public.patient DISABLE TRIGGER encrypt;
         UPDATE public.patient SET ssn_enc = set_byte(ssn_enc, octet_length(ssn_enc) - 1, get_byte(ssn_enc, octet_length(ssn_enc) - 1) # 1)
             WHERE id = 7",
    );
    for path in ["pg_catalog", "shared, pg_catalog"] {
        client.run(&format!("SET search_path = {path}"));
        for to in ["next", "dev"] {
            client.run(&format!("CALL shared.env_rotate('public.patient', 'ssn_enc', 'local:{to}')"));
            // The damaged value fails, and is described.
            let _ = client.batch_execute(&format!(
                "CALL shared.env_rotate('public.patient', 'ssn_enc', 'local:{to}', 'reencrypt')"
            ));
        }
        assert_eq!(client.one::<i64>("SELECT count(*) FROM shared.env_rotation_failure WHERE tid IS NOT NULL", &[]), 2);
        client.run("DELETE FROM envelope_internal.rotation_run");
        client.run("SELECT shared.env_rotation_plan('public.patient'::regclass, 'ssn_enc', 'local:next')");
        client.run(
            "SELECT * FROM shared.env_rotation; SELECT * FROM shared.env_stat_kms; SELECT * FROM shared.env_stat_cache",
        );
        client.run("SELECT * FROM shared.env_stat_broker");
        assert_eq!(client.one::<String>("SELECT state FROM shared.env_key_usage('local:dev') LIMIT 1", &[]), "in use");
    }
}

/// The rule that makes it so. Exceptions are a type, which has no overloads, the trigger function by all of its signature, and
/// the statements that `env_view_sql` and `env_check` write for people; `env_check` reads views, which have no overloads either.
#[test]
fn the_extension_names_nothing_in_its_schema() {
    let fixture = Fixture::local();
    fixture.cluster.sql("CREATE DATABASE apart");
    let mut client = fixture.cluster.connect("postgres", "apart");
    client.run("CREATE SCHEMA apart; CREATE EXTENSION envelope_pg SCHEMA apart");
    let naming = client.column::<String>(
        "SELECT p.oid::regprocedure::text FROM pg_depend JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND p.oid = objid
         WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
           AND replace(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), $$'apart.env_encrypt_trigger()'::regprocedure$$, '') ~ 'apart'
           AND proname <> ALL ('{env_view_sql,env_check,check_data,check_rights,check_runs}')",
    );
    assert_eq!(naming, [""; 0]);
    // What runs with the search_path of its caller calls nothing by a bare name: the procedures that commit, which cannot fix
    // theirs, and what tries an expression of the caller.
    let unfixed = client.column::<String>(
        "SELECT p.proname::text FROM pg_depend JOIN pg_proc AS p ON classid = 'pg_proc'::regclass AND p.oid = objid
         JOIN pg_language AS l ON l.oid = prolang
         WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'envelope_pg')
           AND lanname <> 'c' AND prokind <> 'a' AND prosqlbody IS NULL
           AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false) ORDER BY 1",
    );
    assert_eq!(
        unfixed,
        [
            "citus_loop",
            "citus_try",
            "env_decrypt_column",
            "env_encrypt_column",
            "env_index_column",
            "env_rotate",
            "rotation_check_expression",
            "rotation_loop",
            "rotation_pause",
            "rotation_try_aad"
        ]
    );
}

/// Who gets rights without anybody having meant it, by group roles that were made before, and whose objects stand beside ours.
#[test]
fn create_extension_warns_of_roles_that_exist_and_of_a_shared_schema() {
    let fixture = Fixture::local();
    fixture.cluster.sql("CREATE DATABASE warned");
    fixture
        .cluster
        .sql("CREATE ROLE \"a member\"; GRANT envelope_decrypt TO \"a member\"; ALTER ROLE envelope_rotate LOGIN");
    let script = "CREATE SCHEMA own; CREATE EXTENSION envelope_pg SCHEMA own; DROP EXTENSION envelope_pg;
        GRANT CREATE ON SCHEMA own TO \"a member\"; CREATE EXTENSION envelope_pg SCHEMA own; DROP EXTENSION envelope_pg;
        GRANT CREATE ON SCHEMA own TO PUBLIC; CREATE EXTENSION envelope_pg SCHEMA own";
    let output = fixture.cluster.run("psql", &["-X", "-d", "warned", "-c", script]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let count = |text: &str| said.matches(text).count();
    assert_eq!(count("role \"envelope_decrypt\" exists already, with members: \"a member\""), 3, "{said}");
    assert_eq!(count("role \"envelope_rotate\" exists already, with LOGIN"), 3, "{said}");
    assert_eq!(count("others may create objects in the schema of envelope_pg, own: \"a member\""), 1, "{said}");
    assert_eq!(count("others may create objects in the schema of envelope_pg, own: PUBLIC"), 1, "{said}");
    assert_eq!(count("WARNING"), 8, "{said}");
}
