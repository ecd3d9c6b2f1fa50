//! Vectors of one width for every tier of instructions, so that each kernel is written once.
//!
//! A kernel is an [`Op`]: code that is generic over [`Simd`] and always inlined. [`dispatch`] runs it inside a function that
//! the compiler may fill with the tier's instructions. All tiers have the same 16 lanes and the same operations, each rounded
//! once, so a kernel gives the same bits on every CPU.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod expf;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod slices;
#[cfg(test)]
mod tests;
mod tier;

use std::sync::atomic::{Ordering, compiler_fence};

pub(crate) use slices::{load_some, store_some};
pub(crate) use tier::{Op, Tier, dispatch, dispatch_best};

/// Lanes of a vector of numbers.
pub(crate) const LANES: usize = 16;
/// Bytes of a vector of weights: four of each lane.
pub(crate) const BYTES: usize = 64;

/// Vectors of 16 lanes and what can be done with them.
///
/// A value of the type is proof that the CPU has the instructions: only [`dispatch`] makes one. Pointers need no alignment.
pub(crate) trait Simd: Copy {
    /// 16 x f32.
    type F: Copy;
    /// 16 x i32, or 16 pairs of i16.
    type I: Copy;
    /// 64 bytes: in lane `l`, bytes `4 l` to `4 l + 3`.
    type B: Copy;
    /// Four i8, in every lane.
    type A: Copy;
    /// Sums of products of bytes with at most 6 bits and i8, before they are scaled.
    type Dot: Copy;
    /// The same for bytes of 8 bits.
    type Wide: Copy;

    /// Vectors of sums that stay in registers beside the operands that are added to them.
    const SUMS: usize;
    /// The same for [`Simd::Wide`].
    const WIDE_SUMS: usize;
    /// Calls of [`Simd::wide_dot`] that may be summed before [`Simd::wide_sum`] or [`Simd::wide_drain`]: at least 8.
    const WIDE_LIMIT: usize;

    /// Whether [`Simd::drain_short`] is quicker than [`Simd::drain`].
    const SHORT: bool = false;

    /// Whether the CPU takes a vector in two halves where others have units of its width: writing one then takes twice as long.
    #[inline(always)]
    fn in_halves(self) -> bool {
        false
    }

    /// Calls of [`Simd::dot`] with weights of `bits` bits (4, 5 or 6) that may be summed before [`Simd::drain`].
    fn dot_limit(bits: usize) -> usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// Reads 16 values.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// Writes 16 values.
    ///
    /// # Safety
    /// 16 values can be written at `to`.
    unsafe fn store(self, x: Self::F, to: *mut f32);
    /// Reads 16 values of half precision.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load_f16(self, from: *const u16) -> Self::F;
    /// Writes 16 values in half precision, rounded to the nearest, ties to even.
    ///
    /// # Safety
    /// 16 values can be written at `to`.
    unsafe fn store_f16(self, x: Self::F, to: *mut u16);
    /// Reads 16 values of bfloat16.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    /// Reads 16 x i8 into 16 x i32.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load_i8(self, from: *const i8) -> Self::I;
    /// Reads 16 x u8 into 16 x i32.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load_u8(self, from: *const u8) -> Self::I;
    /// Writes the lowest byte of each lane.
    ///
    /// # Safety
    /// 16 values can be written at `to`.
    unsafe fn store_i8(self, x: Self::I, to: *mut i8);
    /// Reads 16 x i32.
    ///
    /// # Safety
    /// 16 values can be read at `from`.
    unsafe fn load_i(self, from: *const i32) -> Self::I;
    /// Writes 16 x i32.
    ///
    /// # Safety
    /// 16 values can be written at `to`.
    unsafe fn store_i(self, x: Self::I, to: *mut i32);

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a` where it is greater than `b`, else `b`; so `b` where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where it is less than `b`, else `b`; so `b` where either is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Without the sign.
    fn abs(self, a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even; values must fit into i32.
    fn to_i(self, a: Self::F) -> Self::I;
    /// Rounded to the nearest f32.
    fn to_f(self, a: Self::I) -> Self::F;
    /// Two to the power of `n`, for -126 <= `n` <= 127.
    fn pow2(self, n: Self::I) -> Self::F;
    /// `x` in the lanes before `n`, `y` in the others.
    fn first(self, n: usize, x: Self::F, y: Self::F) -> Self::F;
    /// Zero in the lanes where `x` is less than `limit`, `y` in the others; so `y` where either is not a number.
    fn unless_below(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F;
    /// `e^x` for `x` <= 0, with the bits of glibc's `expf` where that has FMA: at most 0.502 units in the last place off. 0 for what
    /// is not a number.
    #[inline(always)]
    fn expf(self, x: Self::F) -> Self::F {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has 16 numbers.
        unsafe { self.store(x, lanes.as_mut_ptr()) };
        lanes = lanes.map(expf::expf);
        // SAFETY: as above.
        unsafe { self.load(lanes.as_ptr()) }
    }
    /// Sum of the lanes: halves added to each other, 8, 4, 2, 1.
    fn sum(self, a: Self::F) -> f32;
    /// Greatest lane, by [`Simd::max`] of halves.
    fn greatest(self, a: Self::F) -> f32;

    /// `x` in every lane.
    fn splat_i(self, x: i32) -> Self::I;
    /// `a + b`, wrapping.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a - b`, wrapping.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// The low 32 bits of `a * b`.
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// The low i16 of each lane of `low`, and above it that of `high`.
    fn pair(self, low: Self::I, high: Self::I) -> Self::I;
    /// `acc` + both products of the i16 pairs of each lane.
    fn dot_pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// Reads 64 bytes.
    ///
    /// # Safety
    /// 64 bytes can be read at `from`.
    unsafe fn load_b(self, from: *const u8) -> Self::B;
    /// Writes 64 bytes.
    ///
    /// # Safety
    /// 64 bytes can be written at `to`.
    unsafe fn store_b(self, x: Self::B, to: *mut u8);
    /// `x` in all 64 bytes.
    fn splat_b(self, x: u8) -> Self::B;
    /// Bits of both.
    fn and_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bits of either.
    fn or_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bytes shifted right by `N` (1 to 6), then `mask`, which must not have the `N` highest bits.
    fn shr_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B;
    /// Bytes shifted left by `N` (1 to 6), then `mask`, which must not have the `N` lowest bits.
    fn shl_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B;

