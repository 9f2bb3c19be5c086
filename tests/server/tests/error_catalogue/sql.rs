//! The errors of PL/pgSQL: each RAISE below sql/ that is one.

use std::fs;
use std::path::Path;

use super::Entry;

/// Conditions of PL/pgSQL (PostgreSQL documentation, appendix A) that sql/ uses.
const CONDITIONS: &[(&str, &str)] = &[
    ("active_sql_transaction", "25001"),
    ("check_violation", "23514"),
    ("connection_failure", "08006"),
    ("data_corrupted", "XX001"),
    ("data_exception", "22000"),
    ("datatype_mismatch", "42804"),
    ("duplicate_object", "42710"),
    ("feature_not_supported", "0A000"),
    ("generated_always", "428C9"),
    ("insufficient_privilege", "42501"),
    ("internal_error", "XX000"),
    ("invalid_parameter_value", "22023"),
    ("not_null_violation", "23502"),
    ("null_value_not_allowed", "22004"),
    ("object_in_use", "55006"),
    ("object_not_in_prerequisite_state", "55000"),
    ("undefined_column", "42703"),
    ("undefined_object", "42704"),
    ("undefined_table", "42P01"),
    ("wrong_object_type", "42809"),
];

/// All of them, by file.
pub fn entries(directory: &Path) -> Vec<Entry> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        for entry in fs::read_dir(&current).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                // Released scripts are frozen, and upgrades run these files.
                if !path.ends_with("released") {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "sql") {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut entries: Vec<Entry> = Vec::new();
    for path in files {
        let name = path.strip_prefix(directory).expect("it is below").display().to_string();
        for statement in raises(&fs::read_to_string(&path).expect("SQL is text")) {
            let entry = parse(&name, &statement);
            let is_known = |known: &Entry| (&known.message, &known.sqlstate) == (&entry.message, &entry.sqlstate);
            // The same error of another place.
            match entries.iter_mut().find(|known| is_known(known)) {
                Some(known) => {
                    if let Some(file) = known.file.as_mut().filter(|file| !file.contains(&name)) {
                        file.push_str(", ");
                        file.push_str(&name);
                    }
                }
                None => entries.push(entry),
            }
        }
    }
    entries
}

/// The statements RAISE that raise an error of their own: the text behind the word.
fn raises(sql: &str) -> Vec<String> {
    let code: String = sql.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("RAISE") {
        let before = code[..at].chars().next_back();
        let rest = &code[at + "RAISE".len()..];
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_') || !rest.starts_with([' ', ';']) {
            continue;
        }
        let statement = rest[..end_of_statement(rest)].trim();
        // Raised again, or what another error said.
        // Or a signal from one function to another, which no client sees.
        let passes_on = statement.is_empty()
            || statement.starts_with("SQLSTATE")
            || statement.starts_with("'%',") && statement.contains("message");
        if !passes_on && !["NOTICE", "WARNING", "LOG", "INFO"].iter().any(|level| statement.starts_with(level)) {
            found.push(statement.to_owned());
        }
    }
    found
}

/// Up to the semicolon that is in no text.
fn end_of_statement(text: &str) -> usize {
    let mut in_text = false;
    for (at, character) in text.char_indices() {
        match character {
            '\'' => in_text = !in_text,
            ';' if !in_text => return at,
            _ => {}
        }
    }
    text.len()
}

fn parse(file: &str, statement: &str) -> Entry {
    let statement = statement.strip_prefix("EXCEPTION").unwrap_or(statement);
    let (message, using) =
        statement.split_once("USING").unwrap_or_else(|| panic!("{file}: {statement} has no SQLSTATE"));
    let texts = texts(message);
    let message = texts.first().unwrap_or_else(|| panic!("{file}: {statement} has no message")).clone();
    let sqlstate = if message.contains("MESSAGE") { String::new() } else { sqlstate(file, using) };
    Entry {
        id: id_of(&message),
        sqlstate,
        detail: option(using, "DETAIL"),
        hint: option(using, "HINT"),
        advice: ADVICE.iter().find(|(begin, _)| message.starts_with(begin)).map(|(_, advice)| *advice),
        message,
        file: Some(format!("sql/{file}")),
    }
}

fn sqlstate(file: &str, using: &str) -> String {
    let after = using.split_once("ERRCODE =").unwrap_or_else(|| panic!("{file}: {using} has no SQLSTATE")).1;
    let condition = texts(after).into_iter().next().expect("a SQLSTATE is a text");
    let known = CONDITIONS.iter().find(|(name, _)| *name == condition);
    known.map_or_else(|| panic!("{file}: add the condition {condition} to CONDITIONS"), |(_, code)| (*code).to_owned())
}

/// The texts of an option of USING, one after the other.
fn option(using: &str, name: &str) -> Option<String> {
    let after = using.split_once(&format!("{name} ="))?.1;
    let end = ["ERRCODE =", "DETAIL =", "HINT =", "MESSAGE ="].iter().filter_map(|next| after.find(next)).min();
    let texts: Vec<String> = texts(&after[..end.unwrap_or(after.len())]);
    let parts: Vec<&str> = texts
        .iter()
        .map(String::as_str)
        .filter(|text| text.chars().filter(|letter| letter.is_alphabetic()).count() > 5 && text.contains(' '))
        .collect();
    // A literal that goes on in the next line, or several cases.
    let mut joined = String::new();
    for part in parts {
        if joined.ends_with('.') {
            joined.push_str(" Or: ");
        }
        joined.push_str(part);
    }
    (!joined.is_empty()).then(|| joined.replace("%I", "%").replace("%L", "%").replace("%s", "%"))
}

/// The string literals in a part of a statement.
fn texts(part: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut characters = part.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\'' {
            continue;
        }
        let mut text = String::new();
        while let Some(character) = characters.next() {
            if character == '\'' {
                if characters.peek() != Some(&'\'') {
                    break;
                }
                characters.next();
            }
            text.push(character);
        }
        texts.push(text);
    }
    texts
}

fn id_of(message: &str) -> String {
    let words: String =
        message.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { ' ' }).collect();
    words.split_whitespace().collect::<Vec<_>>().join("-").to_lowercase()
}

/// What else to do, by how the message begins.
const ADVICE: &[(&str, &str)] = &[
    (
        "data keys of run",
        "A mistake of the extension's, or of somebody who has changed its tables. No value is harmed: abandon the run, and report it.",
    ),
    ("a table of the run is gone", "Somebody dropped a partition while the run worked on it. CALL it again."),
    ("run % does not exist", "`SELECT run_id, state FROM env_rotation` shows the runs."),
    ("run % is over", "It is `done` or `abandoned`; there is nothing to give up."),
    ("rates and shares of a plan", "`rows_per_second` is above 0, `sample_percent` above 0 and 100 at most."),
    ("relation must be a table", "The table was dropped while the statement began, or the OID is of something else."),
    ("limits of a run", "Leave a limit out for its default; NULL is none for `max_rows_per_second` only."),
    ("aad_column and aad_expression", "Give the one that the values were encrypted with."),
    (
        "column \"%\" of relation % does not exist",
        "Names are matched letter by letter, as in pg_attribute: no quotes, no folding.",
    ),
    (
        "run % is not an open one",
        "Another session has ended or abandoned the run meanwhile. `SELECT * FROM env_rotation` shows it.",
    ),
    ("relation % is gone", "The table was dropped or renamed while the run worked on it."),
    ("name of an index key", "Such as `person.name`. The name is part of what each token is made of."),
    ("batch_blocks must be positive", "Leave it out for its default of 64 blocks a transaction."),
    ("characters to keep", "0 shows none of them."),
];
