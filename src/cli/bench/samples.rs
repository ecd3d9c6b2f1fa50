//! Repeated measurements of one thing.

use serde_json::{Value, json};

/// One figure for each repetition: seconds, or something per second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// All of them, in the order of measuring.
    pub(super) fn all(&self) -> &[f64] {
        &self.0
    }

    /// The middle one, or the mean of the two in the middle; 0 of none.
    pub(super) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match (sorted.get(half), half.checked_sub(1).and_then(|below| sorted.get(below))) {
            (Some(middle), Some(below)) if sorted.len().is_multiple_of(2) => (middle + below) / 2.0,
            (Some(middle), _) => *middle,
            (None, _) => 0.0,
        }
    }

    /// The shortest time; 0 of none.
    pub(super) fn shortest(&self) -> f64 {
        self.0.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0)
    }

    /// The longest time, or the best rate; 0 of none.
    pub(super) fn longest(&self) -> f64 {
        self.0.iter().copied().max_by(f64::total_cmp).unwrap_or(0.0)
    }

    /// From the shortest to the longest, as a share of the median.
    pub(super) fn spread(&self) -> f64 {
        ratio(self.longest() - self.shortest(), self.median())
    }

    /// All that is known of seconds, for programs.
    pub(super) fn json(&self) -> Value {
        json!({
            "samples_s": self.0,
            "median_s": self.median(),
            "best_s": self.shortest(),
            "spread": self.spread(),
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(seconds: T) -> Self {
        Self(seconds.into_iter().collect())
    }
}

/// `amount / of`, and 0 where there is nothing to divide by: JSON knows no infinity.
pub(super) fn ratio(amount: f64, of: f64) -> f64 {
    if of > 0.0 { amount / of } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_the_best_and_the_spread() {
        let odd = Samples::from_iter([3.0, 1.0, 2.0]);
        assert_eq!((odd.median(), odd.shortest(), odd.longest(), odd.spread()), (2.0, 1.0, 3.0, 1.0));
        let even = Samples::from_iter([4.0, 1.0, 3.0, 2.0]);
        assert_eq!((even.median(), even.spread()), (2.5, 1.2));
        let one = Samples::from_iter([7.0]);
        assert_eq!((one.median(), one.spread()), (7.0, 0.0));
        let none = Samples::default();
        assert_eq!((none.median(), none.shortest(), none.spread()), (0.0, 0.0, 0.0));
    }
}
