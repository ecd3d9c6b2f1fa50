//! NEON: four registers per vector. The tiers differ in the dot products alone.
//!
//! What Rust has no stable intrinsics for (dot products, conversions of half precision, prefetches) is one line of assembly.
//! NEON itself is part of every aarch64 target.

#![allow(
    clippy::inline_always,
    reason = "a function without the tier's features must vanish into one that has them"
)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::{LANES, Op, Simd};

/// Proof of NEON, and of what `D` needs.
#[derive(Clone, Copy)]
pub(super) struct Quad<D>(PhantomData<D>);

/// Four registers of sums.
type Sums = [int32x4_t; 4];

/// Products of bytes. An implementation is used only where the CPU has the features: [`Quad`] is the proof.
pub(super) trait Dots: Copy {
    /// Sums of one vector, for weights of 8 bits.
    type Wide: Copy;
    /// Of `Simd`.
    const WIDE_SUMS: usize;
    /// Adds the four products of each lane, both factors signed, `a` at least -127.
    fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t;
    fn wide_zero() -> Self::Wide;
    fn wide_dot(acc: Self::Wide, w: [uint8x16_t; 4], a: int8x16_t) -> Self::Wide;
    fn wide_sum(acc: Self::Wide) -> Sums;
}

/// `smull` and pairwise sums: plain NEON.
#[derive(Clone, Copy)]
pub(super) struct Mull;

/// `sdot`.
#[derive(Clone, Copy)]
pub(super) struct Sdot;

/// `sdot`, and `usdot` for weights of 8 bits.
#[derive(Clone, Copy)]
pub(super) struct Usdot;

/// Sums of products with bytes as signed numbers, 128 too small, and the sum of -128 times the other factors.
#[derive(Clone, Copy)]
pub(super) struct Biased {
    sums: Sums,
    bias: int32x4_t,
}

/// Runs `op` with plain NEON.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<O: Op>(op: O) -> O::Out {
    op.run(Quad::<Mull>(PhantomData))
}

/// Runs `op` with NEON and dot products.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dotprod<O: Op>(op: O) -> O::Out {
    op.run(Quad::<Sdot>(PhantomData))
}

/// Runs `op` with NEON and dot products, mixed ones too.
///
/// # Safety
/// The CPU has the features.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn run_i8mm<O: Op>(op: O) -> O::Out {
    op.run(Quad::<Usdot>(PhantomData))
}

/// Wraps intrinsics that touch no memory.
macro_rules! safe {
    ($($body:tt)*) => {
        // SAFETY: NEON is part of every aarch64 target; no memory is touched.
        unsafe { $($body)* }
    };
}
/// Wraps reads and writes.
macro_rules! memory {
    ($($body:tt)*) => {
        // SAFETY: NEON is part of every aarch64 target; the caller promised that the memory is there.
        unsafe { $($body)* }
    };
}
/// One intrinsic or function on the four registers.
macro_rules! four {
    ($name:expr $(, $x:expr)+) => {{
        #[allow(unused_unsafe, reason = "functions of this file are safe already")]
        let out = safe!([
            $name($($x[0]),+),
            $name($($x[1]),+),
            $name($($x[2]),+),
            $name($($x[3]),+)
        ]);
        out
    }};
}
/// Shifts bytes by a const parameter of another type than the intrinsic's.
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

#[inline(always)]
fn zeros() -> Sums {
    safe!([vdupq_n_s32(0); 4])
}

