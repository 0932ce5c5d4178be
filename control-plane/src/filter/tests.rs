//! What filters admit, and what is wrong with those that can't be read.

use std::collections::BTreeMap;

use fusebox_proto::v1;

use super::{Fields, Filter};

fn breaker(caller: &str, state: v1::FleetState) -> v1::Breaker {
    let key = v1::BreakerKey { caller: caller.to_owned(), target: "service-b".to_owned(), ..v1::BreakerKey::default() };
    let since = Some(prost_types::Duration { seconds: 90, nanos: 0 });
    v1::Breaker { key: Some(key), fleet_state: state.into(), since, ..v1::Breaker::default() }
}

fn replica() -> v1::Instance {
    let labels = BTreeMap::from([("team".to_owned(), "payments".to_owned()), ("tier".to_owned(), "1".to_owned())]);
    v1::Instance {
        service: "service-a".to_owned(),
        instance: "a-1".to_owned(),
        zone: "eu-1".to_owned(),
        labels,
        applied_revision: 41,
        wanted_revision: 43,
        rejected: vec![v1::RejectedPolicy { policy: "service-b".to_owned(), ..v1::RejectedPolicy::default() }],
        ..v1::Instance::default()
    }
}

#[track_caller]
fn admits<T: Fields>(text: &str, thing: &T) -> bool {
    Filter::parse::<T>(text).unwrap_or_else(|error| panic!("{text}: {error}")).admits(thing)
}

#[track_caller]
fn error(text: &str) -> (usize, String) {
    let error = Filter::parse::<v1::Breaker>(text).map(|_| ()).unwrap_err();
    (error.position, error.reason)
}

#[test]
fn conditions_compare_what_the_field_is() {
    let open = breaker("service-a", v1::FleetState::Open);
    for text in [
        "",
        "  ",
        "service = \"service-a\" AND state = OPEN",
        "state = open",
        "caller = 'service-a'",
        "caller = service-*",
        "caller = *-a",
        "caller=*vice*",
        "state != HALF_OPEN",
        "since > 1m",
        "since <= 90s",
        "overridden = false",
        "instances = 0",
        "zone != eu-1",
    ] {
        assert!(admits(text, &open), "{text}");
    }
    for text in ["state = half-open", "caller = service", "caller = *-b", "since > 90s", "overridden = true", "zone:*"]
    {
        assert!(!admits(text, &open), "{text}");
    }
}

#[test]
fn labels_lists_and_flags_have_their_own_words() {
    let replica = replica();
    for text in [
        "labels.team = payments",
        "labels.team = pay*",
        "labels:team",
        "labels.team:*",
        "labels.owner != x",
        "NOT labels:owner",
        "rejected:service-b",
        "rejected:*",
        "behind = true",
        "applied_revision < 42 AND wanted_revision >= 43",
    ] {
        assert!(admits(text, &replica), "{text}");
    }
    for text in [
        "labels.team = x",
        "labels.owner = x",
        "labels:owner",
        "rejected:other",
        "rejected != service-b",
        "behind = false",
    ] {
        assert!(!admits(text, &replica), "{text}");
    }
}

#[test]
fn or_binds_closer_than_and() {
    let open = breaker("a", v1::FleetState::Open);
    assert!(!admits("caller = x AND state = OPEN OR state = RAMP", &open));
    assert!(admits("caller = a AND state = OPEN OR state = RAMP", &open));
    assert!(admits("(caller = x AND state = RAMP) OR state = OPEN", &open));
    assert!(!admits("NOT (caller = a OR caller = b)", &open));
    assert!(admits("NOT NOT caller = a", &open));
}

