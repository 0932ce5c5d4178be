//! Circuit breakers: what each replica does and what the fleet has decided.

use fusebox_proto::v1::{Breaker, Evidence, FleetState, InstanceBreaker, LocalState};
use serde_json::{Value, json};

use super::{Row, or_dash, over};
use crate::cli::{failure::Failure, span};

impl Row for Breaker {
    const COLUMNS: &'static [&'static str] =
        &["TARGET", "CALLER", "POLICY", "ZONE", "FLEET", "LOCAL", "SINCE", "HALF-OPEN-IN", "REASON"];
    const WIDE: &'static [&'static str] =
        &["NAMESPACE", "STRATEGY", "MODE", "CALLS", "FAILURES", "VOTES", "PROBES", "VERDICT", "OVERRIDE"];

    fn cells(&self) -> Vec<String> {
        let key = self.key.clone().unwrap_or_default();
        vec![
            key.target,
            key.caller,
            key.policy,
            or_dash(&key.zone),
            fleet_words(self),
            locals(self),
            span::cell(self.since.as_ref()),
            span::cell(self.half_open_in.as_ref()),
            or_dash(&self.reason),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        let key = self.key.clone().unwrap_or_default();
        let evidence = self.evidence.clone().unwrap_or_default();
        let sum = |count: fn(&InstanceBreaker) -> u64| self.instances.iter().map(count).sum::<u64>().to_string();
        let word = self.r#override.as_ref().map(|word| {
            format!("{} for {}: {}", fleet_word(word.state), span::cell(word.remaining.as_ref()), word.reason)
        });
        vec![
            key.namespace,
            key.strategy,
            or_dash(&self.mode),
            sum(|one| one.window_calls),
            sum(|one| one.window_failures),
            format!("{}/{}", evidence.open_voters, evidence.eligible),
            format!("{}/{}", self.probes_succeeded, self.probes_issued),
            format!("{}.{}", self.term, self.rev),
            or_dash(&word.unwrap_or_default()),
        ]
    }

    fn id(&self) -> String {
        self.name.strip_prefix("breakers/").unwrap_or(&self.name).to_owned()
    }

    fn reference(&self) -> String {
        format!("breakers/{}", self.id())
    }

    fn value(&self) -> Result<Value, Failure> {
        Ok(value(self))
    }
}

/// The JSON form.
pub(crate) fn value(breaker: &Breaker) -> Value {
    let key = breaker.key.clone().unwrap_or_default();
    json!({
        "name": breaker.name,
        "namespace": key.namespace,
        "caller": key.caller,
        "policy": key.policy,
        "strategy": key.strategy,
        "target": key.target,
        "zone": key.zone,
        "mode": breaker.mode,
        "shadow": breaker.shadow,
        "fleet": fleet_word(breaker.fleet_state),
        "reason": breaker.reason,
        "since_ms": span::millis(breaker.since.as_ref()),
        "half_open_in_ms": span::millis(breaker.half_open_in.as_ref()),
        "probes_issued": breaker.probes_issued,
        "probes_succeeded": breaker.probes_succeeded,
        "term": breaker.term,
        "rev": breaker.rev,
        "evidence": evidence(&breaker.evidence.clone().unwrap_or_default()),
        "instances": breaker.instances.iter().map(instance).collect::<Vec<_>>(),
        "override": breaker.r#override.as_ref().map(over::value),
    })
}

/// The numbers behind a decision, in JSON.
pub(crate) fn evidence(evidence: &Evidence) -> Value {
    json!({
        "eligible": evidence.eligible,
        "open_voters": evidence.open_voters,
        "witnesses": evidence.witnesses,
        "pooled_calls": evidence.pooled_calls,
        "pooled_failures": evidence.pooled_failures,
        "contributors": evidence.contributors,
        "witness_instances": evidence.witness_instances,
        "insufficient_witnesses": evidence.insufficient_witnesses,
        "causes": evidence.causes,
    })
}

/// A replica's part, in JSON.
pub(crate) fn instance(one: &InstanceBreaker) -> Value {
    json!({
        "instance": one.instance,
        "zone": one.zone,
        "local": local_word(one.local_state),
        "calls": one.window_calls,
        "failures": one.window_failures,
        "rejected": one.rejected,
        "eligible": one.eligible,
        "acknowledged": one.acknowledged,
        "vetoed": one.vetoed,
        "disabled": one.disabled,
        "unsupported": one.unsupported,
        "mute": one.mute,
    })
}

/// The fleet's state, and whether it is only shown.
pub(crate) fn fleet_words(breaker: &Breaker) -> String {
    let word = fleet_word(breaker.fleet_state);
    if breaker.shadow { format!("{word} (shadow)") } else { word.to_owned() }
}

/// `2 open, 1 closed`, and how many of them do not obey the fleet, or stand still.
fn locals(breaker: &Breaker) -> String {
    let parts: Vec<_> = ["open", "half_open", "closed", "unknown"]
        .into_iter()
        .filter_map(|word| {
            let count = breaker.instances.iter().filter(|one| local_word(one.local_state) == word).count();
            (count > 0).then(|| format!("{count} {word}"))
        })
        .collect();
    let noted = |count: usize, word: &str| if count > 0 { format!(" ({count} {word})") } else { String::new() };
    let vetoed = noted(breaker.instances.iter().filter(|one| one.vetoed).count(), "vetoed");
    let disabled = noted(breaker.instances.iter().filter(|one| one.disabled).count(), "disabled");
    or_dash(&format!("{}{vetoed}{disabled}", parts.join(", ")))
}

