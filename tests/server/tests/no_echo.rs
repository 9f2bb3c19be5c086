//! No error, notice or line in the log repeats an argument that could be a plaintext: each argument of each function of the extension,
//! from the catalog, is given a marked one. Where two arguments are swapped, any of them is the plaintext. What names something is
//! listed, and shown as that.

use testkit::{Client, Cluster, Fixture, Session};

testkit::shared_fixture!(Fixture::kms_with(
    Cluster::builder()
        .path_setting("envelope_pg.local_keyring", "keyring.json")
        .setting("log_error_verbosity", "verbose")
        .setting("log_min_messages", "info")
        .setting("envelope_pg.audit", "on")
        // What PostgreSQL itself logs is a statement, and its parameters.
        .setting("log_min_error_statement", "panic")
));

const MARK: &str = "Zq7vK9";

/// What PostgreSQL shows in its own errors, too: arguments of that name, or of one function.
const NAMES: &[(&str, &str)] = &[
    ("column_name", "a column"),
    ("source_column", "a column"),
    ("target_column", "a column"),
    ("token_column", "a column"),
    ("aad_column", "a column"),
    ("schema", "a schema"),
    ("aad_expression", "SQL"),
    ("citus_try.update_sql", "SQL"),
    ("rotation_check_expression.expression", "SQL"),
    ("rotation_try_aad.aad", "SQL"),
    ("rotation_give_up.error_code", "a SQLSTATE"),
    ("index_key_add.name", "an index key, which env_create_index_key has looked at before"),
    ("named_key_validator.options", "options of CREATE SERVER"),
];

/// Names of keys: shown if they have the form of one, and by nobody else than who knows whether there is such a key.
const KEYS: &[&str] =
    &["key_id", "other_key_id", "to_key", "from_key", "key_ids", "known_keys", "retired", "retired_before"];

struct Argument {
    name: String,
    sql_type: String,
    has_default: bool,
}

struct Function {
    identity: String,
    name: String,
    kind: String,
    arguments: Vec<Argument>,
}

fn functions(client: &mut Client) -> Vec<Function> {
    let rows = client
        .query(
            "SELECT p.oid::regprocedure::text, format('%s.%I', p.pronamespace::regnamespace, p.proname), p.prokind::text,
                    a.names, a.types, p.pronargdefaults::integer
             FROM pg_proc AS p
             JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'envelope_pg'
             CROSS JOIN LATERAL (
                 SELECT array_agg(coalesce(p.proargnames[n], '') ORDER BY n) AS names, array_agg(t.type::regtype::text ORDER BY n) AS types
                 FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS t (type, n)
                 WHERE coalesce(p.proargmodes[n], 'i') IN ('i', 'b')) AS a
             WHERE p.pronargs > 0 AND 'internal' <> ALL (a.types)
             ORDER BY 1",
            &[],
        )
        .expect("the catalog is read");
    rows.iter()
        .map(|row| {
            let (names, types): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
            let without = names.len() - usize::try_from(row.get::<_, i32>(5)).expect("a count");
            let arguments = names.into_iter().zip(types).enumerate();
            Function {
                identity: row.get(0),
                name: row.get(1),
                kind: row.get(2),
                arguments: arguments
                    .map(|(at, (name, sql_type))| Argument { name, sql_type, has_default: at >= without })
                    .collect(),
            }
        })
        .collect()
}

/// An argument that is as it should be.
fn sample(argument: &Argument) -> &'static str {
    match (argument.name.as_str(), argument.sql_type.as_str()) {
        ("key_id" | "to_key" | "other_key_id", _) => "'local:dev'",
        ("name" | "index_name", _) => "'an_index'",
        ("relation" | "root" | "leaf", _) => "'a_table'::regclass",
        ("source_column", _) => "'plain'",
        (_, "name") => "'sealed'",
        ("steps", _) => "'{trim}'",
        ("lengths", _) => "'{3}'",
        ("p", "jsonb") => {
            "jsonb_build_object('relation', 'a_table'::regclass::oid::text, 'column', 'sealed', 'method', 'rewrap', 'to_key', 'local:dev',
                'on_locked', 'skip', 'max_passes', 1, 'max_failures', 1)"
        }
        (_, "bytea") => "(SELECT sealed FROM a_table)",
        (_, "bytea[]") => "ARRAY(SELECT sealed FROM a_table)",
        (_, "jsonb") => "'{}'",
        (_, "smallint[]") => "'{4}'",
        (_, "text[]") => "'{}'",
        (_, "boolean") => "'false'",
        (_, "date" | "timestamp without time zone" | "timestamp with time zone") => "'2026-01-01'",
        (_, "uuid") => "'00000000-0000-0000-0000-000000000001'",
        (_, "interval") => "'1 day'",
        (_, "text") => "'x'",
        (_, "tid") => "'(0,1)'",
        _ => "'1'",
    }
}