#[test]
fn an_error_tells_its_place_and_what_to_write() {
    for (text, position, reason) in [
        ("servce = a", 1, "there is no field servce: did you mean service?"),
        ("caller = a and state = OPEN", 12, "write AND in capitals"),
        ("caller = a state = OPEN", 12, "two conditions are joined by AND or OR"),
        ("state = BROKEN", 9, "\"BROKEN\" is not one of RELEASED"),
        ("since > soon", 9, "\"soon\" is not a time like 90s or 5m"),
        ("overridden = yes", 14, "\"yes\" is not true or false"),
        ("instances = many", 13, "\"many\" is not a number"),
        ("instances = NaN", 13, "\"NaN\" is not a number"),
        ("caller > a", 8, "caller has no order"),
        ("caller = \"a", 10, "this quote is not closed"),
        ("(caller = a", 1, "this parenthesis is not closed"),
        ("caller = a)", 11, "this parenthesis closes nothing"),
        ("caller = a*b", 10, "\"*\" stands for any text at the beginning or the end only"),
        ("caller", 7, "caller is compared with one of"),
        ("caller =", 9, "caller = must be followed by a value"),
        ("= a", 1, "a condition begins with the name of a field"),
        ("AND caller = a", 1, "there is no field AND"),
        ("caller = a # b", 12, "'#' has no meaning here"),
        ("NOT", 4, "a condition begins with the name of a field"),
    ] {
        let (at, why) = error(text);
        assert!(at == position && why.contains(reason), "{text}: at {at}: {why}");
    }
    let no_key = Filter::parse::<v1::Instance>("labels = x").map(|_| ()).unwrap_err();
    assert!(no_key.reason.contains("labels.KEY"), "{no_key}");
}

#[test]
fn a_filter_that_is_meant_to_hurt_is_refused() {
    assert!(error(&format!("{}caller = a{}", "(".repeat(900), ")".repeat(900))).1.contains("32 deep"));
    assert!(error(&format!("{}caller = a", "NOT ".repeat(450))).1.contains("32 deep"));
    assert!(error(&"x".repeat(2001)).1.contains("at most 2000 bytes"));
    // Many conditions side by side are no nesting.
    let wide = vec!["zone != x"; 100].join(" AND ");
    assert!(admits(&wide, &breaker("a", v1::FleetState::Open)));
}

#[test]
fn every_field_that_may_be_named_has_a_value_or_is_known_to_have_none() {
    fn check<T: Fields>(thing: &T, without: &[&str]) {
        for field in T::FIELDS {
            assert_eq!(thing.value(field.name).is_none(), without.contains(&field.name), "{}", field.name);
        }
    }
    let spec = v1::PolicySpec { r#match: Some(v1::Selector::default()), ..v1::PolicySpec::default() };
    check(&v1::Policy { spec: Some(spec), ..v1::Policy::default() }, &["create_time", "update_time"]);
    check(&v1::PolicyRevision::default(), &["create_time"]);
    check(&replica(), &["connected_for", "last_seen"]);
    check(&v1::Service::default(), &[]);
    check(&breaker("a", v1::FleetState::Open), &[]);
    let key = || Some(v1::BreakerKey::default());
    check(&v1::Override { selector: key(), ..v1::Override::default() }, &["remaining", "create_time"]);
    check(&v1::BreakerTransition { key: key(), ..v1::BreakerTransition::default() }, &["time"]);
    check(&v1::Rollout::default(), &["create_time", "update_time"]);
    check(&v1::Token::default(), &["create_time", "expire_time"]);
    check(&v1::AuditEvent::default(), &["time"]);
}

#[test]
fn the_documentation_names_the_fields() {
    const TEXT: &str = include_str!("../../docs/filters.md");
    fn check<T: Fields>(of: &str) {
        let names = T::FIELDS.iter().map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(" ");
        let row = format!("| {of} | {names} |");
        assert!(TEXT.contains(&row), "docs/filters.md lacks: {row}");
    }
    check::<v1::Policy>("policies");
    check::<v1::PolicyRevision>("revisions of a policy");
    check::<v1::Instance>("instances");
    check::<v1::Service>("services");
    check::<v1::Breaker>("breakers");
    check::<v1::Override>("overrides");
    check::<v1::BreakerTransition>("transitions");
    check::<v1::Rollout>("rollouts");
    check::<v1::Token>("tokens");
    check::<v1::AuditEvent>("audit events");
}

#[test]
fn what_grows_by_itself_can_be_listed_by_and_not_watched() {
    let watch = |text: &str| Filter::parse_watch::<v1::Instance>(text, &["connected_for"]).map(|_| ());
    assert!(Filter::parse::<v1::Instance>("connected_for > 5m").is_ok());
    assert!(watch("zone = eu-1").is_ok() && watch("").is_ok());
    let error = watch("zone = eu-1 AND connected_for > 5m").unwrap_err();
    assert_eq!(error.position, 17);
    assert!(error.reason.starts_with("connected_for grows by itself"), "{error}");
}
