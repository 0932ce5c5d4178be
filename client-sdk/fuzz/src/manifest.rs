//! Any bytes as the text of a manifest.

use fusebox_policy::Policy;
use fusebox_proto::manifest::{self, Fault};

use crate::wire::comes_back;

/// What parses reads back unchanged, and comes through the wire unchanged; what does not is complained about at places inside of the text.
///
/// # Panics
/// Where that does not hold.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match manifest::parse("fuzz.yaml", &text) {
        Ok(documents) => {
            assert!(!documents.is_empty(), "a text without a policy is a fault");
            for document in documents {
                assert!(document.line >= 1 && document.line <= lines(&text).len(), "line {}", document.line);
                reads_back(&document.policy);
                comes_back(&document.policy);
            }
        }
        Err(error) => {
            assert!(!error.faults.is_empty(), "an error says what is wrong");
            let lines = lines(&text);
            for fault in &error.faults {
                is_inside(fault, &lines);
            }
            assert!(error.to_string().contains(&error.faults[0].reason));
            let _ = manifest::locate(&text, 0, &error.faults[0].path);
        }
    }
}

/// The canonical form of a policy is a manifest of the same policy. A manifest has no revision: the store counts them.
///
/// # Panics
/// If it is not.
pub fn reads_back(policy: &Policy) {
    // JSON leaves some characters as they are that a reader of YAML refuses.
    let json = Some(manifest::to_json(policy).to_string()).filter(|json| json.chars().all(is_printable));
    for text in std::iter::once(manifest::to_yaml(policy)).chain(json) {
        let documents = match manifest::parse("canonical", &text) {
            Ok(documents) => documents,
            Err(error) => panic!("the canonical form is refused: {error}\n{text}\n{policy:?}"),
        };
        assert_eq!(documents.len(), 1, "{text}");
        let again = Policy { revision: policy.revision, ..documents[0].policy.clone() };
        assert_eq!(&again, policy, "{text}");
    }
}

/// `c-printable` of the YAML specification, without control characters, which JSON escapes.
const fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn is_inside(fault: &Fault, lines: &[&str]) {
    let Fault { line, column, .. } = fault;
    let Some(there) = line.checked_sub(1).and_then(|index| lines.get(index)) else {
        panic!("line {line} of {}: {fault:?}", lines.len());
    };
    // The place behind the last character is where something is missing.
    assert!((1..=there.chars().count() + 1).contains(column), "column {column} of {there:?}: {fault:?}");
}

/// Lines as YAML counts them: a carriage return alone ends one too.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        lines.push(&rest[..end]);
        rest = if rest[end..].starts_with("\r\n") { &rest[end + 2..] } else { &rest[end + 1..] };
    }
    lines.push(rest);
    lines
}
