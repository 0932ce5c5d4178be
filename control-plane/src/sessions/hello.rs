//! The first message: who calls, checked.

use fusebox_policy::{
    CallerName, InstanceId, Namespace, Zone,
    fleet::{
        evidence::MemberId,
        term::{RunId, SeenTerm},
    },
    invalid::Faults,
};
use fusebox_proto::sync::v1 as sync;
use tonic::Status;

use crate::{fleet::Identity, grpc::status};

/// The protocol that this server speaks.
const PROTOCOL: u32 = 1;
/// Labels of one replica.
const MOST_LABELS: usize = 32;
/// Longest label, key or value.
const LONGEST_LABEL: usize = 256;

/// Checks a Hello.
///
/// # Errors
/// Every bad field; or a protocol that this server does not speak.
pub fn parse(hello: &sync::Hello) -> Result<Identity, Status> {
    let sync::Hello {
        protocol,
        namespace,
        service,
        instance,
        incarnation,
        zone,
        labels,
        sdk_version,
        store_id: _,
        policy_revision: _,
        highest_term,
        policy_source,
        ignores_fleet,
        highest_term_run,
        capabilities,
    } = hello;
    if *protocol != PROTOCOL {
        let reason = format!("this server speaks protocol {PROTOCOL}, not {protocol}");
        return Err(status::refused(status::Reason::ProtocolUnsupported, &reason));
    }
    let mut faults = Faults::new();
    let namespace = faults.take("hello.namespace", Namespace::try_new(namespace));
    let caller = faults.take("hello.service", CallerName::try_new(service));
    let instance = faults.take("hello.instance", InstanceId::try_new(instance));
    faults.check(*incarnation != 0, "hello.incarnation", "must not be 0");
    let zone = if zone.is_empty() { None } else { faults.take("hello.zone", Zone::try_new(zone)) };
    let short = |text: &String| text.len() <= LONGEST_LABEL;
    faults.check(
        labels.len() <= MOST_LABELS && labels.iter().all(|(key, value)| short(key) && short(value)),
        "hello.labels",
        format!("must be at most {MOST_LABELS}, of at most {LONGEST_LABEL} bytes each"),
    );
    let identity = namespace.zip(caller).zip(instance).map(|((namespace, caller), instance)| Identity {
        namespace,
        caller,
        member: MemberId { instance, incarnation: *incarnation },
        zone,
        labels: labels.clone(),
        sdk_version: sdk_version.chars().take(LONGEST_LABEL).collect(),
        policy_source: policy_source.chars().take(LONGEST_LABEL).collect(),
        seen: SeenTerm { term: *highest_term, run: RunId::new(*highest_term_run) },
        ignores_fleet: *ignores_fleet,
        knows_disabled: capabilities.contains(&sync::Capability::DisabledOverrides.into()),
    });
    faults.into_result(identity).map_err(|invalid| status::invalid_request(&invalid))
}
