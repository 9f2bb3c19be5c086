//! What the server said when a statement failed.

use postgres::Error;

/// The parts of a server error that tests assert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// DETAIL, or empty.
    pub detail: String,
    /// HINT, or empty.
    pub hint: String,
}

impl Failure {
    /// The error of a server, if this is one and not a lost connection.
    pub fn of(error: &Error) -> Option<Self> {
        let error = error.as_db_error()?;
        Some(Self {
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().unwrap_or_default().to_owned(),
            hint: error.hint().unwrap_or_default().to_owned(),
        })
    }

    /// Panics unless the SQLSTATE is this one. Returns itself for more.
    #[track_caller]
    pub fn with(self, sqlstate: &str) -> Self {
        assert_eq!(self.sqlstate, sqlstate, "{self:?}");
        self
    }

    /// Panics unless message, DETAIL and HINT together contain a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.text().contains(text), "{text:?} is not in {self:?}");
        self
    }

    /// Message, DETAIL and HINT.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}", self.message, self.detail, self.hint)
    }
}

/// Panics unless a statement failed with this SQLSTATE. A client whose session was terminated may see its connection close
/// before it reads why.
#[track_caller]
pub fn expect_end<T>(result: Result<T, Error>, sqlstate: &str) {
    match result {
        Err(error) if error.is_closed() && sqlstate == "57P01" => {}
        result => drop(expect_error(result).with(sqlstate)),
    }
}

/// The failure of a statement that must fail.
#[track_caller]
pub fn expect_error<T>(result: Result<T, Error>) -> Failure {
    match result {
        Ok(_) => panic!("the statement succeeded"),
        Err(error) => Failure::of(&error).unwrap_or_else(|| panic!("not an error of the server: {error:?}")),
    }
}
