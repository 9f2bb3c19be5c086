//! Normalisation of text: the same before a token is stored and before one is searched for.

use std::borrow::Cow;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

use super::SearchError;

/// No value of PostgreSQL has more.
const MAX_BYTES: usize = 1 << 30;

/// One step. They are done in the order in which they are given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The lower case of each character by the Unicode Character Database, whatever the characters around it; a final sigma is
    /// a sigma, so that the prefix of a word is the prefix of its lower case.
    Lower,
    /// Normalization Form KC (UAX #15).
    Nfkc,
    /// Without white space (the property `White_Space`) at both ends.
    Trim,
    /// The digits 0 to 9 only.
    Digits,
    /// [`Self::Trim`], then [`Self::Lower`]: almost no mail server tells the case of a local part.
    Email,
}

impl FromStr for Step {
    type Err = SearchError;

    fn from_str(name: &str) -> Result<Self, SearchError> {
        match name {
            "lower" => Ok(Self::Lower),
            "nfkc" => Ok(Self::Nfkc),
            "trim" => Ok(Self::Trim),
            "digits" => Ok(Self::Digits),
            "email" => Ok(Self::Email),
            _ => Err(SearchError::Step),
        }
    }
}

/// Text after these steps.
///
/// # Errors
/// [`SearchError::TooLong`]: a step can make it longer.
pub fn normalize<'a>(text: &'a str, steps: &[Step]) -> Result<Cow<'a, str>, SearchError> {
    steps.iter().try_fold(Cow::Borrowed(text), |text, step| match step {
        Step::Lower => lower(&text).map(Cow::Owned),
        Step::Nfkc => collect(text.nfkc()).map(Cow::Owned),
        Step::Trim => trim(text),
        Step::Digits => collect(text.chars().filter(char::is_ascii_digit)).map(Cow::Owned),
        Step::Email => lower(text.trim()).map(Cow::Owned),
    })
}

fn lower(text: &str) -> Result<String, SearchError> {
    collect(text.chars().flat_map(char::to_lowercase).map(|char| if char == 'ς' { 'σ' } else { char }))
}

fn trim(text: Cow<'_, str>) -> Result<Cow<'_, str>, SearchError> {
    match text {
        Cow::Borrowed(text) => Ok(Cow::Borrowed(text.trim())),
        Cow::Owned(text) => collect(text.trim().chars()).map(Cow::Owned),
    }
}

/// A String that fails where a plain one would end the process.
fn collect(chars: impl Iterator<Item = char>) -> Result<String, SearchError> {
    let mut text = String::new();
    for char in chars {
        if text.capacity() - text.len() < char.len_utf8() {
            let more = text.len().max(char.len_utf8());
            let fits = text.len() + more < 2 * MAX_BYTES;
            fits.then_some(()).and_then(|()| text.try_reserve(more).ok()).ok_or(SearchError::TooLong)?;
        }
        text.push(char);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_the_steps_in_their_order() {
        let steps = |names: &str| names.split(' ').map(|name| name.parse().unwrap()).collect::<Vec<Step>>();
        for (names, text, normalized) in [
            ("lower", "Ünïcode İ ΟΔΟΣ οδος", "ünïcode i̇ οδοσ οδοσ"),
            ("nfkc", "ﬁ \u{ff11}\u{212b}e\u{301}", "fi 1Åé"),
            ("trim", "\u{a0} a b\u{2003}\n", "a b"),
            ("digits", "+49 (30) \u{ff11}23-4", "4930234"),
            ("nfkc digits", "+49 (30) \u{ff11}23-4", "49301234"),
            ("digits nfkc", "+49 (30) \u{ff11}23-4", "4930234"),
            ("email", "  Ada.Lovelace@Example.ORG\t", "ada.lovelace@example.org"),
            ("trim lower", " X ", "x"),
        ] {
            assert_eq!(normalize(text, &steps(names)).unwrap(), normalized, "{names}");
        }
        assert!(matches!(normalize("as it is", &[]), Ok(Cow::Borrowed("as it is"))));
    }

    #[test]
    fn a_prefix_of_a_word_is_one_of_its_lower_case() {
        for word in ["ΟΔΟΣΑ", "İstanbul", "STRASSE", "ǅ"] {
            let whole = normalize(word, &[Step::Lower]).unwrap().into_owned();
            for (end, _) in word.char_indices() {
                assert!(whole.starts_with(&*normalize(&word[..end], &[Step::Lower]).unwrap()), "{word}");
            }
        }
    }

    #[test]
    fn again_changes_nothing() {
        let text = " ΣΑΣ ﬁ \u{1e9b}\u{323} İ ";
        for step in [Step::Lower, Step::Nfkc, Step::Trim, Step::Digits, Step::Email] {
            let once = normalize(text, &[step]).unwrap().into_owned();
            assert_eq!(normalize(&once, &[step]).unwrap(), once, "{step:?}");
        }
    }

    #[test]
    fn refuses_other_names() {
        for name in ["", "LOWER", "upper", "lower ", "nfc"] {
            assert_eq!(name.parse::<Step>(), Err(SearchError::Step), "{name}");
        }
    }
}
