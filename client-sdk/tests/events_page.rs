//! The page of events names every event that the SDK's source can tell.

use std::{fs, path::Path};

/// What the macros are called with, in all of the SDK's source.
fn events(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            events(&path, found);
            continue;
        }
        let source = fs::read_to_string(&path).expect("source");
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (_, rest) in source.match_indices(&format!("tracing::{level}!(")).map(|(at, _)| source.split_at(at)) {
                // The message is the last literal.
                let message = literals(rest).pop();
                let message = message.unwrap_or_else(|| panic!("{}: an event without words", path.display()));
                found.push((level.to_uppercase(), message));
            }
        }
    }
}

/// The literals of the call that a text begins with.
fn literals(text: &str) -> Vec<String> {
    let (mut depth, mut inside) = (0, false);
    let mut found: Vec<String> = Vec::new();
    for letter in text.chars() {
        match letter {
            '"' => {
                inside = !inside;
                if inside {
                    found.push(String::new());
                }
            }
            _ if inside => found.last_mut().expect("it has begun").push(letter),
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// Without the names of what is put in.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    let mut inside = false;
    for letter in text.chars() {
        inside = (inside || letter == '{') && letter != '}';
        if !inside || letter == '{' {
            bare.push(letter);
        }
    }
    bare
}

#[test]
fn every_event_is_on_the_page_with_its_level() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let rows: Vec<String> = page.lines().filter(|line| line.starts_with('|')).map(bare).collect();
    let mut found = Vec::new();
    events(&root.join("src"), &mut found);
    assert!(found.len() > 20, "the source is read: {found:?}");
    for (level, message) in found {
        let row = rows.iter().find(|row| row.contains(&format!("`{}`", bare(&message))));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md has no row for {level} `{message}`"));
        assert!(row.contains(&format!("| {level} |")), "`{message}` is {level}: {row}");
    }
}
