//! What PostgreSQL's catalog says of the extension, as text that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use postgres::Client;

/// Everything about each object of the extension: its name, and lines of text.
pub struct Catalog(BTreeMap<String, String>);

impl Catalog {
    /// Reads the catalog of the extension in the client's database. Leaves its search_path at `pg_catalog`, so that all names
    /// in it have their schema.
    ///
    /// # Panics
    /// If an object has no comment.
    pub fn read(client: &mut Client) -> Self {
        client.batch_execute("SET search_path = pg_catalog").expect("a setting of everybody");
        let rows = client.query(include_str!("catalog.sql"), &[]).expect("the catalog can be read");
        let objects: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_commented =
            |(name, text): (&String, &String)| name.starts_with("extension") || text.contains("\n  comment ");
        assert!(!objects.is_empty(), "the extension is in this database");
        let bare: Vec<_> = objects.iter().filter(|object| !is_commented(*object)).map(|(name, _)| name).collect();
        assert!(bare.is_empty(), "without a comment: {bare:?}");
        Self(objects)
    }

    /// A paragraph for each object.
    pub fn text(&self) -> String {
        self.0.values().fold(String::new(), |mut text, object| {
            writeln!(text, "{object}").expect("a string takes it");
            text
        })
    }

    /// What one catalog has and the other has not: object by object, the lines with `-` and `+` in front.
    pub fn difference(&self, other: &Self) -> String {
        let mut difference = String::new();
        for name in self.0.keys().chain(other.0.keys()).collect::<BTreeSet<_>>() {
            let lines = |catalog: &Self| -> Vec<String> {
                catalog.0.get(name).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
            };
            let (here, there) = (lines(self), lines(other));
            let mut say = |sign: char, of: &[String], without: &[String]| {
                for line in of.iter().filter(|line| !without.contains(line)) {
                    writeln!(difference, "{sign} {name}: {}", line.trim()).expect("a string takes it");
                }
            };
            say('-', &here, &there);
            say('+', &there, &here);
            if difference.is_empty() && here != there {
                writeln!(difference, "* {name}: the same lines in another order").expect("a string takes it");
            }
        }
        difference
    }
}
