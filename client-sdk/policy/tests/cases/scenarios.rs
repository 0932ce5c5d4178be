//! The table of the behaviour scenarios of the field's libraries (`tests/scenarios.md`): complete, and about tests that exist.

use std::{collections::BTreeMap, fs, path::Path};

/// The scenarios that must have a row.
const KNOWN: [u32; 109] = [
    1, 2, 3, 4, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 29, 30, 32, 33, 34, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 61, 62, 63, 65, 68, 69, 70, 71, 72, 73,
    75, 76, 78, 79, 80, 82, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94, 95, 97, 100, 102, 104, 105, 107, 108, 110, 111,
    112, 113, 114, 115, 117, 118, 120, 121, 123, 124, 125, 127, 129, 130, 131, 133, 134, 135, 136, 137, 139, 140, 141,
    143,
];

/// One row of the table.
struct Row<'a> {
    number: u32,
    behaviour: &'a str,
    /// File and function.
    tests: Vec<(&'a str, &'a str)>,
    reason: &'a str,
}

fn rows(table: &str) -> Vec<Row<'_>> {
    table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| no.")).map(row).collect()
}

fn row(line: &str) -> Row<'_> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [number, library, behaviour, tests, reason] = cells[..] else { panic!("a row has five cells: {line}") };
    assert!(!library.is_empty(), "a row names its library: {line}");
    let tests = tests
        .split("<br>")
        .filter(|text| !text.is_empty())
        .map(|text| {
            let found = text.trim_matches('`').split_once(" :: ");
            found.unwrap_or_else(|| panic!("a test is `file :: function`: {line}"))
        })
        .collect();
    Row { number: number.parse().unwrap(), behaviour, tests, reason }
}

/// Whether the text has a test function of this name.
fn has_test(text: &str, function: &str) -> bool {
    let head = format!("fn {function}(");
    let mut attributes = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if line.trim_start_matches("async ").starts_with(&head) {
            return attributes.iter().any(|attribute| attribute.contains("test"));
        } else {
            attributes.clear();
        }
    }
    false
}

#[test]
fn every_scenario_has_a_test_that_exists_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = include_str!("../scenarios.md");
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    let mut faults = Vec::new();
    let rows = rows(table);
    for Row { number, behaviour, tests, reason } in &rows {
        if behaviour.is_empty() {
            faults.push(format!("{number} says no behaviour"));
        }
        if tests.is_empty() && reason.is_empty() {
            faults.push(format!("{number} has neither a test nor a reason"));
        }
        for &(file, function) in tests {
            let text = files.entry(file).or_insert_with(|| fs::read_to_string(root.join(file)).unwrap_or_default());
            if !has_test(text, function) {
                faults.push(format!("{number}: {file} has no test {function}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let numbers: Vec<u32> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, KNOWN);
}

#[test]
fn a_function_that_is_no_test_is_not_taken_for_one() {
    let text = "#[test]\nfn a() {}\n\nfn b() {}\n\n    #[tokio::test(start_paused = true)]\n    async fn c() {}\n// fn d() {}\n";
    let found = ["a", "b", "c", "d", "e"].map(|name| has_test(text, name));
    assert_eq!(found, [true, false, true, false, false]);
}
