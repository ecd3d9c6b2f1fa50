//! Activations as the products want them: quantised to i8, in blocks.

use super::format::{BLOCK, Family, SPAN, SUPER};
use crate::kernels::simd::{LANES, Simd};

/// Below this a block is taken for zeros: 127 divided by less would not fit into an f32.
const LEAST: f32 = 1e-30;

/// The most that 16 activations may come to, without their signs, for sums of their products to be short, that is, to fit into
/// i16: with weights of 6 bits less 32, sums of 16; of 5 bits less 16 or of 4 bits as they are, sums of 32.
const MILD: i16 = i16::MAX / 32;

/// 256 activations of one token.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SuperActs {
    pub(super) q: [i8; SUPER],
    /// Sums of 32.
    pub(super) sums32: [i16; 8],
    /// An activation is `d * q`.
    pub(super) d: f32,
    /// Whether no 16 neighbours add up, without their signs, to more than [`MILD`].
    pub(super) is_mild: bool,
    /// What takes the middle of their range from weights of 5 bits, if these are mild: -16 times the sum of 32.
    pub(super) middle5: [i16; 8],
    /// Sums of 16.
    pub(super) sums16: [i16; 16],
    /// As `middle5`, for 6 bits: -32 times the sum of 16.
    pub(super) middle6: [i16; 16],
    /// Whoever reads a middle reads two bytes more.
    behind: i16,
}

/// 64 activations of one token, in two blocks.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct BlockActs {
    pub(super) q: [i8; SPAN],
    /// An activation is `d * q`.
    pub(super) d: [f32; 2],
    /// Sums of `q`.
    pub(super) sums: [i32; 2],
    /// `d * sums`.
    pub(super) dsums: [f32; 2],
}

impl SuperActs {
    pub(super) const ZERO: Self = Self {
        q: [0; SUPER],
        sums32: [0; 8],
        d: 0.0,
        is_mild: true,
        middle5: [0; 8],
        sums16: [0; 16],
        middle6: [0; 16],
        behind: 0,
    };
}

impl BlockActs {
    pub(super) const ZERO: Self = Self { q: [0; SPAN], d: [0.0; 2], sums: [0; 2], dsums: [0.0; 2] };
}

/// Rows of activations, one row per token, in the forms that were asked for.
///
/// Blocks of all tokens lie side by side: `[block][token]`, so that a product walks through memory in one direction.
#[derive(Default)]
pub(crate) struct Activations {
    pub(super) rows: usize,
    pub(super) k: usize,
    pub(super) supers: Vec<SuperActs>,
    pub(super) blocks: Vec<BlockActs>,
    /// `[token][k, rounded up to 64]`.
    pub(super) floats: Vec<f32>,
}

/// Which forms a set of products needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forms {
    pub(super) supers: bool,
    pub(super) blocks: bool,
    pub(super) floats: bool,
}

impl Forms {
    /// These and the form that weights of `family` need.
    pub(crate) fn with(mut self, family: Family) -> Self {
        match family {
            Family::Super => self.supers = true,
            Family::Block => self.blocks = true,
            Family::Float => self.floats = true,
        }
        self
    }
}

impl Activations {
    /// Makes room for `rows` rows of `k` values in `forms`, which are to be filled by [`fill`].
    pub(super) fn reset(&mut self, rows: usize, k: usize, forms: Forms) {
        (self.rows, self.k) = (rows, k);
        let length = |wanted: bool, tile: usize| if wanted { rows * k.div_ceil(tile) } else { 0 };
        self.supers.resize(length(forms.supers, SUPER), SuperActs::ZERO);
        self.blocks.resize(length(forms.blocks, SPAN), BlockActs::ZERO);
        self.floats.resize(length(forms.floats, SPAN) * SPAN, 0.0);
    }

    /// Bytes that `rows` rows of `k` values take in `forms`.
    pub(crate) fn bytes(rows: usize, k: usize, forms: Forms) -> usize {
        let mut bytes = 0;
        if forms.supers {
            bytes += rows * k.div_ceil(SUPER) * size_of::<SuperActs>();
        }
        if forms.blocks {
            bytes += rows * k.div_ceil(SPAN) * size_of::<BlockActs>();
        }
        if forms.floats {
            bytes += rows * k.next_multiple_of(SPAN) * 4;
        }
        bytes
    }
}

/// Quantises the 32 `LANES`-multiples values at `x`: the scale, and the values divided by it.
///
/// `d = max |x| / 127`; values are rounded to the nearest, ties to even. A value that is no number makes `d` none.
#[inline(always)]
unsafe fn quantise<S: Simd, const N: usize>(s: S, x: *const f32, q: *mut i8) -> f32 {
    // SAFETY: the caller gives N values at `x` and room for N at `q`; N is a multiple of 16.
    unsafe {
        let mut greatest = s.splat(0.0);
        let mut poison = s.splat(0.0);
        for i in 0..N / LANES {
            let v = s.load(x.add(i * LANES));
            greatest = s.max(s.abs(v), greatest);
            poison = s.fma(v, s.splat(0.0), poison);
        }
        let greatest = s.greatest(greatest);
        let (d, inverse) = if greatest > LEAST { (greatest / 127.0, 127.0 / greatest) } else { (0.0, 0.0) };
        let inverse = s.splat(inverse);
        for i in 0..N / LANES {
            let v = s.mul(s.load(x.add(i * LANES)), inverse);
            s.store_i8(s.to_i(v), q.add(i * LANES));
        }
        d + s.sum(poison)
    }
}

/// Quantises 256 values.
#[inline(always)]
pub(super) unsafe fn quantise_super<S: Simd>(s: S, x: *const f32, to: &mut SuperActs) {
    // SAFETY: the caller gives 256 values.
    unsafe {
        to.d = quantise::<S, SUPER>(s, x, to.q.as_mut_ptr());
    }
    let mut greatest = 0;
    for ((sum, middle), q) in to.sums16.iter_mut().zip(&mut to.middle6).zip(to.q.as_chunks::<16>().0) {
        *sum = q.iter().map(|&q| i16::from(q)).sum();
        *middle = sum.wrapping_mul(-32);
        greatest = q.iter().map(|&q| i16::from(q).abs()).sum::<i16>().max(greatest);
    }
    for ((sum, middle), pair) in to.sums32.iter_mut().zip(&mut to.middle5).zip(to.sums16.as_chunks::<2>().0) {
        *sum = pair[0] + pair[1];
        *middle = sum.wrapping_mul(-16);
    }
    to.is_mild = greatest <= MILD;
}

/// Quantises 64 values, in two blocks.
#[inline(always)]
pub(super) unsafe fn quantise_blocks<S: Simd>(s: S, x: *const f32, to: &mut BlockActs) {
    for block in 0..2 {
        let q = to.q.as_mut_ptr().wrapping_add(block * BLOCK);
        // SAFETY: the caller gives 64 values; `q` is half of 64.
        to.d[block] = unsafe { quantise::<S, BLOCK>(s, x.add(block * BLOCK), q) };
        to.sums[block] = to.q[block * BLOCK..][..BLOCK].iter().map(|&q| i32::from(q)).sum();
        to.dsums[block] = to.d[block] * to.sums[block] as f32;
    }
}
