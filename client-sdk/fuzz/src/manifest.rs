//! Any bytes as the text of a manifest.

use fusebox_policy::Policy;
use fusebox_proto::manifest::{self, Fault};

/// What parses reads back unchanged; what does not is complained about at places inside of the text.
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
    for text in [manifest::to_yaml(policy), manifest::to_json(policy).to_string()] {
        let documents = match manifest::parse("canonical", &text) {
            Ok(documents) => documents,
            Err(error) => panic!("the canonical form is refused: {error}\n{text}\n{policy:?}"),
        };
        assert_eq!(documents.len(), 1, "{text}");
        let again = Policy { revision: policy.revision, ..documents[0].policy.clone() };
        assert_eq!(&again, policy, "{text}");
    }
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
    text.split('\n')
        .flat_map(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            line.split('\r')
        })
        .collect()
}
