//! Weighted mean and scatter of values that come one at a time.
//!
//! West's update ("Updating mean and variance estimates: an improved method",
//! CACM 22(9), 1979). Values and weights that are no numbers are left out.

use serde::{Deserialize, Serialize};

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moments {
    weight: f64,
    /// Sum of the squares of the weights.
    squares: f64,
    mean: f64,
    /// Weighted sum of the squares of what the values are off the mean.
    off: f64,
}

impl Moments {
    pub(crate) fn add(&mut self, value: f64, weight: f64) {
        if !(value.is_finite() && weight.is_finite() && weight > 0.0) {
            return;
        }
        self.weight += weight;
        self.squares += weight * weight;
        let step = value - self.mean;
        self.mean += step * weight / self.weight;
        self.off += weight * step * (value - self.mean);
    }

    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Sum of the weights.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }

    /// How many values of the same weight would say as much (Kish's effective sample size).
    pub(crate) fn count(&self) -> f64 {
        if self.squares > 0.0 { self.weight * self.weight / self.squares } else { 0.0 }
    }

    /// Standard error of the mean; none with fewer than two values.
    pub(crate) fn error(&self) -> Option<f64> {
        let count = self.count();
        (count > 1.5).then(|| (self.off.max(0.0) / self.weight / (count - 1.0)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::Moments;

    #[test]
    fn equal_weights_give_the_usual_mean_and_error() {
        let mut moments = Moments::default();
        for value in [1.0, 2.0, 3.0, 4.0] {
            moments.add(value, 2.0);
        }
        assert_eq!((moments.mean(), moments.count(), moments.weight()), (2.5, 4.0, 8.0));
        // Variance 5/3, over four values.
        assert!((moments.error().unwrap() - (5.0_f64 / 12.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn one_value_has_no_error_and_no_number_counts_for_nothing() {
        let mut moments = Moments::default();
        moments.add(f64::NAN, 1.0);
        moments.add(1.0, f64::INFINITY);
        moments.add(7.0, 0.0);
        assert_eq!(moments, Moments::default());
        moments.add(7.0, 1.0);
        assert_eq!((moments.mean(), moments.error()), (7.0, None));
    }
}
