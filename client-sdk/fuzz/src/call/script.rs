//! What happens, read from bytes. When they are used up everything goes well.

use std::{cell::Cell, time::Duration};

use fusebox_policy::{
    Draw, Outcome,
    fallback::Answers,
    outcome::{ErrorKind, Facts, GrpcCode, RetryHint},
    retry::CallRules,
    throttle::Priority,
};

/// Bytes that decide, one after the other.
#[derive(Debug)]
pub(crate) struct Script<'a>(Cell<&'a [u8]>);

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(Cell::new(bytes))
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.0.get().is_empty()
    }

    /// The next byte; zero when there is none left.
    pub(crate) fn next(&self) -> u8 {
        match self.0.get().split_first() {
            Some((first, rest)) => {
                self.0.set(rest);
                *first
            }
            None => 0,
        }
    }

    /// One of so many.
    pub(crate) fn index(&self, len: usize) -> usize {
        usize::from(self.next()) % len.max(1)
    }

    pub(crate) fn draw(&self) -> Draw {
        Draw::new(f64::from(self.next()) / 255.0)
    }

    /// From nothing to days, in steps of powers of two.
    pub(crate) fn span(&self) -> Duration {
        let byte = self.next();
        Duration::from_micros(u64::from(byte & 7) << (byte >> 3))
    }

    pub(crate) fn rules(&self) -> CallRules {
        let byte = self.next();
        CallRules {
            idempotent: byte & 1 == 0,
            replayable: byte & 2 == 0,
            priority: Priority::ALL[usize::from(byte >> 2 & 0xf) % Priority::ALL.len()],
            answers: [Answers::Anything, Answers::Anything, Answers::Target, Answers::Error][usize::from(byte >> 6)],
        }
    }

    pub(crate) fn outcome(&self) -> Outcome {
        const KINDS: [ErrorKind; 7] = [
            ErrorKind::Connect,
            ErrorKind::Reset,
            ErrorKind::Timeout,
            ErrorKind::Body,
            ErrorKind::Tls,
            ErrorKind::Request,
            ErrorKind::Other,
        ];
        match self.next() {
            0 => Outcome::OK,
            byte @ 1..=7 => Outcome::Error(KINDS[usize::from(byte) - 1]),
            byte @ 8..=31 => Outcome::grpc(GrpcCode::from_number(i32::from(byte) - 8)),
            byte @ 32..=99 => Outcome::status([200, 404, 429, 500, 503][usize::from(byte) % 5]),
            byte @ 100.. => Outcome::status(u16::from(byte) * 4 - 300),
        }
    }

    pub(crate) fn said(&self) -> Said {
        let hint = match self.next() {
            0..=199 => RetryHint::None,
            200..=209 => RetryHint::Never,
            210..=219 => RetryHint::After(Duration::MAX),
            220.. => RetryHint::After(self.span()),
        };
        Said(hint)
    }
}

/// What else a response says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said(RetryHint);

impl Facts for Said {
    fn header(&self, _name: &str) -> Option<&str> {
        (self.0 == RetryHint::Never).then_some("true")
    }

    fn retry_hint(&self) -> RetryHint {
        self.0
    }
}