/// What a mark is made into, so that it is of the type: `$1` is a text.
fn marked(sql_type: &str) -> &'static [&'static str] {
    match sql_type {
        "text" | "name" | "anyelement" => &["$1::text"],
        "bytea" => &["convert_to($1::text, 'UTF8')", "(SELECT sealed FROM a_table) || convert_to($1::text, 'UTF8')"],
        "jsonb" => &[
            "to_jsonb($1::text)",
            "jsonb_build_object('k', $1::text)",
            "jsonb_build_object($1::text, 'v')",
            "jsonb_build_object('k', jsonb_build_object($1::text, $1::text))",
            "jsonb_build_array($1::text)",
            "jsonb_build_object('relation', 'a_table'::regclass::oid::text, 'column', 'sealed', 'method', $1::text, 'to_key', 'local:dev',
                'on_locked', 'skip', 'max_passes', 1, 'max_failures', 1)",
            "jsonb_build_object('relation', 'a_table'::regclass::oid::text, 'column', 'sealed', 'method', 'rewrap', 'to_key', 'local:dev',
                'on_locked', $1::text, 'max_passes', 1, 'max_failures', 1)",
        ],
        "text[]" => &["ARRAY[$1::text]"],
        "bytea[]" => &["ARRAY[convert_to($1::text, 'UTF8')]"],
        _ => &[],
    }
}

/// Whether a text has the mark, as it is or as SQL writes bytes.
fn shows(text: &str) -> bool {
    let text = text.to_lowercase();
    // In hexadecimal digits, and in base64 as far as it does not depend on what is before.
    let hex: String = MARK.bytes().map(|byte| format!("{byte:02x}")).collect();
    text.contains(&MARK.to_lowercase()) || text.contains(&hex) || text.contains("wne3dks5")
}

/// What a client is told of a statement with a text as its parameter, if it fails.
fn failure(client: &mut Client, statement: &str, text: &str) -> Option<String> {
    let error = client.query(statement, &[&text]).err()?;
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
    let parts = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    Some(format!("{} {}", error.code().code(), parts.into_iter().flatten().collect::<Vec<_>>().join(" | ")))
}

#[test]
fn nothing_repeats_what_could_be_a_plaintext() {
    let fixture = fixture();
    let mut client = fixture.connect();
    client.run(
        "SET statement_timeout = '20s';
         SELECT env_local_create_key('dev');
         SELECT env_create_index_key('an_index', 'local:dev');
         CREATE TABLE a_table (id int PRIMARY KEY, plain text, other text, sealed bytea);
         INSERT INTO a_table VALUES (1, 'x', NULL, env_encrypt('x'::text, 'local:dev'))",
    );
    // A plaintext, and one that begins or looks as the name of a key does.
    let plaintexts = [
        format!("{MARK} is a secret"),
        format!("{MARK}ß 4111 1111"),
        "x".repeat(300) + MARK,
        format!("key: {MARK}"),
        format!("local:{MARK} {MARK}"),
    ];
    let key_names = [
        format!("key:{MARK}"),
        format!("local:{MARK}"),
        format!("alias/{MARK}"),
        format!("arn:aws:kms:us-east-1:111122223333:alias/{MARK}"),
        format!("arn:aws:kms:us-east-1:111122223333:key/{MARK}"),
    ];
    let (mut calls, mut seen, mut shown) = (0, fixture.cluster.log().len(), Vec::new());
    let mut names_shown = std::collections::BTreeSet::new();
    for function in functions(&mut client) {
        for (at, argument) in function.arguments.iter().enumerate() {
            for form in marked(&argument.sql_type) {
                let arguments: Vec<_> = (function.arguments.iter().enumerate())
                    .filter(|(other, given)| *other == at || !given.has_default)
                    .map(|(other, given)| {
                        let value = if other == at { form } else { sample(given) };
                        let sql_type =
                            given.sql_type.replace("anyelement", "text").replace("regclass", "oid::regclass");
                        let name = if function.kind == "a" || given.name.is_empty() {
                            String::new()
                        } else {
                            format!("\"{}\" => ", given.name)
                        };
                        format!("{name}({value})::{sql_type}")
                    })
                    .collect();
                let verb = if function.kind == "p" { "CALL" } else { "SELECT" };
                let statement = format!("{verb} {}({})", function.name, arguments.join(", "));
                let of_function = function.name.split_once('.').map_or(function.name.as_str(), |(_, name)| name);
                let of_function = format!("{of_function}.{}", argument.name);
                let name = NAMES.iter().find(|(name, _)| *name == argument.name || *name == of_function);
                let is_key = KEYS.contains(&argument.name.as_str());
                for (texts, may_be_shown) in [(&plaintexts[..], false), (&key_names[..], is_key)] {
                    calls += texts.len();
                    let mut said: Vec<_> =
                        texts.iter().filter_map(|text| failure(&mut client, &statement, text)).collect();
                    let log = fixture.cluster.log();
                    said.push(log[seen..].to_owned());
                    seen = log.len();
                    said.retain(|said| shows(said));
                    if let (false, Some((name, _))) = (said.is_empty(), name) {
                        names_shown.insert(*name);
                    } else if !may_be_shown {
                        shown.extend(
                            said.iter()
                                .map(|said| format!("{} {}, {form}: {said:.400}", function.identity, argument.name)),
                        );
                    }
                }
            }
        }
    }
    assert!(calls > 1_000, "{calls} calls");
    assert!(shown.is_empty(), "{} of {calls}:\n{}", shown.len(), shown.join("\n"));
    let unused: Vec<_> = NAMES.iter().filter(|(name, _)| !names_shown.contains(name)).collect();
    assert!(unused.is_empty(), "shown by nothing any more: {unused:?}");
}
