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

    /// The draw for the `number`th of several things that are decided at once: they are spread, and 0 is this draw itself.
    #[must_use]
    pub fn of(self, number: usize) -> Self {
        // Multiples of the golden ratio are spread evenly over the unit interval, however many there are.
        const GOLDEN: f64 = 0.618_033_988_749_895;
        Self::new((self.0 + GOLDEN * number as f64).fract())
    }

    /// One of the first `count` numbers from zero on, each as likely as the others; 0 if there are none.
    #[must_use]
    pub fn below(self, count: usize) -> usize {
        ((self.0 * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}
