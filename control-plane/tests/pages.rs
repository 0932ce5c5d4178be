//! That the tests which the pages name exist, and what the pages say of the code's own texts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use fusebox_control_plane::{grpc::status::Reason, store::audit::AuditAction};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn the_page_of_security_names_tests_that_exist_and_every_threat() {
    let page = include_str!("../docs/security.md");
    let mut named = 0;
    for threat in 1..=20 {
        let begin = format!("| T{threat} |");
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with(&begin)).collect();
        let [row] = rows.as_slice() else { panic!("T{threat} has {} rows", rows.len()) };
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let (mut file, mut path, mut tests) = (String::new(), String::new(), 0);
        // What stands between backticks: a file, then its tests.
        for word in shown.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                path = word.to_owned();
                file = fs::read_to_string(root().join(word)).unwrap_or_else(|error| panic!("{word}: {error}"));
            } else {
                assert!(file.contains(&format!("fn {word}(")), "T{threat}: there is no test {word} in {path}");
                tests += 1;
            }
        }
        assert!(tests > 0, "T{threat} names no test");
        named += tests;
    }
    assert!(named > 40, "{named}: the table is not where it was");
}

#[test]
fn the_page_of_errors_has_a_row_for_each_reason_and_no_other() {
    let page = include_str!("../docs/errors.md");
    let rows: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(reason, rest)| (reason, rest.split(" | ").next().unwrap().replace('_', "").to_lowercase()))
        .collect();
    let code = |reason: &Reason| format!("{:?}", reason.code()).to_lowercase();
    let known: BTreeMap<_, _> = Reason::ALL.iter().map(|reason| (reason.name(), code(reason))).collect();
    assert_eq!(rows, known);
}

/// Words like `policy.create` between backticks.
fn actions(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let parts = |word: &str| word.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase()));
    words.filter(|word| word.matches('.').count() == 1 && parts(word)).collect()
}

#[test]
fn whatever_is_audited_is_said_where_people_and_programs_look() {
    let known: BTreeSet<_> = AuditAction::ALL.iter().map(|action| action.name()).collect();
    let proto = include_str!("../../proto/fusebox/v1/audit_service.proto");
    let (before, _) = proto.split_once("  string action = 7;").unwrap();
    assert_eq!(actions(before.rsplit_once("`noun.verb`").unwrap().1), known);
    let page = include_str!("../docs/operate.md");
    let rows = page.lines().skip_while(|line| !line.starts_with("| action |")).take_while(|line| line.starts_with('|'));
    let firsts: Vec<_> = rows.map(|line| line.split('|').nth(1).unwrap()).collect();
    assert_eq!(actions(&firsts.join("\n")), known);
}

/// Every source file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_sql_is_made_of_text_that_came_in() {
    let mut files = Vec::new();
    sources(&root().join("control-plane/src"), &mut files);
    assert!(files.len() > 50);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("AssertSqlSafe"), "{}", path.display());
    }
}

#[test]
fn there_is_one_library_of_cryptography_for_tls() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let has = |name: &str| lock.contains(&format!("name = \"{name}\"\n"));
    assert!(has("ring") && has("rustls"));
    assert!(!["aws-lc-rs", "aws-lc-sys", "openssl", "native-tls"].into_iter().any(has));
}
