//! How long to wait between attempts.

use std::time::Duration;

use crate::{Draw, Invalid, invalid::Faults, time::scale};

/// The shape of the waits, and how they are spread. The cap is applied after jitter and never exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    shape: Shape,
    jitter: Jitter,
}

// Every float in here is checked to be finite, so that equality is an equivalence and equal values have equal bits.
impl Eq for Backoff {}

impl std::hash::Hash for Backoff {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        format!("{self:?}").hash(state);
    }
}

/// The shape of the waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// The same wait each time.
    Fixed {
        /// The wait.
        delay: Duration,
    },
    /// `initial`, `initial + step`, ...
    Linear {
        /// The first wait.
        initial: Duration,
        /// What each further wait adds.
        step: Duration,
        /// The cap.
        max: Option<Duration>,
    },
    /// `initial`, `initial * factor`, ...
    Exponential {
        /// The first wait.
        initial: Duration,
        /// At least 1.
        factor: f64,
        /// The cap.
        max: Option<Duration>,
    },
    /// Uniformly between two bounds.
    Random {
        /// Lower bound.
        min: Duration,
        /// Upper bound.
        max: Duration,
    },
    /// Uniformly between `initial` and three times the previous wait, capped. From "Exponential Backoff And Jitter" of the
    /// AWS architecture blog.
    Decorrelated {
        /// The first wait, and the lower bound.
        initial: Duration,
        /// The cap.
        max: Duration,
    },
}

/// How waits are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Jitter {
    /// Not at all.
    None,
    /// Uniformly between zero and the wait.
    Full,
    /// Half of the wait, and uniformly up to the other half.
    Equal,
    /// The wait plus or minus this share of it.
    Ratio(f64),
}

impl Default for Backoff {
    /// Exponential from 100 ms, factor 2, at most 10 s, full jitter.
    fn default() -> Self {
        Self {
            shape: Shape::Exponential {
                initial: Duration::from_millis(100),
                factor: 2.0,
                max: Some(Duration::from_secs(10)),
            },
            jitter: Jitter::Full,
        }
    }
}

impl Backoff {
    /// From shape and jitter; `None` is full jitter for exponential, none otherwise.
    ///
    /// # Errors
    /// Zero first waits of growing shapes, factors below 1, bounds in the wrong order, jitter where the shape is random.
    pub fn try_new(shape: Shape, jitter: Option<Jitter>) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        match shape {
            Shape::Fixed { .. } => {}
            Shape::Linear { initial, max, .. } => {
                faults.check(!initial.is_zero(), "linear.initial", "must be greater than zero");
                faults.check(max.is_none_or(|max| max >= initial), "linear.max", "must not be less than initial");
            }
            Shape::Exponential { initial, factor, max } => {
                faults.check(!initial.is_zero(), "exponential.initial", "must be greater than zero");
                faults.check(
                    factor.is_finite() && (1.0..=1000.0).contains(&factor),
                    "exponential.factor",
                    format!("must be from 1 to 1000, is {factor}"),
                );
                faults.check(max.is_none_or(|max| max >= initial), "exponential.max", "must not be less than initial");
            }
            Shape::Random { min, max } => faults.check(max >= min, "random.max", "must not be less than min"),
            Shape::Decorrelated { initial, max } => {
                faults.check(!initial.is_zero(), "decorrelated.initial", "must be greater than zero");
                faults.check(max >= initial, "decorrelated.max", "must not be less than initial");
            }
        }
        let random = matches!(shape, Shape::Random { .. } | Shape::Decorrelated { .. });
        let jitter = match jitter {
            Some(Jitter::None) => Jitter::None,
            Some(_) if random => {
                faults.push("jitter", "must be left out: this shape is random already");
                Jitter::None
            }
            Some(Jitter::Ratio(ratio)) => {
                faults.check(
                    ratio.is_finite() && (0.0..=1.0).contains(&ratio),
                    "jitterRatio",
                    format!("must be from 0 to 1, is {ratio}"),
                );
                Jitter::Ratio(ratio)
            }
            Some(given) => given,
            None if matches!(shape, Shape::Exponential { .. }) => Jitter::Full,
            None => Jitter::None,
        };
        faults.into_result(Some(Self { shape, jitter }))
    }

    /// The shape.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The spread.
    #[must_use]
    pub const fn jitter(&self) -> Jitter {
        self.jitter
    }

    /// The shortest first wait that can happen: what a timeout around the retry must leave room for.
    #[must_use]
    pub fn least_first_delay(&self) -> Duration {
        self.delay(1, None, Draw::ZERO)
    }

    /// The wait before the retry that follows failed attempt number `attempt` (from 1). `previous` is the wait before.
    #[must_use]
    pub fn delay(&self, attempt: u32, previous: Option<Duration>, draw: Draw) -> Duration {
        let step = attempt.saturating_sub(1);
        let (raw, cap) = match self.shape {
            Shape::Fixed { delay } => (delay, None),
            Shape::Linear { initial, step: add, max } => (initial.saturating_add(add.saturating_mul(step)), max),
            Shape::Exponential { initial, factor, max } => {
                // Steps beyond this are past every cap; `powi` would only be slower or infinite.
                let power = factor.powi(i32::try_from(step.min(4096)).unwrap_or(4096));
                (scale(initial, power), max)
            }
            Shape::Random { min, max } => (between(min, max, draw), Some(max)),
            Shape::Decorrelated { initial, max } => {
                let upper = previous.map_or(initial, |last| last.saturating_mul(3)).max(initial);
                (if previous.is_none() { initial } else { between(initial, upper, draw) }, Some(max))
            }
        };
        // Capped before as well, so that jitter spreads over the cap and not over an astronomic number.
        let raw = cap.map_or(raw, |cap| raw.min(cap));
        let spread = match self.jitter {
            Jitter::None => raw,
            Jitter::Full => scale(raw, draw.get()),
            Jitter::Equal => scale(raw, 0.5 + draw.get() / 2.0),
            Jitter::Ratio(ratio) => scale(raw, 1.0 + ratio * (2.0 * draw.get() - 1.0)),
        };
        cap.map_or(spread, |cap| spread.min(cap))
    }
}

fn between(low: Duration, high: Duration, draw: Draw) -> Duration {
    low.saturating_add(scale(high.saturating_sub(low), draw.get()))
}
