//! Matrices times activations, over all threads.

use super::acts::Activations;
use super::matrix::Matrix;
use super::strip::{self, GROUPS, Strip, WIDTH};
use crate::error::Result;
use crate::kernels::simd::Tier;
use crate::kernels::{Compute, DisjointMut, Scratch, view_mut};

/// Bytes of weights that a thread takes at a time: enough to hide the taking, few enough to share evenly.
const UNIT_BYTES: usize = 96 << 10;
/// Pieces of work per thread that a product is cut into at least, where it has as many strips.
const UNITS_PER_THREAD: usize = 4;

/// What is done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It replaces what is there.
    Store,
    /// It is added to what is there.
    Add,
}

/// Strips of one matrix.
struct Strips<'a> {
    matrix: &'a Matrix,
    acts: &'a Activations,
    /// The strips, by the number of their first group.
    groups: std::ops::Range<usize>,
    /// `[token][width]`.
    out: &'a DisjointMut<'a, f32>,
    width: usize,
    /// The column of the matrix's first row.
    column: usize,
    then: Then,
    scratch: &'a mut Scratch,
}

impl Strips<'_> {
    fn compute(self, tier: Tier) {
        let Self { matrix, acts, groups, out, width, column, then, scratch } = self;
        let [panels, tiles] = strip::scratch_bytes(matrix);
        let [results, panels, tiles] = scratch.split([acts.rows * WIDTH * 4, panels, tiles]);
        let results = view_mut::<f32>(results);
        for group in groups.step_by(GROUPS) {
            let mut strip = Strip { matrix, group, acts, results, panels, tiles };
            strip.compute(tier);
            let first = group * (WIDTH / GROUPS);
            let rows = (matrix.rows - first).min(WIDTH);
            for (token, results) in results.chunks_exact(WIDTH).enumerate() {
                let at = token * width + column + first;
                // SAFETY: every row of every matrix has a column of its own.
                let out = unsafe { out.slice(at..at + rows) };
                match then {
                    Then::Store => out.copy_from_slice(&results[..rows]),
                    Then::Add => out.iter_mut().zip(results).for_each(|(out, result)| *out += *result),
                }
            }
        }
    }
}

impl Compute {
    /// Multiplies the matrices of `stack` with every row of `acts`; their outputs stand side by side in `out`:
    /// `[token][rows of the first, rows of the second ...]`.
    ///
    /// # Errors
    /// Those of the pool.
    pub(crate) fn matmul(
        &self,
        stack: &[&Matrix],
        acts: &Activations,
        then: Then,
        out: &mut [f32],
    ) -> Result<()> {
        let width = stack.iter().map(|matrix| matrix.rows).sum();
        let out = DisjointMut::new(out);
        // Pieces of work: (matrix, first group, end).
        let mut column = 0;
        let parts: Vec<Part<'_>> = stack
            .iter()
            .map(|&matrix| {
                let part = Part { matrix, column, groups: self.unit_groups(matrix) };
                column += matrix.rows;
                part
            })
            .collect();
        let units = parts.iter().map(Part::units).sum();
        self.pool.for_each(units, &|unit, scratch| {
            let Some((part, groups)) = find(&parts, unit) else { return };
            let (matrix, column) = (part.matrix, part.column);
            Strips { matrix, acts, groups, out: &out, width, column, then, scratch }.compute(self.tier);
        })
    }

    /// Groups of 16 rows in a piece of work of `matrix`.
    fn unit_groups(&self, matrix: &Matrix) -> usize {
        let by_bytes = UNIT_BYTES / (matrix.row_bytes() * WIDTH / GROUPS).max(1);
        let by_threads = matrix.groups() / (self.threads() * UNITS_PER_THREAD);
        by_bytes.min(by_threads).next_multiple_of(GROUPS).max(GROUPS)
    }
}

/// A matrix of a stack, cut into pieces.
struct Part<'a> {
    matrix: &'a Matrix,
    column: usize,
    /// Groups of a piece.
    groups: usize,
}

impl Part<'_> {
    fn units(&self) -> usize {
        self.matrix.groups().div_ceil(self.groups)
    }
}

/// The matrix and the groups of piece `unit`.
fn find<'p, 'a>(parts: &'p [Part<'a>], mut unit: usize) -> Option<(&'p Part<'a>, std::ops::Range<usize>)> {
    for part in parts {
        if unit < part.units() {
            let first = unit * part.groups;
            return Some((part, first..(first + part.groups).min(part.matrix.groups())));
        }
        unit -= part.units();
    }
    None
}
