//! Which outcomes count: classification as data.

use std::time::Duration;

use crate::{
    Invalid,
    invalid::Faults,
    outcome::{ErrorKind, Facts, GrpcCode, Outcome, Response},
};

/// A set of rules on outcomes; any match is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// HTTP statuses.
    pub statuses: Vec<StatusRange>,
    /// gRPC codes.
    pub grpc_codes: Vec<GrpcCode>,
    /// Kinds of error.
    pub errors: Vec<ErrorRule>,
    /// Response headers.
    pub headers: Vec<HeaderRule>,
    /// Strictly longer than this.
    pub slower_than: Option<Duration>,
}

/// A kind of error that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorRule {
    /// Every error, timeout and rejection.
    Any,
    /// A rejection by a strategy further inside.
    Rejected,
    /// One kind. [`ErrorKind::Timeout`] is a timeout of the transport or of a timeout strategy.
    Kind(ErrorKind),
}

/// HTTP statuses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Statuses from one to another.
    ///
    /// # Errors
    /// If a bound is not from 100 to 599, or they stand in the wrong order.
    pub fn try_new(first: u16, last: u16) -> Result<Self, Invalid> {
        if (100..=599).contains(&first) && (100..=599).contains(&last) && first <= last {
            Ok(Self { first, last })
        } else {
            Err(Invalid::new("", format!("{first}-{last} is not a range of statuses from 100 to 599")))
        }
    }

    /// Reads `503`, `5xx` or `500-504`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("", format!("{text:?} is not a status: write \"503\", \"5xx\" or \"500-504\""));
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().ok().filter(|_| !class.starts_with('+')).ok_or_else(wrong)?;
            if !(1..=5).contains(&class) {
                return Err(wrong());
            }
            return Self::try_new(class * 100, class * 100 + 99);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |part: &str| {
            Some(part)
                .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse::<u16>().ok())
                .ok_or_else(wrong)
        };
        Self::try_new(number(first)?, number(last)?).map_err(|_| wrong())
    }

    /// Whether the status lies in it.
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl std::fmt::Display for StatusRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, last } = *self;
        if first == last {
            write!(f, "{first}")
        } else if first % 100 == 0 && last == first + 99 {
            write!(f, "{}xx", first / 100)
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

/// A rule on a response header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderRule {
    /// Lower case.
    name: String,
    value: Option<String>,
}

impl HeaderRule {
    /// The header is present; with `value`, exactly so.
    ///
    /// # Errors
    /// If the name is not a header name.
    pub fn try_new(name: &str, value: Option<&str>) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(Invalid::new("name", format!("{name:?} is not a header name")));
        }
        Ok(Self { name: name.to_ascii_lowercase(), value: value.map(ToOwned::to_owned) })
    }

    /// The header's name, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The exact value, if one is asked for.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl Conditions {
    /// Checks the rules that single fields can't.
    ///
    /// # Errors
    /// Zero durations and absurd sizes.
    pub fn check(&self) -> Result<(), Invalid> {
        /// More rules than this are a mistake, and each is read on each outcome.
        const MAX_RULES: usize = 64;
        let mut faults = Faults::new();
        faults.check(self.slower_than != Some(Duration::ZERO), "slowerThan", "must be greater than zero");
        for (field, length) in [
            ("statuses", self.statuses.len()),
            ("grpcCodes", self.grpc_codes.len()),
            ("errors", self.errors.len()),
            ("headers", self.headers.len()),
        ] {
            faults.check(length <= MAX_RULES, field, format!("must have at most {MAX_RULES} rules"));
        }
        faults.finish()
    }

    /// No rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether any rule matches.
    pub fn matches(&self, outcome: Outcome, elapsed: Duration, facts: &dyn Facts) -> bool {
        if self.slower_than.is_some_and(|limit| elapsed > limit) {
            return true;
        }
        match outcome {
            Outcome::Response(Response { status, grpc }) => {
                status.is_some_and(|status| self.statuses.iter().any(|range| range.contains(status)))
                    || grpc.is_some_and(|code| self.grpc_codes.contains(&code))
                    || self.headers.iter().any(|rule| match (facts.header(&rule.name), &rule.value) {
                        (Some(found), Some(wanted)) => found == wanted,
                        (Some(_), None) => true,
                        (None, _) => false,
                    })
            }
            Outcome::Error(kind) => self.has(ErrorRule::Kind(kind)),
            Outcome::Timeout(_) => self.has(ErrorRule::Kind(ErrorKind::Timeout)),
            Outcome::Rejected(..) => self.has(ErrorRule::Rejected),
        }
    }

    fn has(&self, rule: ErrorRule) -> bool {
        self.errors.iter().any(|own| *own == rule || *own == ErrorRule::Any)
    }
}

/// What an outcome is to a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Counts as success.
    Success,
    /// Counts as failure.
    Failure,
    /// Counts as neither; permits go back.
    Ignored,
}

