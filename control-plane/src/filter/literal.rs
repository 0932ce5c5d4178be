//! What a field is compared with, read as what the field is.

use std::{
    cmp::Ordering,
    time::{Duration, SystemTime},
};

use super::Kind;

/// A checked literal.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Text(Pattern),
    Word(&'static str),
    Number(f64),
    Flag(bool),
    Span(Duration),
    Moment(SystemTime),
    /// `*` after `:`: anything at all.
    Present,
}

/// A text, or its beginning or end.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Whole(String),
    Beginning(String),
    End(String),
    Middle(String),
}

impl Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let (text, open_left) = text.strip_prefix('*').map_or((text, false), |rest| (rest, true));
        let (text, open_right) = text.strip_suffix('*').map_or((text, false), |rest| (rest, true));
        if text.contains('*') {
            return Err("\"*\" stands for any text at the beginning or the end only".to_owned());
        }
        let text = text.to_owned();
        Ok(match (open_left, open_right) {
            (false, false) => Self::Whole(text),
            (false, true) => Self::Beginning(text),
            (true, false) => Self::End(text),
            (true, true) => Self::Middle(text),
        })
    }

    /// How a text compares with it; a text that it matches is equal.
    pub(super) fn compare(&self, text: &str) -> Ordering {
        let (matches, wanted) = match self {
            Self::Whole(wanted) => (text == wanted, wanted),
            Self::Beginning(wanted) => (text.starts_with(wanted.as_str()), wanted),
            Self::End(wanted) => (text.ends_with(wanted.as_str()), wanted),
            Self::Middle(wanted) => (text.contains(wanted.as_str()), wanted),
        };
        if matches {
            return Ordering::Equal;
        }
        // Unequal in any case, also where the fixed part happens to be the same text.
        text.cmp(wanted).then(Ordering::Greater)
    }
}

/// Reads a literal for a field of a kind; the error says what would do.
pub(super) fn read(kind: Kind, text: &str) -> Result<Literal, String> {
    let wrong = |what: &str| format!("{text:?} is not {what}");
    match kind {
        Kind::Text | Kind::Texts | Kind::Labels => Pattern::read(text).map(Literal::Text),
        Kind::Word(words) => {
            let typed = text.to_ascii_uppercase().replace('-', "_");
            let found = words.iter().find(|word| **word == typed);
            found.map(|word| Literal::Word(word)).ok_or_else(|| wrong(&format!("one of {}", words.join(", "))))
        }
        Kind::Number => text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Literal::Number)
            .ok_or_else(|| wrong("a number")),
        Kind::Flag => text.parse().map(Literal::Flag).map_err(|_| wrong("true or false")),
        Kind::Span => humantime::parse_duration(text).map(Literal::Span).map_err(|_| wrong("a time like 90s or 5m")),
        Kind::Moment => humantime::parse_rfc3339_weak(text)
            .map(Literal::Moment)
            .map_err(|_| wrong("a moment like \"2026-11-25T12:00:00Z\"")),
    }
}
