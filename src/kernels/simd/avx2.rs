//! AVX2 with FMA and F16C: two registers per vector. AVX-VNNI shares everything but the dot products.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::expf::{LOW, PARTS, PARTS_PER_E, POLYNOMIAL, SHIFT, TABLE, TO_EXPONENT};
use super::{Op, Simd};

/// Proof of AVX2, FMA and F16C, and of what `D` needs.
#[derive(Clone, Copy)]
pub(super) struct Ymm<D>(PhantomData<D>);

/// Products of unsigned and signed bytes, on one register.
pub(super) trait Dots: Copy {
    /// Sums of one register, for weights of at most 6 bits.
    type Dot: Copy;
    /// Sums of one register, for weights of 8 bits.
    type Wide: Copy;
    /// Of `Simd`, as the next.
    const WIDE_SUMS: usize;
    const WIDE_LIMIT: usize;
    fn limit(bits: usize) -> usize;
    fn zero() -> Self::Dot;
    fn dot(acc: Self::Dot, w: __m256i, a: __m256i) -> Self::Dot;
    fn scale(scale: __m256i) -> __m256i;
    fn drain(total: __m256i, acc: Self::Dot, scale: __m256i) -> __m256i;
    fn sum(acc: Self::Dot) -> __m256i;
    fn wide_zero() -> Self::Wide;
    fn wide_dot(acc: Self::Wide, w: __m256i, a: __m256i) -> Self::Wide;
    fn wide_drain(total: __m256i, acc: Self::Wide, scale: __m256i) -> __m256i;
    fn wide_sum(acc: Self::Wide) -> __m256i;
    fn pairs(acc: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// `vpmaddubsw`: sums in pairs of i16, which bounds how many may be added up.
#[derive(Clone, Copy)]
pub(super) struct Maddubs;

/// `vpdpbusd` and `vpdpwssd` of AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct Vnni;

/// The same two, as AVX-512 VL encodes them: lets a CPU with AVX-512 but no AVX-VNNI test that tier.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(super) struct EvexVnni;

/// Runs `op` with 256-bit vectors.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<O: Op>(op: O) -> O::Out {
    op.run(Ymm::<Maddubs>(PhantomData))
}

/// Runs `op` with 256-bit vectors and AVX-VNNI.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn run_vnni<O: Op>(op: O) -> O::Out {
    op.run(Ymm::<Vnni>(PhantomData))
}

/// Runs `op` as [`run_vnni`] does, on a CPU with AVX-512 VL and VNNI.
///
/// # Safety
/// The CPU has the features.
#[cfg(test)]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
pub(super) unsafe fn run_evex_vnni<O: Op>(op: O) -> O::Out {
    op.run(Ymm::<EvexVnni>(PhantomData))
}

/// Wraps intrinsics for which the value's existence is enough.
macro_rules! safe {
    ($($body:tt)*) => {
        // SAFETY: `Ymm` exists only where the CPU has the features, and so do calls of `Dots`; no memory is touched.
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

/// Sum of 8 lanes, by halves.
#[inline(always)]
pub(super) unsafe fn sum_ymm(a: __m256) -> f32 {
    safe!({
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    })
}

/// Greatest of 8 lanes, by halves.
#[inline(always)]
pub(super) unsafe fn greatest_ymm(a: __m256) -> f32 {
    safe!({
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
    })
}

/// [`super::expf::expf`] of 4 numbers, none of them below [`LOW`].
#[inline(always)]
unsafe fn exp_quarter(x: __m128) -> __m128 {
    let all = |x: f64| safe!(_mm256_set1_pd(x));
    safe!({
        let x = _mm256_cvtps_pd(x);
        let shifted = _mm256_fmadd_pd(x, all(PARTS_PER_E), all(SHIFT));
        let bits = _mm256_castpd_si256(shifted);
        let r = _mm256_fmsub_pd(x, all(PARTS_PER_E), _mm256_sub_pd(shifted, all(SHIFT)));
        let place = _mm256_and_si256(bits, _mm256_set1_epi64x(PARTS as i64 - 1));
        // The places are inside the table, whose entries have 8 bytes.
        let entry = _mm256_i64gather_epi64::<8>(TABLE.as_ptr().cast(), place);
        let power =
            _mm256_castsi256_pd(_mm256_add_epi64(entry, _mm256_slli_epi64::<{ TO_EXPONENT as i32 }>(bits)));
        let high = _mm256_fmadd_pd(all(POLYNOMIAL[0]), r, all(POLYNOMIAL[1]));
        let low = _mm256_fmadd_pd(all(POLYNOMIAL[2]), r, all(1.0));
        _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_fmadd_pd(high, _mm256_mul_pd(r, r), low), power))
    })
}

