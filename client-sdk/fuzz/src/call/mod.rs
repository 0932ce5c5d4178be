//! Any bytes as a pipeline and what happens to calls that go through it.
//!
//! Two bytes, little-endian, say how long the definition is that follows, as `fusebox.v1.PolicySpec`; the rest decides what happens.
//! [`input`] puts the two together.

mod running;
mod script;
mod world;

use fusebox_policy::{
    pipeline::{Call, worst_case_attempts},
    policy::Definition,
};
use fusebox_proto::v1;
use prost::Message as _;

use self::running::{Running, Went};
pub(crate) use self::{script::Script, world::World};
use crate::protobuf;

/// Most calls at the same time: enough to fill a bulkhead and to wait at it.
const MAX_CALLS: usize = 6;

/// Most steps of one call that may take as many attempts as it likes.
const MAX_STEPS: u64 = 5000;

/// A definition and a script as the bytes of this target.
#[must_use]
pub fn input(spec: &v1::PolicySpec, script: &[u8]) -> Vec<u8> {
    join(&spec.encode_to_vec(), script)
}

fn join(spec: &[u8], script: &[u8]) -> Vec<u8> {
    let length = u16::try_from(spec.len()).unwrap_or(u16::MAX);
    [&length.to_le_bytes(), spec, script].concat()
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

/// The same calls in a changed pipeline.
#[must_use]
pub fn change(bytes: &[u8], seed: u64) -> Vec<u8> {
    let Some((spec, script)) = split(bytes) else { return bytes.to_vec() };
    join(&protobuf::change(spec, seed), script)
}

/// Whatever happens, calls end, make no more attempts than their pipeline allows, and give back what they hold.
///
/// # Panics
/// Where that does not hold.
pub fn run(bytes: &[u8]) {
    let Some((definition, script)) = parts(bytes) else {
        return;
    };
    let pipeline = &definition.pipeline;
    let script = Script::new(script);
    let world = World::new(pipeline, &script);
    // Between two attempts of a call it passes each of its stages a few times at most.
    let limit = worst_case_attempts(pipeline);
    let most_steps = limit.map_or(u64::MAX, |limit| limit.saturating_add(1).saturating_mul(128));
    let mut calls: Vec<Running> = Vec::new();
    let mut begun = 0;
    let bounded = |attempts: u64| assert!(limit.is_none_or(|limit| attempts <= limit), "{attempts} of {limit:?}");
    let step = |calls: &mut Vec<Running>, index: usize| {
        let call = &mut calls[index];
        let went = call.advance(&world);
        assert!(call.steps <= most_steps, "a call does not end: {call:?}");
        if let Went::Out(_) = went {
            bounded(calls.swap_remove(index).attempts);
        } else if call.steps > MAX_STEPS {
            bounded(calls.swap_remove(index).cancel(&world));
        }
        !matches!(went, Went::Nowhere)
    };
    while !script.is_over() {
        match script.next() % 8 {
            0 | 1 if calls.len() < MAX_CALLS => {
                begun += 1;
                calls.push(Running::start(Call::new(script.rules()), &world));
            }
            2 if !calls.is_empty() => {
                let index = script.index(calls.len());
                bounded(calls.swap_remove(index).cancel(&world));
            }
            3 => world.pass_until(world.now().plus(script.span())),
            _ if !calls.is_empty() => {
                let index = script.index(calls.len());
                step(&mut calls, index);
            }
            _ => {}
        }
    }
    // From here on all goes well: whoever waits is waited for.
    while !calls.is_empty() {
        let went = (0..calls.len()).any(|index| step(&mut calls, index));
        assert!(went, "all calls wait for each other: {calls:?}");
    }
    assert_eq!(world.ended.get(), begun, "each call tells of its end once");
    world.is_whole();
}

/// The definition and the script, if there is a valid one.
#[must_use]
pub fn parts(bytes: &[u8]) -> Option<(Definition, &[u8])> {
    let (spec, script) = split(bytes)?;
    let definition = Definition::try_from(v1::PolicySpec::decode(spec).ok()?).ok()?;
    Some((definition, script))
}
