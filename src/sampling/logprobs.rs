//! How likely tokens are: the logarithm of what the model itself says, before any parameter has a say in it.

use super::softmax::argmax;
use crate::error::{Error, Result};
use crate::kernels::exp_below;

/// Most alternatives that a request may ask for at each token, as in OpenAI's interface and vLLM's default.
pub const MOST_LOGPROBS: usize = 20;

/// Sums that run beside each other, in a fixed order.
const LANES: usize = 8;

/// One token of a text and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token that stands there.
    pub token: u32,
    /// The natural logarithm of its probability: `logit - ln(sum of e^logit)` over the whole row, without bias, penalties,
    /// temperature or filters.
    pub logprob: f64,
    /// The likeliest tokens at this place with their logprobs, the likeliest first, of equals the lower id. As many as were
    /// asked for.
    pub top: Vec<(u32, f64)>,
}

/// Reads rows of logits. Its scratch, 4 bytes for each token of the vocabulary, is made on first use and kept.
#[derive(Debug, Default)]
pub struct Logprobs {
    /// Alternatives to list.
    count: usize,
    /// The row as the model gave it: a sampler may change its own.
    row: Vec<f32>,
    /// The logarithm of the sum of `e^(logit - max)`, and `max`.
    log_sum: f64,
    max: f32,
    top: Vec<(u32, f32)>,
}

impl Logprobs {
    /// A reader that lists the `count` likeliest tokens of each row.
    pub fn new(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// Takes a row of logits, one for each token of the vocabulary.
    ///
    /// # Errors
    /// [`ErrorKind::Numerical`](crate::ErrorKind::Numerical) when a logit is NaN or plus infinity, or all are minus infinity.
    pub fn read(&mut self, logits: &[f32]) -> Result<()> {
        self.max = logits[argmax(logits)?];
        self.row.clear();
        self.row.extend_from_slice(logits);
        exp_below(&mut self.row, 1.0, self.max);
        self.log_sum = sum(&self.row).ln();
        self.row.copy_from_slice(logits);
        self.find_top();
        Ok(())
    }

    /// What the row says of `token`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) for a token outside the row.
    pub fn of(&self, token: u32) -> Result<TokenLogprob> {
        let logit = self.row.get(token as usize).copied();
        let logit = logit.ok_or_else(|| Error::internal(format!("The row has no token {token}.")))?;
        let top = self.top.iter().map(|&(token, logit)| (token, self.logprob(logit))).collect();
        Ok(TokenLogprob { token, logprob: self.logprob(logit), top })
    }

    fn logprob(&self, logit: f32) -> f64 {
        f64::from(logit) - f64::from(self.max) - self.log_sum
    }

    /// One pass over the row: most logits are below the least of those kept.
    fn find_top(&mut self) {
        self.top.clear();
        let mut least = f32::NEG_INFINITY;
        for (token, &logit) in (0..).zip(&self.row) {
            if self.top.len() == self.count && logit <= least {
                continue;
            }
            let place = self.top.partition_point(|&(_, other)| other >= logit);
            self.top.insert(place, (token, logit));
            self.top.truncate(self.count);
            least = self.top.last().map_or(f32::INFINITY, |&(_, logit)| logit);
        }
    }
}

/// The sum of probabilities that are no more than 1 each.
fn sum(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for block in blocks {
        for (sum, &value) in sums.iter_mut().zip(block) {
            *sum += f64::from(value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(logits: &[f32], count: usize) -> Logprobs {
        let mut reader = Logprobs::new(count);
        reader.read(logits).unwrap();
        reader
    }

    #[test]
    fn a_row_worked_out_by_hand() {
        // Probabilities 1/4, 1/2, 1/8, 1/8.
        let ln_2 = std::f32::consts::LN_2;
        let reader = read(&[3.0 - ln_2, 3.0, 3.0 - 2.0 * ln_2, 3.0 - 2.0 * ln_2], 3);
        let found = reader.of(2).unwrap();
        let near = |found: f64, halves: f64| (found + halves * std::f64::consts::LN_2).abs() < 1e-6;
        assert!(near(found.logprob, 3.0), "{found:?}");
        assert_eq!(found.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 0, 2]);
        assert!(found.top.iter().zip([1.0, 2.0, 3.0]).all(|(&(_, found), halves)| near(found, halves)));
    }

    #[test]
    fn a_reader_that_lists_nothing_lists_nothing() {
        assert!(read(&[0.5, 1.0, -1.0], 0).of(0).unwrap().top.is_empty());
        assert!(read(&[0.5], 0).of(1).is_err());
    }

    #[test]
    fn a_token_that_is_ruled_out_has_no_probability() {
        let reader = read(&[0.0, f32::NEG_INFINITY], 2);
        assert_eq!(reader.of(1).unwrap().logprob, f64::NEG_INFINITY);
        assert_eq!(reader.of(0).unwrap().logprob, 0.0);
    }

    #[test]
    fn rows_that_say_nothing_are_refused() {
        for row in [&[][..], &[f32::NAN, 1.0], &[f32::INFINITY], &[f32::NEG_INFINITY; 3]] {
            assert!(Logprobs::new(1).read(row).is_err(), "{row:?}");
        }
    }

    proptest! {
        #[test]
        fn probabilities_add_up_to_one_and_the_top_is_the_top(
            logits in prop::collection::vec(-40.0f32..40.0, 1..600),
            count in 0_usize..=MOST_LOGPROBS,
        ) {
            let reader = read(&logits, count);
            let all: Vec<f64> = (0..logits.len() as u32).map(|token| reader.of(token).unwrap().logprob).collect();
            let total: f64 = all.iter().map(|logprob| logprob.exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-6, "{}", total);
            let max = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
            let exact: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
            let exact = f64::from(logits[0]) - max - exact.ln();
            prop_assert!((all[0] - exact).abs() < 1e-6, "{} is not {}", all[0], exact);
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let top: Vec<u32> = reader.of(0).unwrap().top.iter().map(|&(token, _)| token).collect();
            prop_assert_eq!(&top[..], &order[..count.min(logits.len())]);
        }
    }
}
