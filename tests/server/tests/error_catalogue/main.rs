//! Every error that the extension can raise: the catalogue that docs/reference/errors.md is made of. The library's errors are made
//! here by the code that reports them; those of PL/pgSQL are read from the files below sql/.
//!
//! `UPDATE_EXPECTED=1` writes the page anew: review what changed.

// Of the library as it is; the catalogue uses its reports only.
#[allow(dead_code)]
#[path = "../../../../src/error/mod.rs"]
mod error;
mod page;
mod samples;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// An error as a client sees it. What differs from case to case is in capitals, or `%`.
pub struct Entry {
    /// Names it.
    pub id: String,
    /// Five characters.
    pub sqlstate: String,
    /// What happened.
    pub message: String,
    /// The facts.
    pub detail: Option<String>,
    /// What to do, in one sentence.
    pub hint: Option<String>,
    /// What else to do, or how it comes about.
    pub advice: Option<&'static str>,
    /// The file that raises it; `None`: the library.
    pub file: Option<String>,
}

/// The directory of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn catalogue() -> Vec<Entry> {
    let mut entries = samples::entries();
    entries.extend(sql::entries(&root().join("sql")));
    entries
}

#[test]
fn the_page_is_what_the_catalogue_makes() {
    let made = page::of(&catalogue());
    let path = root().join("docs/reference/errors.md");
    if env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &made).expect("the page can be written");
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    for (number, (made, line)) in made.lines().zip(page.lines()).enumerate() {
        assert_eq!(made, line, "line {} of docs/reference/errors.md; UPDATE_EXPECTED=1 writes it anew", number + 1);
    }
    assert_eq!(made.lines().count(), page.lines().count(), "one of them goes on");
}

#[test]
fn every_error_is_told_apart_and_says_what_to_do() {
    let mut ids = BTreeSet::new();
    let mut alone = Vec::new();
    for entry in catalogue() {
        let Entry { id, sqlstate, message, detail, hint, advice, file } = &entry;
        assert!(ids.insert(id.clone()), "{id} stands there twice");
        if hint.is_none() && advice.is_none() {
            alone.push(id.clone());
        }
        assert!(sqlstate.len() == 5, "{id}: {sqlstate}");
        // Those are mistakes of ours.
        assert!(sqlstate != "XX000" || advice.is_some_and(|advice| advice.contains("report")), "{id}: {sqlstate}");
        // PostgreSQL's style: a message is no sentence, DETAIL and HINT are.
        assert!(!message.ends_with('.') && !message.contains('\n'), "{id}: {message}");
        let sentences = [("DETAIL", detail.as_deref()), ("HINT", hint.as_deref()), ("advice", advice.as_deref())];
        for (what, text) in sentences.into_iter().filter_map(|(what, text)| Some((what, text?))) {
            // Of PL/pgSQL only the texts are read, not how they are put together.
            let is_sentence = file.is_some() || text.ends_with(['.', '?', ')', '_', '-']);
            assert!(is_sentence, "{what} of {id} is no sentence: {text}");
        }
    }
    assert!(alone.is_empty(), "these leave their reader alone; give them a HINT, or an advice here: {alone:#?}");
    for id in samples::ALL {
        assert!(id.is_empty() || ids.contains(*id), "samples.rs has no example of {id}");
    }
}

/// Who reads a message finds it by one search.
#[test]
fn one_message_has_one_sqlstate() {
    let mut by_message: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in catalogue() {
        by_message.entry(entry.message).or_default().insert(entry.sqlstate);
    }
    let several: Vec<_> = by_message.iter().filter(|(_, sqlstates)| sqlstates.len() > 1).collect();
    assert!(several.is_empty(), "{several:?}");
}

/// Errors come from one place: what is raised elsewhere would be in no catalogue.
#[test]
fn nothing_else_raises_errors() {
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("source is text");
            for way in ["ereport!(", "error!(", "errstart(", "ErrorReport::new", "PgLogLevel::ERROR"] {
                let is_report = path.ends_with("pg/report.rs");
                assert!(is_report || !text.contains(way), "{} raises by {way}", path.display());
            }
        }
    }
}
