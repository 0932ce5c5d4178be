//! From the tree to the domain: checks the form, lets the domain judge what it says, and puts every fault at its place.

use std::time::Duration;

use fusebox_policy::{Invalid, Policy};

use super::{
    shape::{Field, Kind, MANIFEST},
    tree::{Node, Tree},
    wire::wire,
};
use crate::duration;

/// A fault and its place.
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) path: String,
    pub(super) reason: String,
}

/// Reads one document.
pub(super) fn policy(tree: &Tree) -> Result<Policy, Vec<Wrong>> {
    let mut form = Form { wrong: Vec::new() };
    form.check(tree, MANIFEST, "");
    if !form.wrong.is_empty() {
        // What is there and well-formed is judged too, so that one round shows all there is to mend. Faults of the domain at places
        // that the form has already complained about would only repeat it.
        if let Err(invalid) = Policy::try_from(wire(tree)) {
            form.add_domain(tree, &invalid);
        }
        return Err(form.sorted());
    }
    Policy::try_from(wire(tree)).map_err(|invalid| {
        form.add_domain(tree, &invalid);
        form.sorted()
    })
}

struct Form {
    wrong: Vec<Wrong>,
}

impl Form {
    fn sorted(mut self) -> Vec<Wrong> {
        self.wrong.sort_by_key(|wrong| (wrong.line, wrong.column));
        self.wrong
    }

    fn push(&mut self, line: usize, column: usize, path: &str, reason: String) {
        self.wrong.push(Wrong { line, column, path: path.to_owned(), reason });
    }

    fn at(&mut self, tree: &Tree, path: &str, reason: String) {
        self.push(tree.line, tree.column, path, reason);
    }

    fn add_domain(&mut self, tree: &Tree, invalid: &Invalid) {
        for violation in invalid.violations() {
            // On the wire the metadata has no message of its own.
            let path = match violation.field.as_str() {
                field if field == "name" || field == "labels" || field.starts_with("labels.") => {
                    &format!("metadata.{field}")
                }
                field => field,
            };
            let known = |wrong: &Wrong| path.starts_with(&wrong.path) || wrong.path.starts_with(path);
            // Faults of the form come first; a fault of the domain at the same place would be its echo.
            if self.wrong.iter().any(known) {
                continue;
            }
            let (line, column) = tree.locate(path);
            self.push(line, column, path, violation.reason.clone());
        }
    }

