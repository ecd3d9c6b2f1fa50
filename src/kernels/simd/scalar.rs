//! Plain Rust: the reference that every other tier must equal.

use std::array::from_fn;

use half::{bf16, f16};

use super::{BYTES, LANES, Simd};

/// Arrays in place of vectors.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

type F = [f32; LANES];
type I = [i32; LANES];
type B = [u8; BYTES];

/// The i16 in the low and the high half of a lane.
fn pair(x: i32) -> (i32, i32) {
    (i32::from(x as i16), x >> 16)
}

fn dot4(w: &B, a: [i8; 4], lane: usize) -> i32 {
    (0..4).map(|i| i32::from(w[4 * lane + i]) * i32::from(a[i])).sum()
}

/// Halves folded onto each other until one lane is left.
fn fold(mut lanes: F, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

// Not inlined: kernels unroll their loops for registers, and code that has none would grow a hundredfold.
impl Simd for Scalar {
    type F = F;
    type I = I;
    type B = B;
    type A = [i8; 4];
    type Dot = I;
    type Wide = I;

    const SUMS: usize = 6;
    const WIDE_SUMS: usize = 6;
    const WIDE_LIMIT: usize = usize::MAX;

    fn dot_limit(_: usize) -> usize {
        usize::MAX
    }

    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(never)]
    unsafe fn load(self, from: *const f32) -> F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(never)]
    unsafe fn store(self, x: F, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<F>().write_unaligned(x) }
    }
    #[inline(never)]
    unsafe fn load_f16(self, from: *const u16) -> F {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32_const())
    }
    #[inline(never)]
    unsafe fn store_f16(self, x: F, to: *mut u16) {
        let bits = x.map(|x| f16::from_f32_const(x).to_bits());
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(never)]
    unsafe fn load_bf16(self, from: *const u16) -> F {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|bits| bf16::from_bits(bits).to_f32_const())
    }
    #[inline(never)]
    unsafe fn load_i8(self, from: *const i8) -> I {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(never)]
    unsafe fn load_u8(self, from: *const u8) -> I {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(never)]
    unsafe fn store_i8(self, x: I, to: *mut i8) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(x.map(|x| x as i8)) }
    }
    #[inline(never)]
    unsafe fn load_i(self, from: *const i32) -> I {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<I>().read_unaligned() }
    }
    #[inline(never)]
    unsafe fn store_i(self, x: I, to: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<I>().write_unaligned(x) }
    }

    #[inline(never)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(never)]
    fn sub(self, a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(never)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(never)]
    fn div(self, a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(never)]
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(never)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
    #[inline(never)]
    fn max(self, a: F, b: F) -> F {
        from_fn(|i| greater(a[i], b[i]))
    }
    #[inline(never)]
    fn min(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(never)]
    fn abs(self, a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(never)]
    fn to_i(self, a: F) -> I {
        a.map(|x| x.round_ties_even() as i32)
    }
    #[inline(never)]
    fn to_f(self, a: I) -> F {
        a.map(|x| x as f32)
    }
    #[inline(never)]
    fn pow2(self, n: I) -> F {
        n.map(|n| f32::from_bits(((n + 127) << 23).cast_unsigned()))
    }
    #[inline(never)]
    fn first(self, n: usize, x: F, y: F) -> F {
        from_fn(|i| if i < n { x[i] } else { y[i] })
    }
    #[inline(never)]
    fn unless_below(self, x: F, limit: F, y: F) -> F {
        from_fn(|i| if x[i] < limit[i] { 0.0 } else { y[i] })
    }
    fn sum(self, a: F) -> f32 {
        fold(a, |x, y| x + y)
    }
    #[inline(never)]
    fn greatest(self, a: F) -> f32 {
        fold(a, greater)
    }

    fn splat_i(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(never)]
    fn add_i(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(never)]
    fn sub_i(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(never)]
    fn mul_i(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_mul(b[i]))
    }
    #[inline(never)]
    fn pair(self, low: I, high: I) -> I {
        from_fn(|i| (low[i] & 0xffff) | (high[i] << 16))
    }
    #[inline(never)]
    fn dot_pairs(self, acc: I, a: I, b: I) -> I {
        from_fn(|i| {
            let ((a0, a1), (b0, b1)) = (pair(a[i]), pair(b[i]));
            acc[i].wrapping_add((a0 * b0).wrapping_add(a1 * b1))
        })
    }

    #[inline(never)]
    unsafe fn load_b(self, from: *const u8) -> B {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<B>().read_unaligned() }
    }
    #[inline(never)]
    unsafe fn store_b(self, x: B, to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<B>().write_unaligned(x) }
    }
    fn splat_b(self, x: u8) -> B {
        [x; BYTES]
    }
    #[inline(never)]
    fn and_b(self, a: B, b: B) -> B {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(never)]
    fn or_b(self, a: B, b: B) -> B {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(never)]
    fn shr_b<const N: u32>(self, a: B, mask: B) -> B {
        from_fn(|i| (a[i] >> N) & mask[i])
    }
    #[inline(never)]
    fn shl_b<const N: u32>(self, a: B, mask: B) -> B {
        from_fn(|i| (a[i] << N) & mask[i])
    }

    unsafe fn splat4(self, from: *const i8) -> [i8; 4] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[i8; 4]>().read_unaligned() }
    }
    fn dot_zero(self) -> I {
        [0; LANES]
    }
    #[inline(never)]
    fn dot(self, acc: I, w: B, a: [i8; 4]) -> I {
        from_fn(|i| acc[i] + dot4(&w, a, i))
    }
    fn scale(self, scale: I) -> I {
        scale
    }
    #[inline(never)]
    fn drain(self, total: I, acc: I, scale: I) -> I {
        from_fn(|i| total[i].wrapping_add(acc[i].wrapping_mul(scale[i])))
    }
    fn dot_sum(self, acc: I) -> I {
        acc
    }
    fn wide_zero(self) -> I {
        [0; LANES]
    }
    fn wide_dot(self, acc: I, w: B, a: [i8; 4]) -> I {
        self.dot(acc, w, a)
    }
    fn wide_drain(self, total: I, acc: I, scale: I) -> I {
        self.drain(total, acc, scale)
    }
    fn wide_sum(self, acc: I) -> I {
        acc
    }

    fn prefetch(self, _: *const u8) {}
    fn prefetch_far(self, _: *const u8) {}
}
