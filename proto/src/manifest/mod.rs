//! The YAML or JSON form of a policy, as people write it.
//!
//! [`parse`] reads texts with one or more documents, each a policy or a list of policies, and reports every fault of all of them with line, column and path;
//! [`to_yaml`] writes the canonical form with all defaults filled in, which `parse` takes back unchanged. The form is described
//! once, in `shape`: the reader checks against it and [`schema`] is made from it.

mod at;
mod documents;
mod limits;
mod read;
mod schema;
mod shape;
mod tree;
mod wire;
mod write;
mod yaml;

use std::fmt;

use fusebox_policy::Policy;
pub use schema::schema;
pub use write::{to_json, to_yaml};
pub use yaml::printable;

use self::documents::documents;

/// One policy read from a manifest, and where it stands.
#[derive(Clone, Debug)]
pub struct Document {
    /// The policy.
    pub policy: Policy,
    /// Name of the text, as given.
    pub source: String,
    /// Line where the document begins, from 1.
    pub line: usize,
}

/// One thing that is wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the text, as given.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the field: `spec.pipeline[1].retry.maxAttempts`. Empty for faults of the text itself.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

/// Everything that is wrong in a manifest.
#[derive(Clone, Debug)]
pub struct ManifestError {
    /// In the order of the text; never empty.
    pub faults: Vec<Fault>,
    lines: Vec<String>,
}

impl std::error::Error for ManifestError {}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let Fault { source, line, column, path, reason } = fault;
            write!(f, "{source}:{line}:{column}: ")?;
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{reason}")?;
            if let Some(text) = line.checked_sub(1).and_then(|index| self.lines.get(index)) {
                let gap = " ".repeat(column.saturating_sub(1));
                write!(f, "\n{line:>5} | {text}\n      | {gap}^")?;
            }
        }
        Ok(())
    }
}

/// Largest text: a thousand policies fit.
const MAX_TEXT: usize = 4 << 20;

/// Reads a text. `source_name` is what faults name as the place: a file name. What is documented as output only, like `status`, is
/// not looked at: what a program prints of stored policies can be given back.
///
/// # Errors
/// Every fault of all documents.
pub fn parse(source_name: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let mut parsed = Vec::new();
    let mut faults = Vec::new();
    let mut fault = |line, column, path: &str, reason: String| {
        let (source, path) = (source_name.to_owned(), path.to_owned());
        faults.push(Fault { source, line, column, path, reason });
    };
    if text.len() > MAX_TEXT {
        fault(1, 1, "", format!("is larger than {MAX_TEXT} bytes"));
    } else {
        match documents(text) {
            Err(wrong) => fault(wrong.line, wrong.column, "", wrong.reason),
            Ok((trees, wrong)) if trees.is_empty() && wrong.is_empty() => fault(1, 1, "", "has no policy".to_owned()),
            Ok((trees, wrong)) => {
                for read::Wrong { line, column, path, reason } in wrong {
                    fault(line, column, &path, reason);
                }
                for tree in trees {
                    match read::policy(&tree) {
                        Ok(policy) => {
                            parsed.push(Document { policy, source: source_name.to_owned(), line: tree.line });
                        }
                        Err(wrong) => {
                            for read::Wrong { line, column, path, reason } in wrong {
                                fault(line, column, &path, reason);
                            }
                        }
                    }
                }
            }
        }
    }
    for (index, document) in parsed.iter().enumerate() {
        let same = |other: &&Document| {
            (&other.policy.namespace, &other.policy.name) == (&document.policy.namespace, &document.policy.name)
        };
        if let Some(first) = parsed[..index].iter().find(same) {
            let reason = format!("\"{}\" is there twice: first at line {}", document.policy.name, first.line);
            faults.push(Fault {
                source: source_name.to_owned(),
                line: document.line,
                column: 1,
                path: "metadata.name".to_owned(),
                reason,
            });
        }
    }
    if faults.is_empty() { Ok(parsed) } else { Err(ManifestError { faults, lines: lines(text) }) }
}

/// The lines of a text as YAML counts them: a carriage return alone ends one too.
fn lines(text: &str) -> Vec<String> {
    text.replace("\r\n", "\n").split(['\r', '\n']).map(ToOwned::to_owned).collect()
}

/// Line and column, from 1, of the field at `path` of policy number `document` (from 0, as [`parse`] counts them). `None` if it
/// is not there. For faults that a server found.
#[must_use]
pub fn locate(text: &str, document: usize, path: &str) -> Option<(usize, usize)> {
    let (trees, _) = documents(text).ok()?;
    trees.get(document)?.find(path)
}
