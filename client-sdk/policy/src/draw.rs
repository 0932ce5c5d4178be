//! A random number that the caller hands in.

/// A number in `[0, 1)`. The core never owns a generator: the same draws give the same decisions.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Draw(f64);

impl Draw {
    /// The smallest draw.
    pub const ZERO: Self = Self(0.0);
    /// The middle.
    pub const HALF: Self = Self(0.5);

    /// Takes a number; what lies outside of `[0, 1)` is brought to the nearest end.
    #[must_use]
    pub const fn new(number: f64) -> Self {
        // The largest f64 below 1.
        const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;
        if number >= 1.0 {
            Self(BELOW_ONE)
        } else if number > 0.0 {
            Self(number)
        } else {
            Self(0.0)
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}