    fn check(&mut self, tree: &Tree, kind: Kind, path: &str) {
        match kind {
            Kind::Text => self.scalar(tree, path, "text", |_| true),
            Kind::Exactly(wanted) => self.scalar(tree, path, &format!("\"{wanted}\""), |text| text == wanted),
            Kind::Duration => self.duration(tree, path),
            Kind::Date => self.scalar(tree, path, "a date like 2027-01-01T00:00:00Z", |text| read_date(text).is_some()),
            Kind::Whole => self.scalar(tree, path, "a whole number, not negative", |text| text.parse::<u32>().is_ok()),
            Kind::Number => self.scalar(tree, path, "a number", |text| text.parse::<f64>().is_ok_and(f64::is_finite)),
            Kind::Bool => self.scalar(tree, path, "true or false", |text| matches!(text, "true" | "false")),
            Kind::Choice(words) => self.choice(tree, path, words),
            Kind::Status => self.scalar(tree, path, "a status: \"503\", \"5xx\" or \"500-504\"", |_| true),
            Kind::Jitter => self.scalar(tree, path, "none, full, equal or a ratio from 0 to 1", |text| {
                matches!(text, "none" | "full" | "equal") || text.parse::<f64>().is_ok()
            }),
            Kind::Texts => match &tree.node {
                Node::Map(entries) => {
                    for entry in entries {
                        self.check(&entry.value, Kind::Text, &join(path, &entry.key));
                    }
                }
                Node::Scalar { .. } | Node::List(_) => self.must_be(tree, path, "a map"),
            },
            Kind::List(inner) => match &tree.node {
                Node::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.check(item, *inner, &format!("{path}[{index}]"));
                    }
                }
                Node::Scalar { .. } | Node::Map(_) => self.must_be(tree, path, "a list"),
            },
            Kind::Map(fields) => self.map(tree, path, &[fields]),
            Kind::OneOf(kinds) => {
                self.map(tree, path, &[kinds]);
                self.exactly_one(tree, path, kinds);
            }
            Kind::Choosing(shared, kinds) => {
                self.map(tree, path, &[shared, kinds]);
                self.at_most_one(tree, path, kinds);
            }
            Kind::Element(shared, kinds) => {
                self.map(tree, path, &[shared, kinds]);
                self.exactly_one(tree, path, kinds);
            }
            Kind::Either(scalar, other) => {
                let simple = matches!(tree.node, Node::Scalar { .. }) && !tree.is_null();
                self.check(tree, if simple { *scalar } else { *other }, path);
            }
            Kind::Output(_) => {}
        }
    }

    fn must_be(&mut self, tree: &Tree, path: &str, wanted: &str) {
        let found = match &tree.node {
            _ if tree.is_null() => "nothing".to_owned(),
            Node::Scalar { text, .. } => format!("{text:?}"),
            Node::List(_) | Node::Map(_) => tree.kind().to_owned(),
        };
        self.at(tree, path, format!("must be {wanted}, is {found}"));
    }

    fn scalar(&mut self, tree: &Tree, path: &str, wanted: &str, fits: impl Fn(&str) -> bool) {
        match &tree.node {
            Node::Scalar { text, .. } if !tree.is_null() && fits(text) => {}
            Node::Scalar { .. } | Node::List(_) | Node::Map(_) => self.must_be(tree, path, wanted),
        }
    }

    fn duration(&mut self, tree: &Tree, path: &str) {
        if let Some(span) = scalar(tree).and_then(read_duration) {
            if duration::is_too_long(span) {
                self.at(tree, path, duration::too_long(span));
            }
            return;
        }
        match scalar(tree) {
            Some(text) if text.parse::<f64>().is_ok_and(|number| number >= 0.0) => {
                let reason = format!("{text} has no unit: write {text}s or {text}ms");
                self.at(tree, path, reason);
            }
            Some(text) if text.starts_with('-') => {
                self.at(tree, path, format!("must not be negative, is {text}"));
            }
            Some(_) | None => self.must_be(tree, path, "a duration like 100ms, 10s or 1m30s"),
        }
    }

    fn choice(&mut self, tree: &Tree, path: &str, words: &[&str]) {
        match scalar(tree) {
            Some(text) if words.contains(&text) => {}
            Some(text) => {
                let list = words.join(", ");
                let hint = nearest(text, words).map(|word| format!(": did you mean {word}?")).unwrap_or_default();
                self.at(tree, path, format!("must be one of {list}, is {text:?}{hint}"));
            }
            None => self.must_be(tree, path, &format!("one of {}", words.join(", "))),
        }
    }

    fn map(&mut self, tree: &Tree, path: &str, parts: &[&[Field]]) {
        let fields = || parts.iter().copied().flatten();
        let Node::Map(entries) = &tree.node else {
            self.must_be(tree, path, "a map");
            return;
        };
        for entry in entries {
            let inner = join(path, &entry.key);
            match fields().find(|field| field.name == entry.key) {
                // `circuitBreaker:` with nothing behind it is as good as `circuitBreaker: {}`.
                Some(Field { kind: Kind::Map(known), .. })
                    if entry.value.is_null() && known.iter().all(|field| !field.required) => {}
                Some(field) => self.check(&entry.value, field.kind, &inner),
                None => {
                    let names: Vec<&str> = fields().map(|field| field.name).collect();
                    let hint = nearest(&entry.key, &names).map_or_else(
                        || format!("known are {}", names.join(", ")),
                        |name| format!("did you mean {name}?"),
                    );
                    self.push(entry.line, entry.column, &inner, format!("unknown field: {hint}"));
                }
            }
        }
        for field in fields().filter(|field| field.required) {
            if entries.iter().all(|entry| entry.key != field.name) {
                self.at(tree, &join(path, field.name), "is required".to_owned());
            }
        }
    }

    fn at_most_one(&mut self, tree: &Tree, path: &str, kinds: &[Field]) {
        let names: Vec<&str> = kinds.iter().map(|field| field.name).collect();
        let present = names.iter().filter(|name| tree.get(name).is_some()).count();
        if present > 1 {
            self.at(tree, path, format!("must have at most one of {}, has {present}", names.join(", ")));
        }
    }

    fn exactly_one(&mut self, tree: &Tree, path: &str, kinds: &[Field]) {
        let Node::Map(entries) = &tree.node else {
            return;
        };
        let present = entries.iter().filter(|entry| kinds.iter().any(|field| field.name == entry.key)).count();
        // An unknown field has been complained about: it is most likely the misspelt one.
        let unknown =
            entries.len() > present && present == 0 && self.wrong.iter().any(|wrong| wrong.path.starts_with(path));
        if present != 1 && !unknown {
            let names: Vec<&str> = kinds.iter().map(|field| field.name).collect();
            self.at(tree, path, format!("must have exactly one of {}, has {present}", names.join(", ")));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The known word that was most likely meant.
fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let text = folded(text);
    let distance = |word: &str| {
        let word: Vec<char> = folded(word).chars().collect();
        let mut row: Vec<usize> = (0..=word.len()).collect();
        for (line, letter) in text.chars().enumerate() {
            let mut corner = row[0];
            row[0] = line + 1;
            for column in 0..word.len() {
                let above = row[column + 1];
                let change = corner + usize::from(letter != word[column]);
                row[column + 1] = change.min(above + 1).min(row[column] + 1);
                corner = above;
            }
        }
        row[word.len()]
    };
    words
        .iter()
        .map(|word| (distance(word), *word))
        .filter(|(far, word)| *far <= 2.min(word.len() / 2))
        .min()
        .map(|(_, word)| word)
}

pub(super) fn scalar(tree: &Tree) -> Option<&str> {
    match &tree.node {
        Node::Scalar { text, .. } if !tree.is_null() => Some(text),
        Node::Scalar { .. } | Node::List(_) | Node::Map(_) => None,
    }
}

pub(super) fn read_duration(text: &str) -> Option<Duration> {
    // A bare zero needs no unit in humantime; here every duration has one.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { humantime::parse_duration(text).ok() }
}

/// Seconds since 1970. A date without a zone would mean another moment on each machine: the form asks for `Z`.
pub(super) fn read_date(text: &str) -> Option<i64> {
    let date = humantime::parse_rfc3339(text).ok()?;
    i64::try_from(date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}
