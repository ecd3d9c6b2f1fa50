//! `expf` of the C library, as its authors wrote it for FMA: what the tiers' vectors of it share, and plain Rust.

/// Parts that an octave is cut into.
pub(super) const PARTS: usize = 32;
const PARTS_F: f64 = PARTS as f64;
/// Parts in one unit of `x`.
pub(super) const PARTS_PER_E: f64 = std::f64::consts::LOG2_E * PARTS_F;
/// Added to a number below 2^51 in size, it leaves the nearest integer in the lowest bits.
pub(super) const SHIFT: f64 = 6_755_399_441_055_744.0;
/// By how much the number of parts is shifted to change the exponent of a f64.
pub(super) const TO_EXPONENT: u32 = 52 - PARTS.ilog2();
/// The polynomial of `2^(r / 32)` for |r| <= 1/2, from `exp2f_data.c` of Arm's optimized routines, which glibc and musl use.
pub(super) const POLYNOMIAL: [f64; 3] = [
    0.055_503_615_593_415_35 / PARTS_F / PARTS_F / PARTS_F,
    0.240_228_452_244_572_2 / PARTS_F / PARTS_F,
    0.693_147_180_691_620_3 / PARTS_F,
];
/// Below this the result is zero.
pub(super) const LOW: f32 = -150.0;
/// The bits of the f64 nearest to `2^(i / 32)`, less what adding `i` to the exponent will add.
#[rustfmt::skip]
pub(super) static TABLE: [u64; PARTS] = [
    0x3ff0_0000_0000_0000, 0x3fef_d9b0_d315_8574, 0x3fef_b558_6cf9_890f, 0x3fef_9301_d012_5b51,
    0x3fef_72b8_3c7d_517b, 0x3fef_5487_3168_b9aa, 0x3fef_387a_6e75_6238, 0x3fef_1e9d_f51f_dee1,
    0x3fef_06fe_0a31_b715, 0x3fee_f1a7_373a_a9cb, 0x3fee_dea6_4c12_3422, 0x3fee_ce08_6061_892d,
    0x3fee_bfda_d536_2a27, 0x3fee_b42b_569d_4f82, 0x3fee_ab07_dd48_5429, 0x3fee_a47e_b03a_5585,
    0x3fee_a09e_667f_3bcd, 0x3fee_9f75_e8ec_5f74, 0x3fee_a114_73eb_0187, 0x3fee_a589_994c_ce13,
    0x3fee_ace5_422a_a0db, 0x3fee_b737_b0cd_c5e5, 0x3fee_c491_82a3_f090, 0x3fee_d503_b23e_255d,
    0x3fee_e89f_995a_d3ad, 0x3fee_ff76_f2fb_5e47, 0x3fef_199b_dd85_529c, 0x3fef_3720_dcef_9069,
    0x3fef_5818_dcfb_a487, 0x3fef_7c97_337b_9b5f, 0x3fef_a4af_a2a4_90da, 0x3fef_d076_5b6e_4540,
];

/// [`super::Simd::expf`] of one number.
pub(super) fn expf(x: f32) -> f32 {
    let x = f64::from(x.max(LOW));
    let shifted = x.mul_add(PARTS_PER_E, SHIFT);
    let bits = shifted.to_bits();
    let r = x.mul_add(PARTS_PER_E, -(shifted - SHIFT));
    let power = f64::from_bits(TABLE[bits as usize % PARTS].wrapping_add(bits << TO_EXPONENT));
    let high = POLYNOMIAL[0].mul_add(r, POLYNOMIAL[1]);
    let low = POLYNOMIAL[2].mul_add(r, 1.0);
    (high.mul_add(r * r, low) * power) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_powers_of_two() {
        for (i, &entry) in (0..).zip(&TABLE) {
            let found = f64::from_bits(entry.wrapping_add(i << TO_EXPONENT));
            assert!((found - (i as f64 / PARTS_F).exp2()).abs() <= f64::EPSILON, "{i}: {found}");
        }
    }
}