/// [`super::expf::expf`] of 8 numbers, none of them below [`LOW`].
#[inline(always)]
unsafe fn exp_ymm(x: __m256) -> __m256 {
    safe!({
        let low = exp_quarter(_mm256_castps256_ps128(x));
        _mm256_set_m128(exp_quarter(_mm256_extractf128_ps::<1>(x)), low)
    })
}

impl Dots for Maddubs {
    type Dot = __m256i;
    /// The sums of the low and of the high four bits.
    type Wide = (__m256i, __m256i);

    const WIDE_SUMS: usize = 2;
    /// Two products of at most 15 * 127 per call must stay below 2^15.
    const WIDE_LIMIT: usize = 8;

    #[inline(always)]
    fn limit(bits: usize) -> usize {
        // Two products of at most (2^bits - 1) * 127 per call must stay below 2^15.
        match bits {
            4 => 8,
            5 => 4,
            _ => 2,
        }
    }
    #[inline(always)]
    fn zero() -> __m256i {
        safe!(_mm256_setzero_si256())
    }
    #[inline(always)]
    fn dot(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        safe!(_mm256_add_epi16(acc, _mm256_maddubs_epi16(w, a)))
    }
    #[inline(always)]
    fn scale(scale: __m256i) -> __m256i {
        // The same i16 twice, for `vpmaddwd`.
        safe!(_mm256_blend_epi16::<0b1010_1010>(scale, _mm256_slli_epi32::<16>(scale)))
    }
    #[inline(always)]
    fn drain(total: __m256i, acc: __m256i, scale: __m256i) -> __m256i {
        safe!(_mm256_add_epi32(total, _mm256_madd_epi16(acc, scale)))
    }
    #[inline(always)]
    fn sum(acc: __m256i) -> __m256i {
        safe!(_mm256_madd_epi16(acc, _mm256_set1_epi16(1)))
    }
    #[inline(always)]
    fn wide_zero() -> Self::Wide {
        (Self::zero(), Self::zero())
    }
    #[inline(always)]
    fn wide_dot((low, high): Self::Wide, w: __m256i, a: __m256i) -> Self::Wide {
        safe!({
            let mask = _mm256_set1_epi8(15);
            let top = _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask);
            (Self::dot(low, _mm256_and_si256(w, mask), a), Self::dot(high, top, a))
        })
    }
    #[inline(always)]
    fn wide_drain(total: __m256i, (low, high): Self::Wide, scale: __m256i) -> __m256i {
        safe!({
            let high = _mm256_slli_epi32::<4>(_mm256_madd_epi16(high, scale));
            Self::drain(_mm256_add_epi32(total, high), low, scale)
        })
    }
    #[inline(always)]
    fn wide_sum((low, high): Self::Wide) -> __m256i {
        safe!(_mm256_add_epi32(Self::sum(low), _mm256_slli_epi32::<4>(Self::sum(high))))
    }
    #[inline(always)]
    fn pairs(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        safe!(_mm256_add_epi32(acc, _mm256_madd_epi16(a, b)))
    }
}

