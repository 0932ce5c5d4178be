//! `google.protobuf.Duration` <-> [`Duration`].

use std::time::Duration;

use fusebox_policy::Invalid;

/// The greatest number of seconds of the protobuf specification: about ten thousand years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// Reads a wire duration.
///
/// # Errors
/// Negative and malformed ones and those beyond the specification's range, with an empty path.
pub fn from_wire(wire: prost_types::Duration) -> Result<Duration, Invalid> {
    let prost_types::Duration { seconds, nanos } = wire;
    let wrong = || Invalid::new("", format!("must not be negative, is {seconds}s {nanos}ns"));
    let seconds = u64::try_from(seconds).map_err(|_| wrong())?;
    let nanos = u32::try_from(nanos).map_err(|_| wrong())?;
    if nanos >= 1_000_000_000 {
        return Err(Invalid::new("", format!("must have fewer than a thousand million nanoseconds, has {nanos}")));
    }
    let duration = Duration::new(seconds, nanos);
    if is_too_long(duration) { Err(Invalid::new("", too_long(duration))) } else { Ok(duration) }
}

/// Whether the wire can't hold it.
pub(crate) const fn is_too_long(duration: Duration) -> bool {
    duration.as_secs() > MAX_SECONDS
}

/// What is wrong with a duration that the wire can't hold.
pub(crate) fn too_long(duration: Duration) -> String {
    format!("must be at most {MAX_SECONDS}s, is {}s", duration.as_secs())
}

/// Writes a duration; what the wire can't hold is its greatest.
#[must_use]
pub fn to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs().min(MAX_SECONDS)).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Reads an optional duration of a message into a place, noting its faults.
pub(crate) fn optional(
    faults: &mut fusebox_policy::invalid::Faults,
    field: &str,
    wire: Option<prost_types::Duration>,
) -> Option<Duration> {
    faults.take(field, wire.map(from_wire).transpose()).flatten()
}
