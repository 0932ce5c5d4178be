//! Any bytes as a policy on the wire.

use fusebox_policy::Policy;
use fusebox_proto::v1;
use prost::Message as _;

use crate::manifest::reads_back;

/// What converts to a policy survives the way back to the wire, and through the manifest; what does not says why.
///
/// # Panics
/// Where that does not hold.
pub fn run(bytes: &[u8]) {
    let Ok(message) = v1::Policy::decode(bytes) else {
        return;
    };
    let policy = match Policy::try_from(message) {
        Ok(policy) => policy,
        Err(invalid) => {
            assert!(!invalid.violations().is_empty(), "an error says what is wrong");
            assert!(!invalid.to_string().is_empty());
            return;
        }
    };
    comes_back(&policy);
    reads_back(&policy);
}

/// A policy is the same at the other end of the wire.
///
/// # Panics
/// If it is not.
pub fn comes_back(policy: &Policy) {
    let bytes = v1::Policy::from(policy).encode_to_vec();
    let again = v1::Policy::decode(bytes.as_slice()).expect("what is encoded can be decoded");
    assert_eq!(Policy::try_from(again).as_ref(), Ok(policy), "the wire loses nothing");
}
