//! AVX-512: one register per vector.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::expf::{LOW, PARTS, PARTS_PER_E, POLYNOMIAL, SHIFT, TABLE, TO_EXPONENT};
use super::{LANES, Op, Simd};

/// Proof of AVX-512 F, BW, VL and VNNI, AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx512 {
    in_halves: bool,
}

/// Runs `op` with 512-bit vectors, on a CPU that takes them in halves or at once.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn run<O: Op>(op: O, in_halves: bool) -> O::Out {
    op.run(Avx512 { in_halves })
}

/// Wraps one intrinsic, or a few, for which the value's existence is enough.
macro_rules! safe {
    ($($body:tt)*) => {
        // SAFETY: `Avx512` exists only where the CPU has the features; no memory is touched.
        unsafe { $($body)* }
    };
}
/// Wraps reads and writes.
macro_rules! memory {
    ($($body:tt)*) => {
        // SAFETY: the features are there, as in `safe`; the caller promised that the memory is.
        unsafe { $($body)* }
    };
}
/// Shifts 16-bit lanes by a const parameter of another type than the intrinsic's.
macro_rules! shift {
    ($name:ident, $a:expr, $n:expr) => {
        match $n {
            1 => $name::<1>($a),
            2 => $name::<2>($a),
            3 => $name::<3>($a),
            4 => $name::<4>($a),
            5 => $name::<5>($a),
            _ => $name::<6>($a),
        }
    };
}

/// [`super::expf::expf`] of 8 numbers, none of them below [`LOW`].
#[inline(always)]
unsafe fn exp_half(x: __m256) -> __m256 {
    let all = |x: f64| safe!(_mm512_set1_pd(x));
    let eight =
        |i: usize| memory!(_mm512_castsi512_pd(_mm512_loadu_si512(TABLE[8 * i..8 * i + 8].as_ptr().cast())));
    safe!({
        let x = _mm512_cvtps_pd(x);
        let shifted = _mm512_fmadd_pd(x, all(PARTS_PER_E), all(SHIFT));
        let bits = _mm512_castpd_si512(shifted);
        let r = _mm512_fmsub_pd(x, all(PARTS_PER_E), _mm512_sub_pd(shifted, all(SHIFT)));
        // A permutation looks at the four lowest bits of an index.
        let low = _mm512_permutex2var_pd(eight(0), bits, eight(1));
        let high = _mm512_permutex2var_pd(eight(2), bits, eight(3));
        let is_high = _mm512_test_epi64_mask(bits, _mm512_set1_epi64(PARTS as i64 / 2));
        let entry = _mm512_castpd_si512(_mm512_mask_mov_pd(low, is_high, high));
        let power = _mm512_castsi512_pd(_mm512_add_epi64(entry, _mm512_slli_epi64::<TO_EXPONENT>(bits)));
        let high = _mm512_fmadd_pd(all(POLYNOMIAL[0]), r, all(POLYNOMIAL[1]));
        let low = _mm512_fmadd_pd(all(POLYNOMIAL[2]), r, all(1.0));
        _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_fmadd_pd(high, _mm512_mul_pd(r, r), low), power))
    })
}

