//! The types that a GGUF tensor may have, and the size of their blocks.

#![forbid(unsafe_code)]

use std::fmt;

macro_rules! ggml_types {
    ($($variant:ident = $number:literal, $name:literal, $block:literal, $bytes:literal;)*) => {
        /// A type of tensor data, as ggml numbers and names them (`ggml.h`; block sizes from `ggml-common.h`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(non_camel_case_types)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum GgmlType {
            $(#[doc = concat!("`", $name, "`")] $variant = $number,)*
        }

        impl GgmlType {
            /// Every type this build knows, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with this number in a file, when it is known and still in use.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// ggml's name, for example `Q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Elements in one block; a row is a whole number of blocks.
            pub fn block_size(self) -> usize {
                match self {
                    $(Self::$variant => $block,)*
                }
            }

            /// Bytes of one block.
            pub fn type_size(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "F32", 1, 4;
    F16 = 1, "F16", 1, 2;
    Q4_0 = 2, "Q4_0", 32, 18;
    Q4_1 = 3, "Q4_1", 32, 20;
    Q5_0 = 6, "Q5_0", 32, 22;
    Q5_1 = 7, "Q5_1", 32, 24;
    Q8_0 = 8, "Q8_0", 32, 34;
    Q8_1 = 9, "Q8_1", 32, 36;
    Q2_K = 10, "Q2_K", 256, 84;
    Q3_K = 11, "Q3_K", 256, 110;
    Q4_K = 12, "Q4_K", 256, 144;
    Q5_K = 13, "Q5_K", 256, 176;
    Q6_K = 14, "Q6_K", 256, 210;
    Q8_K = 15, "Q8_K", 256, 292;
    IQ2_XXS = 16, "IQ2_XXS", 256, 66;
    IQ2_XS = 17, "IQ2_XS", 256, 74;
    IQ3_XXS = 18, "IQ3_XXS", 256, 98;
    IQ1_S = 19, "IQ1_S", 256, 50;
    IQ4_NL = 20, "IQ4_NL", 32, 18;
    IQ3_S = 21, "IQ3_S", 256, 110;
    IQ2_S = 22, "IQ2_S", 256, 82;
    IQ4_XS = 23, "IQ4_XS", 256, 136;
    I8 = 24, "I8", 1, 1;
    I16 = 25, "I16", 1, 2;
    I32 = 26, "I32", 1, 4;
    I64 = 27, "I64", 1, 8;
    F64 = 28, "F64", 1, 8;
    IQ1_M = 29, "IQ1_M", 256, 56;
    BF16 = 30, "BF16", 1, 2;
    TQ1_0 = 34, "TQ1_0", 256, 54;
    TQ2_0 = 35, "TQ2_0", 256, 66;
    MXFP4 = 39, "MXFP4", 32, 17;
    NVFP4 = 40, "NVFP4", 64, 36;
    Q1_0 = 41, "Q1_0", 128, 18;
}

impl GgmlType {
    /// Whether a weight matrix may have this type: those in files of the family, whatever backend then runs them. Each
    /// backend refuses by name what it does not read.
    pub fn is_weight(self) -> bool {
        use GgmlType::*;
        matches!(
            self,
            F32 | F16
                | BF16
                | Q4_0
                | Q4_1
                | Q5_0
                | Q5_1
                | Q8_0
                | Q8_1
                | Q2_K
                | Q3_K
                | Q4_K
                | Q5_K
                | Q6_K
                | Q8_K
                | IQ4_NL
                | IQ4_XS
        )
    }

    /// Whether a norm, a bias or a table of rope factors may have this type: the plain floats.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Bytes of a tensor of `shape` (row length first), and its elements. `None` when a row is not a whole number of
    /// blocks, or a product does not fit into `i64` (ggml's own bound).
    pub fn size_of(self, shape: &[u64]) -> Option<(u64, u64)> {
        let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        let row = shape.first().copied().unwrap_or(1);
        let block = self.block_size() as u64;
        if row % block != 0 || elements >= i64::MAX as u64 {
            return None;
        }
        let bytes = (elements / block).checked_mul(self.type_size() as u64)?;
        (bytes < i64::MAX as u64).then_some((bytes, elements))
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(kernels_alone))]
    #[test]
    fn sizes_agree_with_candle() {
        use candle_core::quantized::GgmlDType as C;
        let pairs = [
            (GgmlType::F32, C::F32),
            (GgmlType::F16, C::F16),
            (GgmlType::BF16, C::BF16),
            (GgmlType::Q4_0, C::Q4_0),
            (GgmlType::Q4_1, C::Q4_1),
            (GgmlType::Q5_0, C::Q5_0),
            (GgmlType::Q5_1, C::Q5_1),
            (GgmlType::Q8_0, C::Q8_0),
            (GgmlType::Q8_1, C::Q8_1),
            (GgmlType::Q2_K, C::Q2K),
            (GgmlType::Q3_K, C::Q3K),
            (GgmlType::Q4_K, C::Q4K),
            (GgmlType::Q5_K, C::Q5K),
            (GgmlType::Q6_K, C::Q6K),
            (GgmlType::Q8_K, C::Q8K),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(ours.block_size(), theirs.block_size(), "{ours}");
            assert_eq!(ours.type_size(), theirs.type_size(), "{ours}");
            assert!(ours.is_weight());
        }
        let others =
            GgmlType::ALL.iter().filter(|kind| kind.is_weight() && pairs.iter().all(|pair| pair.0 != **kind));
        assert_eq!(others.copied().collect::<Vec<_>>(), [GgmlType::IQ4_NL, GgmlType::IQ4_XS]);
    }

    #[test]
    fn numbers_round_trip() {
        for &kind in GgmlType::ALL {
            assert_eq!(GgmlType::from_number(kind as u32), Some(kind));
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38] {
            assert_eq!(GgmlType::from_number(removed), None);
        }
    }

    #[test]
    fn sizes_that_wrap_are_refused() {
        assert_eq!(GgmlType::F32.size_of(&[1 << 32, 1 << 32]), None);
        assert_eq!(GgmlType::F32.size_of(&[1 << 62]), None);
        assert_eq!(GgmlType::Q8_0.size_of(&[33, 2]), None);
        assert_eq!(GgmlType::Q8_0.size_of(&[64, 3]), Some((2 * 3 * 34, 192)));
        assert_eq!(GgmlType::F16.size_of(&[]), Some((2, 1)));
        assert_eq!(GgmlType::F32.size_of(&[0, 5]), Some((0, 0)));
    }
}