#[inline(always)]
fn sdot(mut acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: only `Sdot` and `Usdot` come here, which exist where the CPU has dot products.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

#[inline(always)]
fn usdot(mut acc: int32x4_t, w: uint8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: only `Usdot` comes here, which exists where the CPU has mixed dot products.
    unsafe {
        asm!(
            "usdot {acc:v}.4s, {w:v}.16b, {a:v}.16b",
            acc = inout(vreg) acc,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// Two registers from one of half precision.
#[inline(always)]
fn widen(half: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: part of every aarch64 target. Flags are not preserved: a conversion may raise those of floats.
    unsafe {
        asm!(
            "fcvtl {low:v}.4s, {half:v}.4h",
            "fcvtl2 {high:v}.4s, {half:v}.8h",
            low = out(vreg) low,
            high = lateout(vreg) high,
            half = in(vreg) half,
            options(pure, nomem, nostack)
        );
    }
    [low, high]
}

/// Two registers in half precision, to the nearest, ties to even.
#[inline(always)]
fn narrow(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let half;
    // SAFETY: as above.
    unsafe {
        asm!(
            "fcvtn {half:v}.4h, {low:v}.4s",
            "fcvtn2 {half:v}.8h, {high:v}.4s",
            half = out(vreg) half,
            low = in(vreg) low,
            high = in(vreg) high,
            options(pure, nomem, nostack)
        );
    }
    half
}

/// `a` where it is greater, else `b`; `fmax` would give whichever is no number.
#[inline(always)]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    safe!(vbslq_f32(vcgtq_f32(a, b), a, b))
}

/// The same of halves.
#[inline(always)]
fn greater_half(a: float32x2_t, b: float32x2_t) -> float32x2_t {
    safe!(vbsl_f32(vcgt_f32(a, b), a, b))
}

impl Dots for Mull {
    type Wide = Biased;
    const WIDE_SUMS: usize = 4;

    #[inline(always)]
    fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // Two products fit into 16 bits: at most 2 * 128 * 127.
        safe!({
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
            vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, a)))
        })
    }
    #[inline(always)]
    fn wide_zero() -> Biased {
        Biased { sums: zeros(), bias: safe!(vdupq_n_s32(0)) }
    }
    #[inline(always)]
    fn wide_dot(acc: Biased, w: [uint8x16_t; 4], a: int8x16_t) -> Biased {
        biased::<Self>(acc, w, a)
    }
    #[inline(always)]
    fn wide_sum(acc: Biased) -> Sums {
        unbiased(acc)
    }
}

impl Dots for Sdot {
    type Wide = Biased;
    const WIDE_SUMS: usize = 4;

    #[inline(always)]
    fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        sdot(acc, w, a)
    }
    #[inline(always)]
    fn wide_zero() -> Biased {
        Biased { sums: zeros(), bias: safe!(vdupq_n_s32(0)) }
    }
    #[inline(always)]
    fn wide_dot(acc: Biased, w: [uint8x16_t; 4], a: int8x16_t) -> Biased {
        biased::<Self>(acc, w, a)
    }
    #[inline(always)]
    fn wide_sum(acc: Biased) -> Sums {
        unbiased(acc)
    }
}

impl Dots for Usdot {
    type Wide = Sums;
    const WIDE_SUMS: usize = 6;

    #[inline(always)]
    fn dot(acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        sdot(acc, w, a)
    }
    #[inline(always)]
    fn wide_zero() -> Sums {
        zeros()
    }
    #[inline(always)]
    fn wide_dot(acc: Sums, w: [uint8x16_t; 4], a: int8x16_t) -> Sums {
        [usdot(acc[0], w[0], a), usdot(acc[1], w[1], a), usdot(acc[2], w[2], a), usdot(acc[3], w[3], a)]
    }
    #[inline(always)]
    fn wide_sum(acc: Sums) -> Sums {
        acc
    }
}

/// One step of [`Biased`].
#[inline(always)]
fn biased<D: Dots>(Biased { sums, bias }: Biased, w: [uint8x16_t; 4], a: int8x16_t) -> Biased {
    let flip = safe!(vdupq_n_u8(0x80));
    let one = |sum, w| D::dot(sum, safe!(vreinterpretq_s8_u8(veorq_u8(w, flip))), a);
    Biased {
        sums: [one(sums[0], w[0]), one(sums[1], w[1]), one(sums[2], w[2]), one(sums[3], w[3])],
        bias: D::dot(bias, safe!(vreinterpretq_s8_u8(flip)), a),
    }
}

/// The sums of [`Biased`], with the bytes as they were.
#[inline(always)]
fn unbiased(Biased { sums, bias }: Biased) -> Sums {
    let one = |sum| safe!(vsubq_s32(sum, bias));
    [one(sums[0]), one(sums[1]), one(sums[2]), one(sums[3])]
}

/// 16 x i16 to 16 x i32.
#[inline(always)]
fn words(low: int16x8_t, high: int16x8_t) -> Sums {
    safe!({
        [
            vmovl_s16(vget_low_s16(low)),
            vmovl_high_s16(low),
            vmovl_s16(vget_low_s16(high)),
            vmovl_high_s16(high),
        ]
    })
}

