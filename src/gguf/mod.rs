//! Bytes of a GGUF file to a validated, typed description of it. No Candle, no trust.
//!
//! A model file is hostile input. [`Header::parse`] reads it with checked arithmetic only and makes no allocation that
//! the file could size beyond its own length; [`ModelPlan::from_header`] then compares every number and every tensor with
//! what the architecture needs. Only after both does anything else look at the weights.
//!
//! ```no_run
//! use phicandle::gguf::{GgufFile, ModelPlan};
//!
//! let file = GgufFile::open("Phi-3-mini-4k-instruct-q4.gguf".as_ref())?;
//! let plan = ModelPlan::from_header(file.header())?;
//! assert_eq!(plan.n_layer, 32);
//! # Ok::<(), phicandle::Error>(())
//! ```

mod cursor;
mod dtype;
mod file;
mod finite;
mod foreign;
mod header;
mod keys;
mod metadata;
mod mmap;
mod plan;
mod rope;
mod shapes;
mod split;
mod strings;
mod tensor;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use dtype::GgmlType;
pub use file::GgufFile;
pub use finite::{check_finite, not_finite};
pub use header::{Header, Part, Prefix};
pub use metadata::Metadata;
pub use plan::{Architecture, ModelPlan};
pub use rope::{FREQUENCY_FACTORS, LONG_FACTORS, RopePlan, RopeScaling, SHORT_FACTORS};
pub use split::{MAX_PARTS, PartName, join, part_names, part_of};
pub use strings::StringArray;
pub use tensor::TensorInfo;