/// A replica's own state in the word that every part of the system uses.
pub(crate) fn local_word(state: i32) -> &'static str {
    match LocalState::try_from(state) {
        Ok(LocalState::Closed) => "closed",
        Ok(LocalState::Open) => "open",
        Ok(LocalState::HalfOpen) => "half_open",
        Ok(LocalState::Unspecified) | Err(_) => "unknown",
    }
}

/// The fleet's state in the word that every part of the system uses.
pub(crate) fn fleet_word(state: i32) -> &'static str {
    match FleetState::try_from(state) {
        Ok(FleetState::Released) => "released",
        Ok(FleetState::Open) => "open",
        Ok(FleetState::HalfOpen) => "half_open",
        Ok(FleetState::Ramp) => "ramp",
        Ok(FleetState::ForcedOpen) => "forced_open",
        Ok(FleetState::ForcedClosed) => "forced_closed",
        Ok(FleetState::Disabled) => "disabled",
        Ok(FleetState::Unspecified) | Err(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use fusebox_proto::v1::BreakerKey;

    use super::*;
    use crate::cli::{
        output::{Format, OutputArgs},
        render,
    };

    fn breaker() -> Breaker {
        let key = BreakerKey {
            namespace: "default".to_owned(),
            caller: "service-a".to_owned(),
            policy: "service-b".to_owned(),
            strategy: "circuit-breaker".to_owned(),
            target: "service-b".to_owned(),
            zone: String::new(),
        };
        let replica = |name: &str, state: LocalState| InstanceBreaker {
            instance: name.to_owned(),
            local_state: state.into(),
            window_calls: 20,
            window_failures: 10,
            eligible: true,
            ..InstanceBreaker::default()
        };
        Breaker {
            name: "breakers/default/service-a/service-b/circuit-breaker/service-b/-".to_owned(),
            key: Some(key),
            fleet_state: FleetState::Open.into(),
            reason: "2 of 3 replicas open".to_owned(),
            instances: vec![
                replica("a-1", LocalState::Open),
                replica("a-2", LocalState::Open),
                replica("a-3", LocalState::Closed),
            ],
            half_open_in: Some(prost_types::Duration { seconds: 4, nanos: 500_000_000 }),
            since: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            term: 3,
            rev: 7,
            mode: "balanced".to_owned(),
            ..Breaker::default()
        }
    }

    #[test]
    fn the_table_says_what_fleet_and_replicas_do() {
        let text = render::many(&[breaker()], OutputArgs::default()).unwrap();
        assert_eq!(
            text,
            "TARGET     CALLER     POLICY     ZONE  FLEET  LOCAL             SINCE  HALF-OPEN-IN  REASON\n\
             service-b  service-a  service-b  -     open   2 open, 1 closed  1s     4s            2 of 3 replicas open"
        );
    }

    #[test]
    fn the_table_counts_the_replicas_that_do_not_obey() {
        let mut breaker = breaker();
        breaker.instances[2].vetoed = true;
        assert!(render::many(&[breaker], OutputArgs::default()).unwrap().contains("2 open, 1 closed (1 vetoed)"));
    }

    #[test]
    fn the_table_counts_the_replicas_whose_breaker_stands_still() {
        let mut breaker = breaker();
        breaker.instances[0].disabled = true;
        assert!(render::many(&[breaker], OutputArgs::default()).unwrap().contains("2 open, 1 closed (1 disabled)"));
    }

    #[test]
    fn the_table_says_which_states_are_only_shown() {
        let breaker = Breaker { shadow: true, ..breaker() };
        assert!(render::many(&[breaker], OutputArgs::default()).unwrap().contains("open (shadow)  2 open, 1 closed"));
    }

    #[test]
    fn the_json_list_has_the_keys_that_scripts_use() {
        let output = OutputArgs { format: Format::Json, ..OutputArgs::default() };
        let text = render::many(&[breaker()], output).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["nextPageToken"], "");
        let item = &list["items"][0];
        for (key, value) in [
            ("fleet", json!("open")),
            ("half_open_in_ms", json!(4500)),
            ("since_ms", json!(1000)),
            ("term", json!(3)),
            ("rev", json!(7)),
            ("override", Value::Null),
            ("target", json!("service-b")),
        ] {
            assert_eq!(item[key], value, "{key}");
        }
        assert_eq!(
            item["instances"][0],
            json!({
                "instance": "a-1", "zone": "", "local": "open", "calls": 20, "failures": 10, "rejected": 0,
                "eligible": true, "acknowledged": false, "vetoed": false, "disabled": false, "unsupported": false,
                "mute": "",
            })
        );
    }

    #[test]
    fn names_can_be_given_back_as_arguments() {
        let quiet = OutputArgs { quiet: true, ..OutputArgs::default() };
        let name = render::many(&[breaker()], quiet).unwrap();
        assert_eq!(name, "default/service-a/service-b/circuit-breaker/service-b/-");
        let typed = OutputArgs { format: Format::Name, ..OutputArgs::default() };
        assert_eq!(render::many(&[breaker()], typed).unwrap(), format!("breakers/{name}"));
    }

    #[test]
    fn an_empty_table_is_no_text_and_an_empty_list_is_still_a_list() {
        assert_eq!(render::many::<Breaker>(&[], OutputArgs::default()).unwrap(), "");
        let output = OutputArgs { format: Format::Json, ..OutputArgs::default() };
        let list: Value = serde_json::from_str(&render::many::<Breaker>(&[], output).unwrap()).unwrap();
        assert_eq!(list, json!({ "items": [], "nextPageToken": "" }));
    }
}
