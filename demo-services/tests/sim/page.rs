//! That the page on coordination says of this simulation, and of the other tests, what is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

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
    sources_but(folder, &[])
}

/// All sources of a folder, but for files of these names.
fn sources_but(folder: &str, without: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    if folder.ends_with(".rs") {
        return fs::read_to_string(root.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    }
    let mut folders = vec![root.join(folder)];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !without.iter().any(|name| path.ends_with(name))
            {
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
    let properties = sources_but("demo-services/tests/sim/properties", &["fails.rs"]);
    let ledger = sources("client-sdk/policy/src/fleet/history.rs");
    let real = sources("control-plane/tests")
        + &sources("client-sdk/tests")
        + &sources("demo-services/tests/fleet.rs")
        + &sources("demo-services/tests/faults");
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
        let named = |text: &str, ends: &[char]| ends.iter().any(|end| text.contains(&format!("Invariant::{id}{end}")));
        let judged = named(&properties, &[',', ' ', ';', '.']) || named(&ledger, &[')']);
        assert!(!every_run || judged, "{id} is not checked in every run");
        let simulated = exist(in_simulation, &simulation) + usize::from(every_run);
        assert!(simulated > 0, "{id} is not shown in the simulation");
        assert!(shown + simulated > 1, "{id} is checked in one place only");
    }
}

/// The ledger judges what it is told: all that there is.
#[test]
fn the_ledger_is_told_of_everything_that_it_judges_but_for_what_is_judged_beside_it() {
    let properties = sources_but("demo-services/tests/sim/properties", &["fails.rs"]);
    let ledger = sources("client-sdk/policy/src/fleet/history.rs");
    let (_, events) = ledger.split_once("pub enum Event<K, M> {").expect("the ledger's events");
    let (events, _) = events.split_once("\n}").expect("the end of them");
    let variants = events.lines().filter(|line| line.starts_with("    ") && line.ends_with(" {"));
    let untold: Vec<&str> = variants
        .map(|line| line.trim().trim_end_matches(" {"))
        .filter(|name| !properties.contains(&format!("Judged::{name} {{")))
        .collect();
    // S2 and S9, with the slack that looking from outside takes: `properties/obeyed.rs`.
    assert_eq!(untold, ["Affirmed", "Enforced"]);
}

/// The functions of these stories: name -> text. A helper's text counts for the stories that call it.
fn stories() -> BTreeMap<String, String> {
    let text = sources("demo-services/tests/sim/scenarios");
    let functions: Vec<(String, bool, String)> = text
        .split("\nfn ")
        .zip(text.split("\nfn ").skip(1))
        .map(|(before, own)| {
            let name = own.split(['(', '<']).next().expect("a name").to_owned();
            (name, before.ends_with("#[test]"), own.to_owned())
        })
        .collect();
    let helpers: Vec<_> = functions.iter().filter(|(_, test, _)| !test).collect();
    let whole = |own: &str| {
        let called = helpers.iter().filter(|(name, _, _)| own.contains(&format!("{name}(")));
        called.fold(own.to_owned(), |text, (_, _, helper)| text + helper)
    };
    functions.iter().filter(|(_, test, _)| *test).map(|(name, _, own)| (name.clone(), whole(own))).collect()
}

#[test]
fn the_page_names_each_story_that_is_not_judged_by_everything() {
    let mut expected = BTreeMap::new();
    for (name, text) in stories() {
        let says = |what: &str| text.contains(what);
        let mut without = Vec::new();
        if says("judged = false") {
            without.push("all");
        }
        if says("settles_within = None") {
            without.push("L1, L4");
        }
        if says("recorded = false") {
            without.push("S15 and L6 of rows about decisions");
        }
        if !without.is_empty() {
            expected.insert(format!("`{name}`"), without.join(", "));
        }
    }
    let rows = rows("These stories are not judged by everything:");
    let on_page: BTreeMap<String, String> = rows.iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    assert_eq!(on_page, expected);
}

/// What stands between `before` and the next quote, wherever that is.
fn quoted(text: &str, before: &str) -> BTreeSet<String> {
    let parts = text.split(before).skip(1).filter_map(|rest| rest.split('"').nth(1));
    parts.map(ToOwned::to_owned).collect()
}

#[test]
fn the_model_has_the_configurations_and_loses_the_guards_that_the_page_names() {
    let first = |rows: Vec<Vec<&str>>| -> BTreeSet<String> { rows.iter().map(|row| row[0].to_owned()).collect() };
    let rules = sources("client-sdk/policy/tests/model/rules.rs");
    assert_eq!(first(rows("### The model")), quoted(&rules, "name: "));
    let mutants = sources("client-sdk/policy/tests/model/mutation.rs");
    assert_eq!(first(rows("A check that can't fail proves nothing.")), quoted(&mutants, "mutant("));
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
fn every_trouble_is_shown_or_the_page_says_that_it_is_not() {
    let tests = sources("demo-services/tests") + &sources("control-plane/tests") + &sources("client-sdk/tests");
    for row in rows("### Troubles that coordination is known for") {
        let [trouble, shown, not_shown] = row[..] else { panic!("three columns: {row:?}") };
        assert!(exist(shown, &tests) > 0 || !not_shown.is_empty(), "nothing shows {trouble}");
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
