//! Normalisation of text: the same before a token is stored and before one is searched for.

use std::borrow::Cow;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

use super::SearchError;

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
#[must_use]
pub fn normalize<'a>(text: &'a str, steps: &[Step]) -> Cow<'a, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| match step {
        Step::Lower => Cow::Owned(lower(&text)),
        Step::Nfkc => Cow::Owned(text.nfkc().collect()),
        Step::Trim => trim(text),
        Step::Digits => Cow::Owned(text.chars().filter(char::is_ascii_digit).collect()),
        Step::Email => Cow::Owned(lower(text.trim())),
    })
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).map(|char| if char == 'ς' { 'σ' } else { char }).collect()
}

fn trim(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
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
            assert_eq!(normalize(text, &steps(names)), normalized, "{names}");
        }
        assert!(matches!(normalize("as it is", &[]), Cow::Borrowed("as it is")));
    }

    #[test]
    fn a_prefix_of_a_word_is_one_of_its_lower_case() {
        for word in ["ΟΔΟΣΑ", "İstanbul", "STRASSE", "ǅ"] {
            let whole = normalize(word, &[Step::Lower]).into_owned();
            for (end, _) in word.char_indices() {
                assert!(whole.starts_with(&*normalize(&word[..end], &[Step::Lower])), "{word}");
            }
        }
    }

    #[test]
    fn again_changes_nothing() {
        let text = " ΣΑΣ ﬁ \u{1e9b}\u{323} İ ";
        for step in [Step::Lower, Step::Nfkc, Step::Trim, Step::Digits, Step::Email] {
            let once = normalize(text, &[step]).into_owned();
            assert_eq!(normalize(&once, &[step]), once, "{step:?}");
        }
    }

    #[test]
    fn refuses_other_names() {
        for name in ["", "LOWER", "upper", "lower ", "nfc"] {
            assert_eq!(name.parse::<Step>(), Err(SearchError::Step), "{name}");
        }
    }
}