macro_rules! vnni {
    ($name:ident, $bytes:ident, $words:ident) => {
        impl Dots for $name {
            type Dot = __m256i;
            type Wide = __m256i;

            const WIDE_SUMS: usize = 6;
            const WIDE_LIMIT: usize = usize::MAX;

            #[inline(always)]
            fn limit(_: usize) -> usize {
                usize::MAX
            }
            #[inline(always)]
            fn zero() -> __m256i {
                safe!(_mm256_setzero_si256())
            }
            #[inline(always)]
            fn dot(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
                safe!($bytes(acc, w, a))
            }
            #[inline(always)]
            fn scale(scale: __m256i) -> __m256i {
                scale
            }
            #[inline(always)]
            fn drain(total: __m256i, acc: __m256i, scale: __m256i) -> __m256i {
                safe!(_mm256_add_epi32(total, _mm256_mullo_epi32(acc, scale)))
            }
            #[inline(always)]
            fn sum(acc: __m256i) -> __m256i {
                acc
            }
            #[inline(always)]
            fn wide_zero() -> __m256i {
                Self::zero()
            }
            #[inline(always)]
            fn wide_dot(acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
                Self::dot(acc, w, a)
            }
            #[inline(always)]
            fn wide_drain(total: __m256i, acc: __m256i, scale: __m256i) -> __m256i {
                Self::drain(total, acc, scale)
            }
            #[inline(always)]
            fn wide_sum(acc: __m256i) -> __m256i {
                acc
            }
            #[inline(always)]
            fn pairs(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
                safe!($words(acc, a, b))
            }
        }
    };
}

vnni!(Vnni, _mm256_dpbusd_avx_epi32, _mm256_dpwssd_avx_epi32);
#[cfg(test)]
vnni!(EvexVnni, _mm256_dpbusd_epi32, _mm256_dpwssd_epi32);

/// One intrinsic on both registers.
macro_rules! both {
    ($name:ident, $a:expr) => {{
        let a = $a;
        safe!([$name(a[0]), $name(a[1])])
    }};
    ($name:ident, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        safe!([$name(a[0], b[0]), $name(a[1], b[1])])
    }};
    ($name:ident, $a:expr, $b:expr, $c:expr) => {{
        let (a, b, c) = ($a, $b, $c);
        safe!([$name(a[0], b[0], c[0]), $name(a[1], b[1], c[1])])
    }};
}

impl<D: Dots> Simd for Ymm<D> {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    type B = [__m256i; 2];
    type A = __m256i;
    type Dot = [D::Dot; 2];
    type Wide = [D::Wide; 2];

    const SUMS: usize = 6;
    const WIDE_SUMS: usize = D::WIDE_SUMS;
    const WIDE_LIMIT: usize = D::WIDE_LIMIT;