/// Sums of both products of the pairs of each lane, wrapping.
#[inline(always)]
fn pairs(acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    safe!({
        let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
        let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
        vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)))
    })
}

impl<D: Dots> Simd for Quad<D> {
    type F = [float32x4_t; 4];
    type I = Sums;
    type B = [uint8x16_t; 4];
    type A = int8x16_t;
    type Dot = Sums;
    type Wide = D::Wide;

    const SUMS: usize = 6;
    const WIDE_SUMS: usize = D::WIDE_SUMS;
    const WIDE_LIMIT: usize = usize::MAX;

    #[inline(always)]
    fn dot_limit(_: usize) -> usize {
        usize::MAX
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        safe!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        memory!([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))])
    }
    #[inline(always)]
    unsafe fn store(self, x: Self::F, to: *mut f32) {
        memory!({
            vst1q_f32(to, x[0]);
            vst1q_f32(to.add(4), x[1]);
            vst1q_f32(to.add(8), x[2]);
            vst1q_f32(to.add(12), x[3]);
        })
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        let ([a, b], [c, d]) = memory!((widen(vld1q_u16(from)), widen(vld1q_u16(from.add(8)))));
        [a, b, c, d]
    }
    #[inline(always)]
    unsafe fn store_f16(self, x: Self::F, to: *mut u16) {
        memory!({
            vst1q_u16(to, narrow(x[0], x[1]));
            vst1q_u16(to.add(8), narrow(x[2], x[3]));
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        memory!({
            let one = |x| vreinterpretq_f32_u32(vshlq_n_u32::<16>(x));
            let (low, high) = (vld1q_u16(from), vld1q_u16(from.add(8)));
            [
                one(vmovl_u16(vget_low_u16(low))),
                one(vmovl_high_u16(low)),
                one(vmovl_u16(vget_low_u16(high))),
                one(vmovl_high_u16(high)),
            ]
        })
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        memory!({
            let bytes = vld1q_s8(from);
            words(vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes))
        })
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        memory!({
            let bytes = vld1q_u8(from);
            words(
                vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))),
                vreinterpretq_s16_u16(vmovl_high_u8(bytes)),
            )
        })
    }
    #[inline(always)]
    unsafe fn store_i8(self, x: Self::I, to: *mut i8) {
        memory!({
            let low = vmovn_high_s32(vmovn_s32(x[0]), x[1]);
            let high = vmovn_high_s32(vmovn_s32(x[2]), x[3]);
            vst1q_s8(to, vmovn_high_s16(vmovn_s16(low), high))
        })
    }
    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> Self::I {
        memory!([vld1q_s32(from), vld1q_s32(from.add(4)), vld1q_s32(from.add(8)), vld1q_s32(from.add(12))])
    }
    #[inline(always)]
    unsafe fn store_i(self, x: Self::I, to: *mut i32) {
        memory!({
            vst1q_s32(to, x[0]);
            vst1q_s32(to.add(4), x[1]);
            vst1q_s32(to.add(8), x[2]);
            vst1q_s32(to.add(12), x[3]);
        })
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        four!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        four!(vfmsq_f32, c, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        four!(greater, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        let one = |a, b| safe!(vbslq_f32(vcltq_f32(a, b), a, b));
        four!(one, a, b)
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        four!(vabsq_f32, a)
    }
    #[inline(always)]
    fn to_i(self, a: Self::F) -> Self::I {
        four!(vcvtnq_s32_f32, a)
    }
    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        four!(vcvtq_f32_s32, a)
    }
    #[inline(always)]
    fn pow2(self, n: Self::I) -> Self::F {
        let one = |n| safe!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))));
        four!(one, n)
    }
    #[inline(always)]
    fn first(self, n: usize, x: Self::F, y: Self::F) -> Self::F {
        const PLACES: [u32; 4] = [0, 1, 2, 3];
        // SAFETY: the array has four numbers; NEON is part of every aarch64 target.
        unsafe {
            let (places, n) = (vld1q_u32(PLACES.as_ptr()), vdupq_n_u32(n.min(LANES) as u32));
            let one = |at, x, y| vbslq_f32(vcltq_u32(vaddq_u32(places, vdupq_n_u32(at)), n), x, y);
            [one(0, x[0], y[0]), one(4, x[1], y[1]), one(8, x[2], y[2]), one(12, x[3], y[3])]
        }
    }
    #[inline(always)]
    fn unless_below(self, x: Self::F, limit: Self::F, y: Self::F) -> Self::F {
        let one = |x, limit, y| {
            safe!(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, limit))))
        };
        four!(one, x, limit, y)
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        safe!({
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)))
        })
    }
    #[inline(always)]
    fn greatest(self, a: Self::F) -> f32 {
        safe!({
            let a = greater(greater(a[0], a[2]), greater(a[1], a[3]));
            let a = greater_half(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(greater_half(a, vdup_lane_f32::<1>(a)))
        })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        safe!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        four!(vaddq_s32, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        four!(vsubq_s32, a, b)
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        four!(vmulq_s32, a, b)
    }
    #[inline(always)]
    fn pair(self, low: Self::I, high: Self::I) -> Self::I {
        four!(vsliq_n_s32::<16>, low, high)
    }
    #[inline(always)]
    fn dot_pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        four!(pairs, acc, a, b)
    }

    #[inline(always)]
    unsafe fn load_b(self, from: *const u8) -> Self::B {
        memory!([vld1q_u8(from), vld1q_u8(from.add(16)), vld1q_u8(from.add(32)), vld1q_u8(from.add(48))])
    }
    #[inline(always)]
    unsafe fn store_b(self, x: Self::B, to: *mut u8) {
        memory!({
            vst1q_u8(to, x[0]);
            vst1q_u8(to.add(16), x[1]);
            vst1q_u8(to.add(32), x[2]);
            vst1q_u8(to.add(48), x[3]);
        })
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> Self::B {
        safe!([vdupq_n_u8(x); 4])
    }
    #[inline(always)]
    fn and_b(self, a: Self::B, b: Self::B) -> Self::B {
        four!(vandq_u8, a, b)
    }
    #[inline(always)]
    fn or_b(self, a: Self::B, b: Self::B) -> Self::B {
        four!(vorrq_u8, a, b)
    }
    #[inline(always)]
    fn shr_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B {
        let one = |a, mask| safe!(vandq_u8(shift!(vshrq_n_u8, a, N), mask));
        four!(one, a, mask)
    }
    #[inline(always)]
    fn shl_b<const N: u32>(self, a: Self::B, mask: Self::B) -> Self::B {
        let one = |a, mask| safe!(vandq_u8(shift!(vshlq_n_u8, a, N), mask));
        four!(one, a, mask)
    }

    #[inline(always)]
    unsafe fn splat4(self, from: *const i8) -> int8x16_t {
        memory!(vreinterpretq_s8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())))
    }
    #[inline(always)]
    fn dot_zero(self) -> Sums {
        zeros()
    }
    #[inline(always)]
    fn dot(self, acc: Sums, w: Self::B, a: int8x16_t) -> Sums {
        // At most 6 bits are the same number with a sign.
        let one = |acc, w| D::dot(acc, safe!(vreinterpretq_s8_u8(w)), a);
        four!(one, acc, w)
    }
    #[inline(always)]
    fn scale(self, scale: Self::I) -> Self::I {
        scale
    }
    #[inline(always)]
    fn drain(self, total: Self::I, acc: Sums, scale: Self::I) -> Self::I {
        four!(vmlaq_s32, total, acc, scale)
    }
    #[inline(always)]
    fn dot_sum(self, acc: Sums) -> Self::I {
        acc
    }
    #[inline(always)]
    fn wide_zero(self) -> D::Wide {
        D::wide_zero()
    }
    #[inline(always)]
    fn wide_dot(self, acc: D::Wide, w: Self::B, a: int8x16_t) -> D::Wide {
        D::wide_dot(acc, w, a)
    }
    #[inline(always)]
    fn wide_drain(self, total: Self::I, acc: D::Wide, scale: Self::I) -> Self::I {
        four!(vmlaq_s32, total, D::wide_sum(acc), scale)
    }
    #[inline(always)]
    fn wide_sum(self, acc: D::Wide) -> Self::I {
        D::wide_sum(acc)
    }

    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: a hint, which nothing depends on; it never faults.
        unsafe {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nomem, nostack, preserves_flags));
        }
    }
    #[inline(always)]
    fn prefetch_far(self, at: *const u8) {
        // SAFETY: as above.
        unsafe {
            asm!("prfm pldl2keep, [{at}]", at = in(reg) at, options(nomem, nostack, preserves_flags));
        }
    }
}
