//! `filter` of lists and watches: a small part of the language of AIP-160.
//!
//! ```text
//! service = "service-a" AND state = OPEN
//! labels.team = payments AND (zone = "eu-*" OR NOT behind = true) AND connected_for > 5m
//! ```
//! Comparisons `=`, `!=`, `<`, `<=`, `>`, `>=`, and `:` for "has"; joined by AND and OR, turned by NOT, grouped by parentheses. OR binds
//! closer than AND, as in that standard. `*` at the beginning or the end of a text matches any rest. What a field is called and what may
//! be said of it belongs to the thing that is listed: [`Fields`]. A filter that names what does not exist is an error with its place,
//! never one that matches nothing.

mod fields;
mod literal;
mod parse;

use std::{borrow::Cow, cmp::Ordering, time::Duration, time::SystemTime};

use literal::Literal;

/// Longest filter.
pub(crate) const LONGEST: usize = 2000;

/// A thing that lists can be filtered by.
pub(crate) trait Fields {
    /// What may be named, in the order in which errors tell it.
    const FIELDS: &'static [Field];

    /// The value of one of [`Self::FIELDS`]; `None` where the thing has none.
    fn value(&self, field: &str) -> Option<Value<'_>>;
}

/// A field that may be named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// What may be said of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    /// One of a few words.
    Word(&'static [&'static str]),
    Number,
    Flag,
    /// A length of time.
    Span,
    /// A moment.
    Moment,
    /// Several texts; `:` asks whether one is among them.
    Texts,
    /// Texts by key: `labels.team`.
    Labels,
}

/// The value of a field.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Flag(bool),
    Span(Duration),
    Moment(SystemTime),
    Texts(Vec<Cow<'a, str>>),
    Labels(&'a std::collections::BTreeMap<String, String>),
}

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {position}: {reason}")]
pub(crate) struct FilterError {
    /// The first character is 1.
    pub(crate) position: usize,
    pub(crate) reason: String,
}

/// A checked filter. The default admits everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(Option<Node>);

#[derive(Clone, Debug)]
enum Node {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare(Comparison),
}

#[derive(Clone, Debug)]
struct Comparison {
    field: &'static str,
    /// Of labels: which.
    key: Option<String>,
    operator: Operator,
    literal: Literal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Has,
}

impl Filter {
    /// Reads a filter of things of one kind. Empty text admits everything.
    ///
    /// # Errors
    /// What can't be read, and where.
    pub(crate) fn parse<T: Fields>(text: &str) -> Result<Self, FilterError> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        parse::parse(text, T::FIELDS, &[]).map(|node| Self(Some(node)))
    }

    /// The same for a watch, which looks at a thing when it changes: fields that grow with time alone can't be named.
    ///
    /// # Errors
    /// What can't be read, and where.
    pub(crate) fn parse_watch<T: Fields>(text: &str, growing: &[&str]) -> Result<Self, FilterError> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        parse::parse(text, T::FIELDS, growing).map(|node| Self(Some(node)))
    }

    /// Whether it is for a thing.
    pub(crate) fn admits<T: Fields>(&self, thing: &T) -> bool {
        self.0.as_ref().is_none_or(|node| node.admits(thing))
    }

    /// Whether it admits everything.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Node {
    fn admits<T: Fields>(&self, thing: &T) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.admits(thing)),
            Self::Any(parts) => parts.iter().any(|part| part.admits(thing)),
            Self::Not(part) => !part.admits(thing),
            Self::Compare(comparison) => comparison.admits(thing.value(comparison.field)),
        }
    }
}

impl Comparison {
    /// A value that is not there is unequal to everything, and nothing else.
    fn admits(&self, value: Option<Value<'_>>) -> bool {
        let Some(value) = value else { return self.operator == Operator::Unequal };
        match (value, &self.literal) {
            (Value::Labels(labels), literal) => {
                let found = self.key.as_ref().and_then(|key| labels.get(key));
                match (self.operator, literal, found) {
                    (Operator::Has, Literal::Present, found) => found.is_some(),
                    (_, Literal::Text(wanted), Some(found)) => self.ordered(wanted.compare(found)),
                    _ => self.operator == Operator::Unequal,
                }
            }
            (Value::Texts(texts), Literal::Text(wanted)) => {
                let among = texts.iter().any(|text| wanted.compare(text).is_eq());
                if self.operator == Operator::Unequal { !among } else { among }
            }
            (Value::Texts(texts), Literal::Present) => !texts.is_empty(),
            (Value::Text(text), Literal::Text(wanted)) => self.ordered(wanted.compare(&text)),
            (Value::Text(text), Literal::Present) => !text.is_empty(),
            (Value::Text(text), Literal::Word(wanted)) => self.ordered(text.as_ref().cmp(wanted)),
            (Value::Number(number), Literal::Number(wanted)) => {
                number.partial_cmp(wanted).is_some_and(|order| self.ordered(order))
            }
            (Value::Flag(flag), Literal::Flag(wanted)) => self.ordered(flag.cmp(wanted)),
            (Value::Span(span), Literal::Span(wanted)) => self.ordered(span.cmp(wanted)),
            (Value::Moment(moment), Literal::Moment(wanted)) => self.ordered(moment.cmp(wanted)),
            // The parser makes literals of the field's kind only.
            _ => false,
        }
    }

    /// Whether a value that compares so with the literal is admitted.
    fn ordered(&self, order: Ordering) -> bool {
        match self.operator {
            Operator::Equal | Operator::Has => order.is_eq(),
            Operator::Unequal => order.is_ne(),
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub(crate) const fn number(number: u64) -> Self {
        Self::Number(number as f64)
    }
}

#[cfg(test)]
mod tests;
