//! docs/reference/errors.md, of the catalogue.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Entry;

/// PostgreSQL's names of the conditions.
const NAMES: &[(&str, &str)] = &[
    ("08006", "connection_failure"),
    ("0A000", "feature_not_supported"),
    ("22000", "data_exception"),
    ("22003", "numeric_value_out_of_range"),
    ("22004", "null_value_not_allowed"),
    ("22021", "character_not_in_repertoire"),
    ("22023", "invalid_parameter_value"),
    ("22P03", "invalid_binary_representation"),
    ("22P05", "untranslatable_character"),
    ("23000", "integrity_constraint_violation"),
    ("23502", "not_null_violation"),
    ("23514", "check_violation"),
    ("25001", "active_sql_transaction"),
    ("39P01", "trigger_protocol_violated"),
    ("42501", "insufficient_privilege"),
    ("42703", "undefined_column"),
    ("42704", "undefined_object"),
    ("42710", "duplicate_object"),
    ("42804", "datatype_mismatch"),
    ("42809", "wrong_object_type"),
    ("428C9", "generated_always"),
    ("42P01", "undefined_table"),
    ("42P17", "invalid_object_definition"),
    ("53200", "out_of_memory"),
    ("53400", "configuration_limit_exceeded"),
    ("54000", "program_limit_exceeded"),
    ("55000", "object_not_in_prerequisite_state"),
    ("55006", "object_in_use"),
    ("58000", "system_error"),
    ("F0000", "config_file_error"),
    ("HV00D", "fdw_invalid_option_name"),
    ("XX000", "internal_error"),
    ("XX001", "data_corrupted"),
];

const HEAD: &str = "\
# Errors

Every error that envelope_pg raises, by SQLSTATE. This page is made by the test `error_catalogue`, of the code that reports them:
change that, not this. What differs from case to case is in capitals, or `%`.

What an error never has in it: a plaintext, a key, or an argument that could be a plaintext in the wrong place. Which errors pass,
and for how long a value is served without KMS, is in [OPERATIONS.md](../OPERATIONS.md); what KMS answers in which case in
[FAULTS.md](../FAULTS.md).
";

/// The page.
pub fn of(entries: &[Entry]) -> String {
    let mut by_sqlstate: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        by_sqlstate.entry(&entry.sqlstate).or_default().push(entry);
    }
    let mut page = HEAD.to_owned();
    for (sqlstate, mut entries) in by_sqlstate {
        let name = NAMES.iter().find(|(code, _)| *code == sqlstate);
        let name = name.unwrap_or_else(|| panic!("add the name of {sqlstate} to NAMES")).1;
        writeln!(page, "\n## {sqlstate} {name}").expect("a String takes it");
        entries.sort_by(|one, other| one.message.cmp(&other.message));
        for entry in entries {
            write_entry(&mut page, entry);
        }
    }
    page
}

fn write_entry(page: &mut String, entry: &Entry) {
    let mut line = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    line(&format!("\n### {}\n", entry.id));
    line("```text");
    line(&format!("ERROR:  {}", entry.message));
    if let Some(detail) = &entry.detail {
        line(&format!("DETAIL:  {detail}"));
    }
    if let Some(hint) = &entry.hint {
        line(&format!("HINT:  {hint}"));
    }
    line("```");
    if let Some(advice) = entry.advice {
        line("");
        line(advice);
    }
    if let Some(file) = &entry.file {
        line("");
        line(&format!("Raised by {file}."));
    }
}
