//! Figures: what was measured, over all runs, against its target.

use serde::{Deserialize, Serialize};

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

/// A figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, such as `audit.append`.
    pub name: String,
    /// What it is, for people.
    pub what: String,
    /// Its unit.
    pub unit: String,
    /// Which way it is better.
    pub better: Better,
    /// One value a run, in order.
    pub values: Vec<f64>,
    /// What it must reach, where anything was asked.
    pub target: Option<f64>,
}

impl Figure {
    /// A rate, more of which is better.
    pub fn rate(name: &str, what: &str, unit: &str, values: Vec<f64>) -> Self {
        Self::new(name, what, unit, Better::Higher, values)
    }

    /// A time or a size, less of which is better.
    pub fn cost(name: &str, what: &str, unit: &str, values: Vec<f64>) -> Self {
        Self::new(name, what, unit, Better::Lower, values)
    }

    fn new(name: &str, what: &str, unit: &str, better: Better, values: Vec<f64>) -> Self {
        Self { name: name.into(), what: what.into(), unit: unit.into(), better, values, target: None }
    }

    /// With what it must reach.
    #[must_use]
    pub fn target(mut self, target: f64) -> Self {
        self.target = Some(target);
        self
    }

    /// The median of the runs; of an even number of them the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The least and the greatest.
    pub fn range(&self) -> (f64, f64) {
        self.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    }

    /// Whether the target is reached; none without one.
    pub fn met(&self) -> Option<bool> {
        let target = self.target?;
        Some(match self.better {
            Better::Higher => self.median() >= target,
            Better::Lower => self.median() <= target,
        })
    }

    /// The target in words.
    pub fn target_words(&self) -> String {
        let sign = if self.better == Better::Higher { "≥" } else { "≤" };
        self.target.map(|t| format!("{sign} {}", number(t))).unwrap_or_default()
    }

    /// What became of the target.
    pub fn verdict(&self) -> &'static str {
        match self.met() {
            None => "",
            Some(true) => "met",
            Some(false) => "MISSED",
        }
    }
}

/// A number as people read it: thousands set apart, three significant digits where it is small.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "?".to_owned(),
        size if size >= 100.0 => {
            let whole = crate::output::count(size.round() as u64);
            if value < 0.0 { format!("-{whole}") } else { whole }
        }
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Sorts the values; for each share, the value that so many of them do not exceed.
pub fn percentiles<const N: usize>(times: &mut [f64], shares: [f64; N]) -> [f64; N] {
    times.sort_by(f64::total_cmp);
    shares.map(|share| percentile(times, share))
}

/// The value that `share` of the sorted values do not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1).min(last)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts() {
        let figure = Figure::rate("a", "b", "c", vec![5.0, 1.0, 9.0]).target(5.0);
        assert_eq!((figure.median(), figure.range(), figure.met()), (5.0, (1.0, 9.0), Some(true)));
        assert_eq!(Figure::cost("a", "b", "c", vec![4.0, 2.0]).target(2.9).met(), Some(false));
        assert_eq!(Figure::rate("a", "b", "c", vec![1.0]).met(), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&sorted, share)), [50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
        assert_eq!(percentiles(&mut [9.0, 1.0, 5.0], [0.5, 1.0]), [5.0, 9.0]);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.1234, 12.34, 1234.5, 56_789.0].map(number), ["0.12", "12.3", "1 235", "56 789"]);
    }
}
