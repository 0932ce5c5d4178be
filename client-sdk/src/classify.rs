//! What HTTP answers mean to the rules of a policy.
//!
//! The only reader of the wall clock beside the cache: an HTTP date in `Retry-After` is a point in it.

use std::time::{Duration, SystemTime};

use fusebox_policy::outcome::{Facts, GrpcCode, Outcome, Response, RetryHint};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// The outcome of a response head.
pub(crate) fn response(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let grpc = headers
        .get("grpc-status")
        .and_then(|code| code.to_str().ok())
        .and_then(|code| code.parse().ok())
        .map(GrpcCode::from_number);
    Outcome::Response(Response { status: Some(status.as_u16()), grpc })
}

/// Facts of a response head.
#[derive(Debug)]
pub(crate) struct Head<'a>(pub(crate) &'a HeaderMap);

impl Facts for Head<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn retry_hint(&self) -> RetryHint {
        if let Some(pushback) = self.header("grpc-retry-pushback-ms") {
            // The specification: what is negative or no number means "do not retry".
            let ms = Some(pushback.trim()).filter(|text| is_digits(text)).and_then(|digits| digits.parse().ok());
            return ms.map_or(RetryHint::Never, |ms| RetryHint::After(Duration::from_millis(ms)));
        }
        self.header(RETRY_AFTER.as_str())
            .and_then(|text| retry_after(text, SystemTime::now()))
            .map_or(RetryHint::None, RetryHint::After)
    }
}

/// `Retry-After` in either form. A date in the past means now; what is neither says nothing.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if is_digits(text) {
        // More digits than a u64 holds is a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Whether it is a number as headers write one: Rust's own parser takes a plus too.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let at = |offset: i64| {
            httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs((1_000_000_000 + offset) as u64))
        };
        let table = [
            ("120", Some(120)),
            ("0", Some(0)),
            (" 5 ", Some(5)),
            (&at(90), Some(90)),
            (&at(-90), Some(0)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (text, wanted) in table {
            assert_eq!(retry_after(text, now), wanted.map(Duration::from_secs), "{text:?}");
        }
        assert!(retry_after("99999999999999999999999", now).is_some());
    }

    #[test]
    fn a_negative_pushback_forbids_the_retry() {
        let hint = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-retry-pushback-ms", value.parse().unwrap());
            Head(&headers).retry_hint()
        };
        assert_eq!(hint("250"), RetryHint::After(Duration::from_millis(250)));
        assert_eq!(hint("-1"), RetryHint::Never);
        assert_eq!(hint("x"), RetryHint::Never);
    }

    #[test]
    fn a_pushback_with_a_plus_is_unreadable() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-retry-pushback-ms", "+3".parse().unwrap());
        assert_eq!(Head(&headers).retry_hint(), RetryHint::Never);
    }
}