    #[inline(always)]
    fn dot_limit(bits: usize) -> usize {
        D::limit(bits)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        safe!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        memory!([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))])
    }
    #[inline(always)]
    unsafe fn store(self, x: Self::F, to: *mut f32) {
        memory!({
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        memory!([
            _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))
        ])
    }
    #[inline(always)]
    unsafe fn store_f16(self, x: Self::F, to: *mut u16) {
        memory!({
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x[0]));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x[1]));
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        memory!({
            let wide = |at: *const u16| {
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(
                    at.cast(),
                ))))
            };
            [wide(from), wide(from.add(8))]
        })
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        memory!([
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast()))
        ])
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        memory!([
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast()))
        ])
    }
    #[inline(always)]
    unsafe fn store_i8(self, x: Self::I, to: *mut i8) {
        memory!({
            // The lowest byte of each lane to the front of its half.
            let order = _mm256_set1_epi32(0x0c08_0400);
            let front = |x: __m256i| {
                let bytes = _mm256_shuffle_epi8(x, order);
                let low = _mm256_castsi256_si128(bytes);
                _mm_unpacklo_epi32(low, _mm256_extracti128_si256::<1>(bytes))
            };
            _mm_storeu_si128(to.cast(), _mm_unpacklo_epi64(front(x[0]), front(x[1])));
        })
    }
    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> Self::I {
        memory!([_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())])
    }
    #[inline(always)]
    unsafe fn store_i(self, x: Self::I, to: *mut i32) {
        memory!({
            _mm256_storeu_si256(to.cast(), x[0]);
            _mm256_storeu_si256(to.add(8).cast(), x[1]);
        })
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fnmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        both!(_mm256_andnot_ps, safe!([_mm256_set1_ps(-0.0); 2]), a)
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        both!(_mm256_cvtps_epi32, a)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps, a)
    }
    #[inline(always)]
    fn pow2(self, n: Self::I) -> Self::F {
        let one = |n: __m256i| {
            safe!(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))))
        };
        [one(n[0]), one(n[1])]
    }
    #[inline(always)]
    fn first(self, n: usize, x: Self::F, y: Self::F) -> Self::F {
        safe!({
            let n = _mm256_set1_epi32(n.min(16) as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
            let pick = |at, x, y| _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(n, at)));
            [pick(low, x[0], y[0]), pick(high, x[1], y[1])]
        })
    }
    #[inline(always)]
    fn unless_below(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F {
        let one = |x, limit, y| safe!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, limit), y));
        [one(x[0], limit[0], y[0]), one(x[1], limit[1], y[1])]
    }
    #[inline(always)]
    fn expf(self, x: Self::F) -> Self::F {
        let x = self.max(x, self.splat(LOW));
        both!(exp_ymm, x)
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        safe!(sum_ymm(_mm256_add_ps(a[0], a[1])))
    }
    #[inline(always)]
    fn greatest(self, a: Self::F) -> f32 {
        safe!(greatest_ymm(_mm256_max_ps(a[0], a[1])))
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        safe!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_sub_epi32, a, b)
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_mullo_epi32, a, b)
    }
    #[inline(always)]
    fn pair(self, low: Self::I, high: Self::I) -> Self::I {
        let one = |low, high| safe!(_mm256_blend_epi16::<0b1010_1010>(low, _mm256_slli_epi32::<16>(high)));
        [one(low[0], high[0]), one(low[1], high[1])]
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        [D::pairs(acc[0], a[0], b[0]), D::pairs(acc[1], a[1], b[1])]
    }

    #[inline(always)]
    unsafe fn load_b(self, from: *const u8) -> Self::B {
        memory!([_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())])
    }
    #[inline(always)]
    unsafe fn store_b(self, x: Self::B, to: *mut u8) {
        memory!({
            _mm256_storeu_si256(to.cast(), x[0]);
            _mm256_storeu_si256(to.add(32).cast(), x[1]);
        })
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> Self::B {
        safe!([_mm256_set1_epi8(x.cast_signed()); 2])
    }
    #[inline(always)]
    fn and_b(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_and_si256, a, b)
    }
    #[inline(always)]
    fn or_b(self, a: Self::B, b: Self::B) -> Self::B {
        both!(_mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn shr_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B {
        let one = |a: __m256i, mask| safe!(_mm256_and_si256(shift!(_mm256_srli_epi16, a, N), mask));
        [one(a[0], mask[0]), one(a[1], mask[1])]
    }
    #[inline(always)]
    fn shl_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B {
        let one = |a: __m256i, mask| safe!(_mm256_and_si256(shift!(_mm256_slli_epi16, a, N), mask));
        [one(a[0], mask[0]), one(a[1], mask[1])]
    }

    #[inline(always)]
    unsafe fn splat4(self, from: *const i8) -> __m256i {
        memory!(_mm256_set1_epi32(from.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    fn dot_zero(self) -> Self::Dot {
        [D::zero(); 2]
    }
    #[inline(always)]
    fn dot(self, acc: Self::Dot, w: Self::B, a: __m256i) -> Self::Dot {
        [D::dot(acc[0], w[0], a), D::dot(acc[1], w[1], a)]
    }
    #[inline(always)]
    fn scale(self, scale: Self::I) -> Self::I {
        [D::scale(scale[0]), D::scale(scale[1])]
    }
    #[inline(always)]
    fn drain(self, total: Self::I, acc: Self::Dot, scale: Self::I) -> Self::I {
        [D::drain(total[0], acc[0], scale[0]), D::drain(total[1], acc[1], scale[1])]
    }
    #[inline(always)]
    fn dot_sum(self, acc: Self::Dot) -> Self::I {
        [D::sum(acc[0]), D::sum(acc[1])]
    }
    #[inline(always)]
    fn wide_zero(self) -> Self::Wide {
        [D::wide_zero(); 2]
    }
    #[inline(always)]
    fn wide_dot(self, acc: Self::Wide, w: Self::B, a: __m256i) -> Self::Wide {
        [D::wide_dot(acc[0], w[0], a), D::wide_dot(acc[1], w[1], a)]
    }
    #[inline(always)]
    fn wide_drain(self, total: Self::I, acc: Self::Wide, scale: Self::I) -> Self::I {
        [D::wide_drain(total[0], acc[0], scale[0]), D::wide_drain(total[1], acc[1], scale[1])]
    }
    #[inline(always)]
    fn wide_sum(self, acc: Self::Wide) -> Self::I {
        [D::wide_sum(acc[0]), D::wide_sum(acc[1])]
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
