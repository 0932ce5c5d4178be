//! Times as people and scripts read them: short spans in tables, RFC 3339 and milliseconds in data.

use std::time::{Duration, SystemTime};

use serde_json::Value;

/// A span in at most two units: `850ms`, `12s`, `4m30s`, `3h`, `2d`.
pub(crate) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |big: u64, big_unit: char, small: u64, small_unit: char| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => two(seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => two(seconds / 86_400, 'd', seconds % 86_400 / 3600, 'h'),
    }
}

/// A wire span; negative ones, which the protocol does not have, are zero.
pub(crate) fn wire(span: &prost_types::Duration) -> Duration {
    Duration::try_from(*span).unwrap_or(Duration::ZERO)
}

/// A wire span for a table; `-` if absent.
pub(crate) fn cell(span: Option<&prost_types::Duration>) -> String {
    span.map_or_else(|| "-".to_owned(), |span| short(wire(span)))
}

/// A wire span in milliseconds; null if absent.
pub(crate) fn millis(span: Option<&prost_types::Duration>) -> Value {
    span.map_or(Value::Null, |span| u64::try_from(wire(span).as_millis()).unwrap_or(u64::MAX).into())
}

/// A point in time; none if absent or out of range.
pub(crate) fn point(time: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(*time?).ok()
}

/// A point in time as RFC 3339; null if absent.
pub(crate) fn stamp(time: Option<&prost_types::Timestamp>) -> Value {
    point(time).map_or(Value::Null, |time| humantime::format_rfc3339_millis(time).to_string().into())
}

/// How long ago it was, for a table; `-` if absent.
pub(crate) fn ago(time: Option<&prost_types::Timestamp>) -> String {
    point(time).map_or_else(
        || "-".to_owned(),
        // A server's clock that is ahead shows as "now", not as an error.
        |time| short(SystemTime::now().duration_since(time).unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        let told = |seconds| short(Duration::from_secs(seconds));
        assert_eq!(short(Duration::from_millis(850)), "850ms");
        assert_eq!([told(59), told(60), told(90)], ["59s", "1m", "1m30s"]);
        assert_eq!([told(3600), told(3720), told(90_000)], ["1h", "1h2m", "1d1h"]);
    }

    #[test]
    fn an_absent_time_is_null_and_a_dash() {
        assert_eq!((millis(None), stamp(None), ago(None)), (Value::Null, Value::Null, "-".to_owned()));
        let time = prost_types::Timestamp { seconds: 0, nanos: 500_000_000 };
        assert_eq!(stamp(Some(&time)), "1970-01-01T00:00:00.500Z");
    }
}
