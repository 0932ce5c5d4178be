//! That the page on coordination says of this simulation, and of the other tests, what is so.

use std::{collections::BTreeSet, fs, path::Path};

use fusebox_policy::fleet::invariants::Invariant;

const PAGE: &str = include_str!("../../../control-plane/docs/coordination.md");
const ROLLOUTS: &str = include_str!("../../../control-plane/docs/rollout.md");

/// The cells of the rows of the table under a heading.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    rows_of(PAGE, heading)
}

fn rows_of(page: &'static str, heading: &str) -> Vec<Vec<&'static str>> {
    let (_, below) = page.split_once(heading).unwrap_or_else(|| panic!("the page has no {heading}"));
    let lines = below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn sources(folder: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut folders = vec![root.join(folder)];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    text
}

/// Each test between backticks is there.
fn exist(cell: &str, sources: &str) -> usize {
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    for name in &named {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
    }
    named.len()
}

#[test]
fn every_invariant_is_checked_where_the_page_says_so() {
    let cases = sources("client-sdk/policy/tests/cases");
    let simulation = sources("demo-services/tests/sim");
    let properties = sources("demo-services/tests/sim/properties");
    let real = sources("control-plane/tests")
        + &sources("client-sdk/tests")
        + &fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet.rs")).expect("a source");
    let rows = rows("### Where each invariant is checked");
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let all: Vec<&str> = Invariant::ALL.iter().map(|own| own.id()).collect();
    assert_eq!(ids, all, "one row for each, in order");
    for row in rows {
        let [id, model, by_cases, in_simulation, on_real] = row[..] else { panic!("five columns: {row:?}") };
        assert!(["holds", "reached", ""].contains(&model), "{id}: {model}");
        let mut shown = usize::from(!model.is_empty());
        shown += exist(by_cases, &cases) + exist(on_real, &real);
        let every_run = in_simulation.contains("every run");
        // What the ledger of the core judges has no name there.
        let named = [',', ' ', ';'].iter().any(|end| properties.contains(&format!("Invariant::{id}{end}")));
        let judged = named || id.starts_with('S');
        assert!(!every_run || judged, "{id} is not checked in every run");
        let simulated = exist(in_simulation, &simulation) + usize::from(every_run);
        assert!(simulated > 0, "{id} is not shown in the simulation");
        assert!(shown + simulated > 1, "{id} is checked in one place only");
    }
}

#[test]
fn every_row_of_the_failure_matrix_is_a_story() {
    let stories = sources("demo-services/tests/sim/scenarios");
    let rows = rows("### The failure matrix");
    let mut told = BTreeSet::new();
    for row in &rows {
        let [event, _, story] = row[..] else { panic!("three columns: {row:?}") };
        assert!(exist(story, &stories) > 0 || story == "one server", "no story tells of {event}");
        told.extend(story.split('`').skip(1).step_by(2));
    }
    let matrix = include_str!("scenarios/matrix.rs");
    for name in matrix.split("fn ").skip(1).filter_map(|text| text.split_once("()")).map(|(name, _)| name) {
        assert!(told.contains(name) || name.contains(' '), "{name} is in no row");
    }
}

#[test]
fn rollouts_are_shown_and_judged_as_their_page_says() {
    let matrix = sources("demo-services/tests/sim/scenarios/rollouts");
    let told: Vec<&str> = rows_of(ROLLOUTS, "Each trouble has a story of its own:")
        .iter()
        .flat_map(|row| row[1].split('`').skip(1).step_by(2))
        .collect();
    for name in &told {
        assert!(matrix.contains(&format!("fn {name}(")), "there is no story {name}");
    }
    assert_eq!(matrix.matches("#[test]").count(), told.len(), "each story has its row");
    let (rules, said) = (rows_of(ROLLOUTS, "every message on the wire"), crate::properties::rules_of_rollouts());
    let on_page: Vec<String> = rules.iter().map(|row| format!("{}: {}.", row[0], row[1])).collect();
    assert_eq!(on_page, said);
}