/// Tells success, failure and ignored apart. `ignore_when` is read first and wins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Classifier {
    failure_when: Conditions,
    ignore_when: Conditions,
}

impl Classifier {
    /// From both sets of rules; an empty `failure_when` takes the strategy's default.
    ///
    /// # Errors
    /// What [`Conditions::check`] finds, under `failureWhen` and `ignoreWhen`.
    pub fn try_new(
        failure_when: Option<Conditions>,
        ignore_when: Conditions,
        default: fn() -> Conditions,
    ) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        let failure_when = match failure_when {
            Some(given) if given.is_empty() => {
                faults.push("failureWhen", "must have at least one rule; leave it out for the default");
                given
            }
            Some(given) => {
                faults.take("failureWhen", given.check());
                given
            }
            None => default(),
        };
        faults.take("ignoreWhen", ignore_when.check());
        faults.into_result(Some(Self { failure_when, ignore_when }))
    }

    /// The rules for failures.
    #[must_use]
    pub const fn failure_when(&self) -> &Conditions {
        &self.failure_when
    }

    /// The rules for what does not count.
    #[must_use]
    pub const fn ignore_when(&self) -> &Conditions {
        &self.ignore_when
    }

    /// What the outcome is.
    pub fn classify(&self, outcome: Outcome, elapsed: Duration, facts: &dyn Facts) -> Class {
        if self.ignore_when.matches(outcome, elapsed, facts) {
            Class::Ignored
        } else if self.failure_when.matches(outcome, elapsed, facts) {
            Class::Failure
        } else {
            Class::Success
        }
    }
}

fn kinds(kinds: &[ErrorKind]) -> Vec<ErrorRule> {
    kinds.iter().copied().map(ErrorRule::Kind).collect()
}

const fn range(first: u16, last: u16) -> StatusRange {
    StatusRange { first, last }
}

/// What a circuit breaker counts by default: the target's trouble. 501 is an answer, not an outage; rejections by
/// strategies further inside never reached the target.
#[must_use]
pub fn breaker_default() -> Conditions {
    Conditions {
        statuses: vec![range(500, 500), range(502, 599)],
        grpc_codes: vec![
            GrpcCode::Unknown,
            GrpcCode::DeadlineExceeded,
            GrpcCode::ResourceExhausted,
            GrpcCode::Internal,
            GrpcCode::Unavailable,
            GrpcCode::DataLoss,
        ],
        errors: kinds(&[ErrorKind::Connect, ErrorKind::Reset, ErrorKind::Timeout, ErrorKind::Body, ErrorKind::Other]),
        ..Conditions::default()
    }
}

/// What a retry repeats by default: what another try can help. Never a rejection by an inner strategy.
#[must_use]
pub fn retry_default() -> Conditions {
    Conditions {
        statuses: vec![range(429, 429), range(502, 504)],
        grpc_codes: vec![GrpcCode::ResourceExhausted, GrpcCode::Unavailable],
        errors: kinds(&[ErrorKind::Connect, ErrorKind::Reset, ErrorKind::Timeout, ErrorKind::Other]),
        ..Conditions::default()
    }
}

/// What a fallback answers by default: any failure or rejection.
#[must_use]
pub fn fallback_default() -> Conditions {
    Conditions {
        statuses: vec![range(429, 429), range(500, 599)],
        grpc_codes: vec![
            GrpcCode::Unknown,
            GrpcCode::DeadlineExceeded,
            GrpcCode::ResourceExhausted,
            GrpcCode::Internal,
            GrpcCode::Unavailable,
            GrpcCode::DataLoss,
        ],
        errors: vec![ErrorRule::Any],
        ..Conditions::default()
    }
}

/// What means too much load by default: the target says so, or does not answer in time.
#[must_use]
pub fn overload_default() -> Conditions {
    Conditions {
        statuses: vec![range(429, 429), range(503, 503)],
        grpc_codes: vec![GrpcCode::DeadlineExceeded, GrpcCode::ResourceExhausted],
        errors: kinds(&[ErrorKind::Timeout]),
        ..Conditions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::NoFacts;

    #[test]
    fn ignore_wins_over_failure() {
        let any = || Conditions { errors: vec![ErrorRule::Any], ..Conditions::default() };
        let classifier = Classifier::try_new(Some(any()), any(), breaker_default).unwrap();
        let class = classifier.classify(Outcome::Error(ErrorKind::Other), Duration::ZERO, &NoFacts);
        assert_eq!(class, Class::Ignored);
    }

    #[test]
    fn statuses_read_as_people_write_them() {
        assert!(StatusRange::parse("5xx").unwrap().contains(599));
        assert!(StatusRange::parse("500-504").unwrap().contains(504));
        assert!(!StatusRange::parse("503").unwrap().contains(504));
        for bad in ["", "6xx", "99", "504-500", "five", "xx", "+503"] {
            assert!(StatusRange::parse(bad).is_err(), "{bad}");
        }
    }
}
