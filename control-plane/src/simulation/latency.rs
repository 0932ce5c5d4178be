//! How long attempts take: a distribution, from a few of its percentiles.

use std::{str::FromStr, time::Duration};

/// A distribution of times. Between the given percentiles it runs evenly on a logarithmic scale; below the first it begins at half of it,
/// and above the last it stays there.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Share, time in seconds; both rise.
    points: Vec<(f64, f64)>,
}

/// What is no distribution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLatency {
    /// A part is not `p99=2s`.
    #[error("{0:?} is not a percentile: write p50=20ms,p99=2s, or one time for all")]
    Part(String),
    /// They don't rise.
    #[error("{0} must be above the percentile before it, in share and in time")]
    Order(String),
}

impl FromStr for Latency {
    type Err = BadLatency;

    fn from_str(text: &str) -> Result<Self, BadLatency> {
        let time = |text: &str| humantime::parse_duration(text).ok().map(|time| time.as_secs_f64());
        if let Some(all) = time(text.trim()) {
            return Ok(Self { points: vec![(0.0, all), (1.0, all)] });
        }
        let mut points: Vec<(f64, f64)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let read = part.strip_prefix('p').and_then(|part| part.split_once('=')).and_then(|(share, value)| {
                // "p999" is what people call 99.9 %.
                let share = if share.contains('.') { share.to_owned() } else { spread(share) };
                let share = share.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))?;
                Some((share / 100.0, time(value)?.max(1e-6)))
            });
            let (share, value) = read.ok_or_else(|| BadLatency::Part(part.to_owned()))?;
            if points.last().is_some_and(|(before, less)| share <= *before || value < *less) {
                return Err(BadLatency::Order(part.to_owned()));
            }
            points.push((share, value));
        }
        let (Some(first), Some(last)) = (points.first().copied(), points.last().copied()) else {
            return Err(BadLatency::Part(text.to_owned()));
        };
        if first.0 > 0.0 {
            points.insert(0, (0.0, first.1 / 2.0));
        }
        if last.0 < 1.0 {
            points.push((1.0, last.1));
        }
        Ok(Self { points })
    }
}

/// `999` is 99.9.
fn spread(digits: &str) -> String {
    match digits.split_at_checked(2) {
        Some((whole, rest)) if !rest.is_empty() && digits.starts_with('9') => format!("{whole}.{rest}"),
        _ => digits.to_owned(),
    }
}

impl Latency {
    /// The time at a share from 0 to 1.
    pub(super) fn at(&self, share: f64) -> Duration {
        let after = self.points.iter().position(|(own, _)| *own >= share).unwrap_or(self.points.len() - 1);
        let (high_share, high) = self.points[after];
        let (low_share, low) = self.points[after.saturating_sub(1)];
        let width = high_share - low_share;
        let place = if width > 0.0 { (share - low_share) / width } else { 1.0 };
        let seconds = if low > 0.0 { low * (high / low).powf(place) } else { high * place };
        Duration::from_secs_f64(seconds)
    }
}
