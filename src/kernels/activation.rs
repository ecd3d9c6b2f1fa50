//! SiLU of the gate times the other half: the feed-forward layer's activation.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use super::exp::exp;
use super::simd::{LANES, Op, Simd, Tier, dispatch, load_some, store_some};
use super::{DisjointMut, Pool};
use crate::error::{Error, Result};

/// Numbers of one unit of work: some microseconds.
const UNIT: usize = 4096;

/// Writes `silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`. All three are equally long.
#[inline(always)]
pub(crate) fn silu_mul_row<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    let n = out.len().min(gate.len()).min(up.len());
    let one = s.splat(1.0);
    let mut at = 0;
    while at < n {
        let x = load_some(s, &gate[at..n]);
        let sigmoid = s.add(one, exp(s, s.sub(s.splat(0.0), x)));
        let y = s.mul(s.div(x, sigmoid), load_some(s, &up[at..n]));
        store_some(s, y, &mut out[at..n]);
        at += LANES;
    }
}

/// Writes `silu(gate) * up` for rows of `gate_up`, each of which has `n` numbers of the gate and then `n` of the other half.
/// `out` has `n` per row.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::ErrorKind::Internal) when the lengths do not agree, or as [`Pool::for_each`].
pub(crate) fn silu_mul(pool: &Pool, tier: Tier, gate_up: &[f32], n: usize, out: &mut [f32]) -> Result<()> {
    if n == 0 || !out.len().is_multiple_of(n) || gate_up.len() != 2 * out.len() {
        return Err(Error::internal(format!(
            "SiLU of rows of {n}: {} numbers in, {} out.",
            gate_up.len(),
            out.len()
        )));
    }
    let parts = n.div_ceil(UNIT);
    let rows = out.len() / n;
    let out = DisjointMut::new(out);
    pool.for_each(rows * parts, &|unit, _| {
        let (row, from) = (unit / parts, unit % parts * UNIT);
        let to = n.min(from + UNIT);
        let (gate, up) = gate_up[2 * row * n..2 * (row + 1) * n].split_at(n);
        // SAFETY: each unit has its own part of its own row.
        let out = unsafe { out.slice(row * n + from..row * n + to) };
        dispatch(tier, Silu { gate: &gate[from..to], up: &up[from..to], out });
    })
}

struct Silu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Op for Silu<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        silu_mul_row(s, self.gate, self.up, self.out);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn rows_equal_the_formula_on_every_tier_and_number_of_threads() {
        let mut random = StdRng::seed_from_u64(2);
        for (rows, n) in [(1, 1), (3, 15), (2, 16), (4, 17), (2, 4099), (1, 8200)] {
            let gate_up: Vec<f32> = (0..2 * rows * n).map(|_| random.random_range(-30.0..30.0)).collect();
            let mut wanted = vec![0.0; rows * n];
            silu_mul(&Pool::new(1).unwrap(), Tier::SCALAR, &gate_up, n, &mut wanted).unwrap();
            for (at, &found) in wanted.iter().enumerate() {
                let (row, i) = (at / n, at % n);
                let (x, up) = (f64::from(gate_up[2 * row * n + i]), f64::from(gate_up[2 * row * n + n + i]));
                let exact = x / (1.0 + (-x).exp()) * up;
                assert!((f64::from(found) - exact).abs() <= 1e-6 * exact.abs(), "{found}, not {exact}");
            }
            for tier in Tier::all() {
                for threads in [1, 2, 3] {
                    let mut found = vec![f32::NAN; rows * n];
                    silu_mul(&Pool::new(threads).unwrap(), tier, &gate_up, n, &mut found).unwrap();
                    assert_eq!(found, wanted, "{} with {threads} threads", tier.isa().name());
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut out = [0.0; 4];
        let gate_up = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -1000.0, 1.0, 1.0, 1.0, 1.0];
        silu_mul(&Pool::new(1).unwrap(), Tier::SCALAR, &gate_up, 4, &mut out).unwrap();
        assert!(out[0].is_nan() && !out[1].is_finite());
        assert_eq!(out[2], f32::INFINITY);
        assert!(out[3].abs() < 1e-30);
    }

    #[test]
    fn lengths_that_do_not_agree_are_refused() {
        let pool = Pool::new(1).unwrap();
        assert!(silu_mul(&pool, Tier::SCALAR, &[0.0; 7], 2, &mut [0.0; 4]).is_err());
        assert!(silu_mul(&pool, Tier::SCALAR, &[0.0; 6], 2, &mut [0.0; 3]).is_err());
        assert!(silu_mul(&pool, Tier::SCALAR, &[], 0, &mut []).is_err());
    }
}
