//! Where rows of activations come from, and how they are quantised.

use super::acts::{Activations, BlockActs, Forms, SuperActs, quantise_blocks, quantise_super};
use super::format::{SPAN, SUPER};
use crate::error::Result;
use crate::kernels::activation::gelu_row;
use crate::kernels::norm::{NormKind, norm_row};
use crate::kernels::simd::{Op, Simd, dispatch};
use crate::kernels::{Compute, DisjointMut};

/// Computes rows of activations: a copy, a norm, an activation function.
pub(crate) trait RowSource: Sync {
    /// Writes row `row` to `out`, which has as many values as the row. Must be `#[inline(always)]`.
    fn row<S: Simd>(&self, s: S, row: usize, out: &mut [f32]);
}

/// Rows as they are.
pub(crate) struct Copied<'a> {
    /// The rows, one after the other.
    pub(crate) values: &'a [f32],
}

impl RowSource for Copied<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * out.len()..][..out.len()]);
    }
}

/// Rows after a norm.
pub(crate) struct Norm<'a> {
    pub(crate) kind: NormKind,
    /// The rows, one after the other.
    pub(crate) values: &'a [f32],
    /// One for each value of a row.
    pub(crate) weight: &'a [f32],
    /// One for each value of a row, added at the end.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added to the mean square.
    pub(crate) eps: f32,
}

impl RowSource for Norm<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, out: &mut [f32]) {
        let x = &self.values[row * out.len()..][..out.len()];
        norm_row(s, self.kind, x, self.weight, self.bias, self.eps, out);
    }
}

/// GELU of rows and their bias.
pub(crate) struct Gelu<'a> {
    /// The rows, one after the other.
    pub(crate) values: &'a [f32],
    /// One for each value of a row, added first.
    pub(crate) bias: Option<&'a [f32]>,
}

impl RowSource for Gelu<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, out: &mut [f32]) {
        gelu_row(s, &self.values[row * out.len()..][..out.len()], self.bias, out);
    }
}

/// Some rows of another source.
pub(crate) struct Picked<'a, R> {
    pub(crate) source: &'a R,
    /// Their numbers.
    pub(crate) rows: &'a [usize],
}

impl<R: RowSource> RowSource for Picked<'_, R> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, row: usize, out: &mut [f32]) {
        self.source.row(s, self.rows[row], out);
    }
}

/// Quantises one row.
struct QuantiseRow<'a, R> {
    source: &'a R,
    row: usize,
    rows: usize,
    /// The row's values, then zeros to a multiple of 256.
    values: &'a mut [f32],
    k: usize,
    supers: &'a DisjointMut<'a, SuperActs>,
    blocks: &'a DisjointMut<'a, BlockActs>,
    floats: &'a DisjointMut<'a, f32>,
    forms: Forms,
}

impl<R: RowSource> Op for QuantiseRow<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { source, row, rows, values, k, supers, blocks, floats, forms } = self;
        source.row(s, row, &mut values[..k]);
        values[k..].fill(0.0);
        // SAFETY: units are rows, and each row has its own places in the three forms; blocks end within the padded values.
        unsafe {
            if forms.supers {
                for i in 0..k.div_ceil(SUPER) {
                    let at = i * rows + row;
                    quantise_super(s, values.as_ptr().add(i * SUPER), &mut supers.slice(at..at + 1)[0]);
                }
            }
            if forms.blocks {
                for i in 0..k.div_ceil(SPAN) {
                    let at = i * rows + row;
                    quantise_blocks(s, values.as_ptr().add(i * SPAN), &mut blocks.slice(at..at + 1)[0]);
                }
            }
            if forms.floats {
                let width = k.next_multiple_of(SPAN);
                floats.slice(row * width..(row + 1) * width).copy_from_slice(&values[..width]);
            }
        }
    }
}

impl Compute {
    /// Fills `acts` with `rows` rows of `k` values from `source`, in `forms`.
    ///
    /// # Errors
    /// Those of the pool.
    pub(crate) fn quantise(
        &self,
        source: &impl RowSource,
        rows: usize,
        k: usize,
        forms: Forms,
        acts: &mut Activations,
    ) -> Result<()> {
        acts.reset(rows, k, forms);
        let (supers, blocks) = (DisjointMut::new(&mut acts.supers), DisjointMut::new(&mut acts.blocks));
        let floats = DisjointMut::new(&mut acts.floats);
        self.pool.for_each(rows, &|row, scratch| {
            let values = scratch.f32s(k.next_multiple_of(SUPER));
            let (supers, blocks, floats) = (&supers, &blocks, &floats);
            dispatch(self.tier, QuantiseRow { source, row, rows, values, k, supers, blocks, floats, forms });
        })
    }
}