    /// Reads four i8 into every lane.
    ///
    /// # Safety
    /// 4 bytes can be read at `from`.
    unsafe fn splat4(self, from: *const i8) -> Self::A;
    /// No sum yet.
    fn dot_zero(self) -> Self::Dot;
    /// A sum that begins at `x`, where sums may be [short](Simd::SHORT), and else no sum yet.
    #[inline(always)]
    fn dot_from(self, _x: i32) -> Self::Dot {
        self.dot_zero()
    }
    /// Adds the four products of each lane: bytes with at most 6 bits, times i8. See [`Simd::dot_limit`].
    fn dot(self, acc: Self::Dot, w: Self::B, a: Self::A) -> Self::Dot;
    /// What [`Simd::drain`] and [`Simd::wide_drain`] want of a scale that fits into i16.
    fn scale(self, scale: Self::I) -> Self::I;
    /// `total + acc * scale`.
    fn drain(self, total: Self::I, acc: Self::Dot, scale: Self::I) -> Self::I;
    /// The same for sums that fit into i16; what else is in them does not count.
    #[inline(always)]
    fn drain_short(self, total: Self::I, acc: Self::Dot, scale: Self::I) -> Self::I {
        self.drain(total, acc, scale)
    }
    /// A sum that is complete here: the compiler would put off what is wanted later, and keep all that it is computed from.
    #[inline(always)]
    fn settle(self, acc: Self::Dot) -> Self::Dot {
        acc
    }
    /// The sums as they are.
    fn dot_sum(self, acc: Self::Dot) -> Self::I;
    /// No sum yet.
    fn wide_zero(self) -> Self::Wide;
    /// Adds the four products of each lane: bytes times i8. See [`Simd::WIDE_LIMIT`].
    fn wide_dot(self, acc: Self::Wide, w: Self::B, a: Self::A) -> Self::Wide;
    /// `total + acc * scale`.
    fn wide_drain(self, total: Self::I, acc: Self::Wide, scale: Self::I) -> Self::I;
    /// The sums as they are.
    fn wide_sum(self, acc: Self::Wide) -> Self::I;

    /// Asks for the cache line at `at`, which need not exist.
    fn prefetch(self, at: *const u8);
    /// The same, into the second-level cache, which waits for more lines at once than the first: for what is read once.
    fn prefetch_far(self, at: *const u8);
}

/// Keeps the compiler from moving loads and stores past this place; it costs nothing itself. In code without a loop the compiler
/// would load first what is needed last, and run out of registers.
#[inline(always)]
pub(crate) fn keep_order() {
    compiler_fence(Ordering::SeqCst);
}
