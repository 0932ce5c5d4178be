//! That the tests which the pages name exist.

use std::{fs, path::Path};

#[test]
fn the_page_of_features_names_tests_that_exist() {
    let page = include_str!("../docs/features.md");
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let mut file = String::new();
        // What stands between backticks: a file, then its tests.
        for word in row.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(word);
                file = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            } else if !file.is_empty() {
                assert!(file.contains(&format!("fn {word}(")), "there is no test {word}, in {row}");
                named += 1;
            }
        }
    }
    assert!(named > 10, "{named}: the table is not where it was");
}
