//! `google.protobuf.Duration` <-> [`Duration`].

use std::time::Duration;

use fusebox_policy::Invalid;

/// Reads a wire duration.
///
/// # Errors
/// Negative and malformed ones, with an empty path.
pub fn from_wire(wire: prost_types::Duration) -> Result<Duration, Invalid> {
    let prost_types::Duration { seconds, nanos } = wire;
    let wrong = || Invalid::new("", format!("must not be negative, is {seconds}s {nanos}ns"));
    let seconds = u64::try_from(seconds).map_err(|_| wrong())?;
    let nanos = u32::try_from(nanos).map_err(|_| wrong())?;
    if nanos >= 1_000_000_000 {
        return Err(Invalid::new("", format!("must have fewer than a thousand million nanoseconds, has {nanos}")));
    }
    Ok(Duration::new(seconds, nanos))
}

/// Writes a duration; what the wire can't hold is its greatest.
#[must_use]
pub fn to_wire(duration: Duration) -> prost_types::Duration {
    /// The greatest of the protobuf specification: about ten thousand years.
    const MAX_SECONDS: u64 = 315_576_000_000;
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