/// `vpdpwssd`. Not the intrinsic: the compiler puts a product and a sum in its place where it takes them to be quicker, which is
/// twice the work.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_pairs(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the instruction is one of the function's features, and touches no memory.
    unsafe {
        asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// `acc`, in a register: for the compiler, an instruction that may do anything with it and with memory.
#[inline]
#[target_feature(enable = "avx512f")]
fn settle(mut acc: __m512i) -> __m512i {
    // SAFETY: there is no instruction.
    unsafe { asm!("/* {acc} */", acc = inout(zmm_reg) acc, options(nostack, preserves_flags)) }
    acc
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    type A = __m512i;
    type Dot = __m512i;
    type Wide = __m512i;

    const SUMS: usize = 24;
    const WIDE_SUMS: usize = 24;
    const WIDE_LIMIT: usize = usize::MAX;

    /// One instruction then multiplies and adds, where `vpmulld` alone is two.
    const SHORT: bool = true;

    #[inline(always)]
    fn in_halves(self) -> bool {
        self.in_halves
    }
    #[inline(always)]
    fn dot_limit(_: usize) -> usize {
        usize::MAX
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        safe!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        memory!(_mm512_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn store(self, x: __m512, to: *mut f32) {
        memory!(_mm512_storeu_ps(to, x))
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        memory!(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
    }
    #[inline(always)]
    unsafe fn store_f16(self, x: __m512, to: *mut u16) {
        memory!(_mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        memory!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
            from.cast()
        )))))
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> __m512i {
        memory!(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> __m512i {
        memory!(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn store_i8(self, x: __m512i, to: *mut i8) {
        memory!(_mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(x)))
    }
    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> __m512i {
        memory!(_mm512_loadu_si512(from.cast()))
    }
    #[inline(always)]
    unsafe fn store_i(self, x: __m512i, to: *mut i32) {
        memory!(_mm512_storeu_si512(to.cast(), x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        safe!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        safe!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        safe!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        safe!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn to_i(self, a: __m512) -> __m512i {
        safe!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn to_f(self, a: __m512i) -> __m512 {
        safe!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn pow2(self, n: __m512i) -> __m512 {
        safe!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)))))
    }
    #[inline(always)]
    fn first(self, n: usize, x: __m512, y: __m512) -> __m512 {
        let mask = if n >= LANES { u16::MAX } else { (1u16 << n) - 1 };
        safe!(_mm512_mask_mov_ps(y, mask, x))
    }
    #[inline(always)]
    fn unless_below(self, x: __m512, limit: __m512, y: __m512) -> __m512 {
        safe!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), y))
    }
    #[inline(always)]
    fn expf(self, x: __m512) -> __m512 {
        let x = self.max(x, self.splat(LOW));
        safe!({
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
            let low = _mm512_castps256_ps512(exp_half(_mm512_castps512_ps256(x)));
            let high = _mm256_castps_pd(exp_half(high));
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(low), high))
        })
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        safe!({
            let a = _mm256_add_ps(
                _mm512_castps512_ps256(a),
                _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a))),
            );
            super::avx2::sum_ymm(a)
        })
    }
    #[inline(always)]
    fn greatest(self, a: __m512) -> f32 {
        safe!({
            let a = _mm256_max_ps(
                _mm512_castps512_ps256(a),
                _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a))),
            );
            super::avx2::greatest_ymm(a)
        })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        safe!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        safe!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i(self, a: __m512i, b: __m512i) -> __m512i {
        safe!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn mul_i(self, a: __m512i, b: __m512i) -> __m512i {
        safe!(_mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn pair(self, low: __m512i, high: __m512i) -> __m512i {
        safe!(_mm512_mask_blend_epi16(0xaaaa_aaaa, low, _mm512_slli_epi32::<16>(high)))
    }
    #[inline(always)]
    fn dot_pairs(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        safe!(dot_pairs(acc, a, b))
    }

    #[inline(always)]
    unsafe fn load_b(self, from: *const u8) -> __m512i {
        memory!(_mm512_loadu_si512(from.cast()))
    }
    #[inline(always)]
    unsafe fn store_b(self, x: __m512i, to: *mut u8) {
        memory!(_mm512_storeu_si512(to.cast(), x))
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> __m512i {
        safe!(_mm512_set1_epi8(x.cast_signed()))
    }
    #[inline(always)]
    fn and_b(self, a: __m512i, b: __m512i) -> __m512i {
        safe!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or_b(self, a: __m512i, b: __m512i) -> __m512i {
        safe!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shr_b<const N: u32>(self, a: __m512i, mask: __m512i) -> __m512i {
        safe!(_mm512_and_si512(shift!(_mm512_srli_epi16, a, N), mask))
    }
    #[inline(always)]
    fn shl_b<const N: u32>(self, a: __m512i, mask: __m512i) -> __m512i {
        safe!(_mm512_and_si512(shift!(_mm512_slli_epi16, a, N), mask))
    }

    #[inline(always)]
    unsafe fn splat4(self, from: *const i8) -> __m512i {
        memory!(_mm512_set1_epi32(from.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    fn dot_zero(self) -> __m512i {
        safe!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn dot_from(self, x: i32) -> __m512i {
        self.splat_i(x)
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        safe!(_mm512_dpbusd_epi32(acc, w, a))
    }
    #[inline(always)]
    fn scale(self, scale: __m512i) -> __m512i {
        // Zero above it, so that the upper half of a short sum does not count.
        safe!(_mm512_and_si512(scale, _mm512_set1_epi32(0xffff)))
    }
    #[inline(always)]
    fn drain(self, total: __m512i, acc: __m512i, scale: __m512i) -> __m512i {
        let scale = safe!(_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(scale)));
        self.add_i(total, self.mul_i(acc, scale))
    }
    #[inline(always)]
    fn drain_short(self, total: __m512i, acc: __m512i, scale: __m512i) -> __m512i {
        self.dot_pairs(total, acc, scale)
    }
    #[inline(always)]
    fn settle(self, acc: __m512i) -> __m512i {
        safe!(settle(acc))
    }
    #[inline(always)]
    fn dot_sum(self, acc: __m512i) -> __m512i {
        acc
    }
    #[inline(always)]
    fn wide_zero(self) -> __m512i {
        self.dot_zero()
    }
    #[inline(always)]
    fn wide_dot(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        self.dot(acc, w, a)
    }
    #[inline(always)]
    fn wide_drain(self, total: __m512i, acc: __m512i, scale: __m512i) -> __m512i {
        self.drain(total, acc, scale)
    }
    #[inline(always)]
    fn wide_sum(self, acc: __m512i) -> __m512i {
        acc
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        safe!(_mm_prefetch::<_MM_HINT_T0>(at.cast()))
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        safe!(_mm_prefetch::<_MM_HINT_T1>(at.cast()))
    }
}
