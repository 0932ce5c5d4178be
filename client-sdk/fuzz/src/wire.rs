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
    let again = v1::Policy::from(&policy).encode_to_vec();
    let again = v1::Policy::decode(again.as_slice()).map(Policy::try_from);
    assert_eq!(again, Ok(Ok(policy.clone())), "the wire loses nothing");
    reads_back(&policy);
}
