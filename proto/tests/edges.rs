//! At the edges of texts, times and durations: what is taken comes back unchanged, what can't be is refused at its place.

use fusebox_policy::Policy;
use fusebox_proto::{duration, manifest, v1};

const HEAD: &str =
    "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  match: { target: b }\n  pipeline:\n";

fn parse(text: &str) -> Policy {
    let mut documents = manifest::parse("test.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    documents.remove(0).policy
}

/// Each fault as `line:column path: reason`.
fn faults(text: &str) -> Vec<String> {
    match manifest::parse("test.yaml", text) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .faults
            .iter()
            .map(|fault| format!("{}:{} {}: {}", fault.line, fault.column, fault.path, fault.reason))
            .collect(),
    }
}

/// A policy of one element, changed on the wire.
fn on_the_wire(element: &str, change: impl FnOnce(&mut v1::strategy::Kind)) -> Result<Policy, String> {
    let mut wire = v1::Policy::from(&parse(&format!("{HEAD}    - {element}\n")));
    let elements = wire.spec.iter_mut().flat_map(|spec| &mut spec.pipeline);
    change(elements.filter_map(|element| element.kind.as_mut()).next().expect("it has one element"));
    Policy::try_from(wire).map_err(|invalid| invalid.to_string())
}

#[test]
fn the_canonical_form_escapes_what_yaml_does_not_print() {
    for odd in ["\u{0}", "\u{7f}", "\u{80}", "\u{85}", "\u{2028}", "\u{feff}", "\u{fffe}", "\u{ffff}", "\u{1f600}"] {
        let escaped: String = odd.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect();
        let policy = parse(&format!("{HEAD}    - fallback: {{ error: \"a{escaped}b\" }}\n"));
        let text = manifest::to_yaml(&policy);
        assert_eq!(parse(&text), policy, "{text}");
    }
}

#[test]
fn chaos_ends_before_the_year_ten_thousand() {
    let until = |seconds: i64| {
        on_the_wire("chaos: { percent: 5, latency: 1s, until: 2030-01-01T00:00:00Z }", |kind| {
            let v1::strategy::Kind::Chaos(chaos) = kind else { panic!("{kind:?}") };
            chaos.until = Some(prost_types::Timestamp { seconds, nanos: 0 });
        })
    };
    let last = until(253_402_300_799).unwrap();
    assert_eq!(parse(&manifest::to_yaml(&last)), last);
    for beyond in [253_402_300_800, i64::MAX] {
        assert_eq!(
            until(beyond).unwrap_err(),
            "spec.pipeline[0].chaos.until: must be before the year 10000: no date says it"
        );
    }
}

#[test]
fn a_duration_is_no_longer_than_the_wire_can_say() {
    let timeout = |seconds: i64, nanos: i32| {
        on_the_wire("timeout: 1s", |kind| {
            let v1::strategy::Kind::Timeout(timeout) = kind else { panic!("{kind:?}") };
            timeout.duration = Some(prost_types::Duration { seconds, nanos });
        })
    };
    let longest = timeout(315_576_000_000, 999_999_999).unwrap();
    assert_eq!(Policy::try_from(v1::Policy::from(&longest)), Ok(longest.clone()));
    assert_eq!(parse(&manifest::to_yaml(&longest)), longest);
    assert_eq!(
        timeout(315_576_000_001, 0).unwrap_err(),
        "spec.pipeline[0].timeout.duration: must be at most 315576000000s, is 315576000001s"
    );
    assert_eq!(duration::from_wire(duration::to_wire(std::time::Duration::MAX)).unwrap().as_secs(), 315_576_000_000);
}

#[test]
fn a_manifest_s_duration_is_not_cut_in_silence() {
    assert_eq!(
        faults(&format!("{HEAD}    - timeout: 315576000001s\n")),
        ["7:16 spec.pipeline[0].timeout: must be at most 315576000000s, is 315576000001s"]
    );
}

#[test]
fn a_bad_label_is_named_at_its_place() {
    let text = format!("{HEAD}    - timeout: 1s\n").replace("{ name: p }", "{ name: p, labels: { team: \"a b\" } }");
    assert_eq!(
        faults(&text),
        ["3:38 metadata.labels.team: must be at most 63 letters, digits and - _ . / in key and value"]
    );
}

#[test]
fn the_line_of_a_fault_is_shown_where_carriage_returns_end_lines() {
    let text = format!("{HEAD}    - timeout: 5\n").replace('\n', "\r");
    let shown = manifest::parse("test.yaml", &text).unwrap_err().to_string();
    assert!(shown.contains("test.yaml:7:16: "), "{shown}");
    assert!(shown.contains("    7 |     - timeout: 5\n"), "{shown}");
}
