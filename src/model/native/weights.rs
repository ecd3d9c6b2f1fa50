//! From the tensors of a file to matrices: laid out anew in memory of their own, or left where they are.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::gguf::{Architecture, GgmlType, GgufFile, ModelPlan, TensorInfo, check_finite, not_finite};
use crate::kernels::{Arena, Compute, Matrix, Memory};
use crate::model::MemoryMode;

/// A matrix and what is added to its outputs.
pub(super) struct Linear {
    pub(super) matrix: Matrix,
    pub(super) bias: Option<Vec<f32>>,
}

/// The weights of a norm.
pub(super) struct NormWeights {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
}

/// The weights of one layer.
pub(super) struct Layer {
    pub(super) attention_norm: NormWeights,
    /// Queries, keys and values: one matrix, or three whose outputs stand side by side.
    pub(super) qkv: Vec<Linear>,
    pub(super) attention_output: Linear,
    pub(super) feed: Feed,
}

/// What follows attention in a layer, or stands beside it.
pub(super) enum Feed {
    /// SwiGLU behind a norm of its own.
    Gated(NormWeights, Expert),
    /// GELU beside attention, behind the same norm.
    Parallel { up: Linear, down: Linear },
    /// Experts behind a norm of their own, and the matrix that scores them.
    Mixture { norm: NormWeights, router: Matrix, experts: Vec<Expert> },
}

/// The matrices of SwiGLU.
pub(super) struct Expert {
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

/// The weights of a model.
pub(super) struct Weights {
    /// As the file has it: single rows are read.
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) output_norm: NormWeights,
    pub(super) output: Linear,
}

/// The bytes of one part of a model, for matrices to share.
struct FileBytes(Arc<GgufFile>, usize);

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.part_bytes(self.1)
    }
}

/// Some rows of a tensor.
struct Part<'a> {
    tensor: &'a TensorInfo,
    rows: Range<usize>,
    k: usize,
}

impl Part<'_> {
    /// Its bytes in the tensor.
    fn range(&self) -> Range<usize> {
        let row = self.k / self.tensor.kind.block_size() * self.tensor.kind.type_size();
        self.rows.start * row..self.rows.end * row
    }

    /// Its bytes in tiles.
    fn packed_bytes(&self) -> Result<usize> {
        Matrix::packed_bytes(self.tensor.kind, self.rows.len(), self.k).ok_or_else(|| {
            Error::internal(format!("The tensor `{}` is no matrix of weights.", self.tensor.name))
        })
    }
}

/// Reads the weights of a checked file. `mode` is not [`MemoryMode::Auto`]. `progress` hears the bytes laid out so far, and
/// the bytes of all.
pub(super) fn load(
    file: &Arc<GgufFile>,
    plan: &ModelPlan,
    mode: MemoryMode,
    compute: &Compute,
    progress: &dyn Fn(u64, u64),
) -> Result<Weights> {
    let loader = Loader { file, plan };
    let parts = loader.parts()?;
    let bytes: Vec<Memory> = (0..file.header().parts.len())
        .map(|part| Arc::new(FileBytes(Arc::clone(file), part)) as Memory)
        .collect();
    let mut matrices = if mode == MemoryMode::Mmap {
        parts.iter().map(|part| loader.mapped(part, &bytes)).collect::<Result<Vec<_>>>()?
    } else {
        loader.packed(&parts, compute, progress)?
    }
    .into_iter();
    let mut linear = |name: &str| -> Result<Linear> {
        let matrix =
            matrices.next().ok_or_else(|| Error::internal("A matrix of the plan was not laid out."))?;
        Ok(Linear { matrix, bias: loader.bias(name)? })
    };
    let mut layers = Vec::with_capacity(plan.n_layer);
    for number in 0..plan.n_layer {
        let name = |part: &str| format!("blk.{number}.{part}");
        let attention_norm = loader.norm(&name("attn_norm"))?;
        let qkv = loader.qkv_names(number).iter().map(|part| linear(&name(part))).collect::<Result<_>>()?;
        let attention_output = linear(&name("attn_output"))?;
        let feed = match plan.architecture {
            Architecture::Phi3 => {
                let (mut gate, mut up) = (linear(&name("ffn_up"))?, linear(&name("ffn_up"))?);
                // One bias for both halves.
                gate.bias = gate.bias.map(|bias| bias[..plan.n_ff].to_vec());
                up.bias = up.bias.map(|bias| bias[plan.n_ff..].to_vec());
                Feed::Gated(
                    loader.norm(&name("ffn_norm"))?,
                    Expert { gate, up, down: linear(&name("ffn_down"))? },
                )
            }
            Architecture::Llama => {
                let (gate, up) = (linear(&name("ffn_gate"))?, linear(&name("ffn_up"))?);
                Feed::Gated(
                    loader.norm(&name("ffn_norm"))?,
                    Expert { gate, up, down: linear(&name("ffn_down"))? },
                )
            }
            Architecture::Phi2 => {
                Feed::Parallel { up: linear(&name("ffn_up"))?, down: linear(&name("ffn_down"))? }
            }
            Architecture::PhiMoe => {
                let router = linear(&name("ffn_gate_inp"))?.matrix;
                let expert = |_| {
                    let [gate, up, down] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
                    Ok(Expert {
                        gate: linear(&name(gate))?,
                        up: linear(&name(up))?,
                        down: linear(&name(down))?,
                    })
                };
                let experts = (0..plan.n_expert).map(expert).collect::<Result<_>>()?;
                Feed::Mixture { norm: loader.norm(&name("ffn_norm"))?, router, experts }
            }
        };
        layers.push(Layer { attention_norm, qkv, attention_output, feed });
    }
    let output = linear("output")?;
    let embedding = loader.mapped(&loader.embedding()?, &bytes)?;
    Ok(Weights { embedding, layers, output_norm: loader.norm("output_norm")?, output })
}

const EMBEDDING: &str = "token_embd.weight";
/// Blocks of a tensor that a thread looks at before it takes the next ones.
const CHECKED_BLOCKS: usize = 4096;

struct Loader<'a> {
    file: &'a Arc<GgufFile>,
    plan: &'a ModelPlan,
}

impl<'a> Loader<'a> {
    fn tensor(&self, name: &str) -> Result<&'a TensorInfo> {
        self.file
            .header()
            .tensor(name)
            .ok_or_else(|| Error::internal(format!("The tensor `{name}` of the plan is not in the file.")))
    }

    fn embedding(&self) -> Result<Part<'a>> {
        Ok(Part { tensor: self.tensor(EMBEDDING)?, rows: 0..self.plan.vocab_size, k: self.plan.n_embd })
    }

    fn bias(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let tensor = self.file.header().tensor(&format!("{name}.bias"));
        tensor.map(|tensor| vector(self.file, tensor)).transpose()
    }

    fn norm(&self, name: &str) -> Result<NormWeights> {
        let weight = vector(self.file, self.tensor(&format!("{name}.weight"))?)?;
        Ok(NormWeights { weight, bias: self.bias(name)? })
    }

    fn qkv_names(&self, layer: usize) -> &'static [&'static str] {
        match self.file.header().tensor(&format!("blk.{layer}.attn_qkv.weight")) {
            Some(_) => &["attn_qkv"],
            None => &["attn_q", "attn_k", "attn_v"],
        }
    }

    /// Every matrix, in the order in which [`load`] takes them.
    fn parts(&self) -> Result<Vec<Part<'a>>> {
        let plan = self.plan;
        let (embd, ff) = (plan.n_embd, plan.n_ff);
        let mut parts = Vec::new();
        // Part `number` of as many equal ones.
        let mut add = |name: String, k: usize, number: usize, of: usize| -> Result<()> {
            let tensor = self.tensor(&name)?;
            let rows = tensor.shape.iter().skip(1).product::<u64>() as usize;
            parts.push(Part { tensor, rows: number * rows / of..(number + 1) * rows / of, k });
            Ok(())
        };
        for layer in 0..plan.n_layer {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            for part in self.qkv_names(layer) {
                add(name(part), embd, 0, 1)?;
            }
            add(name("attn_output"), plan.n_head * plan.head_dim, 0, 1)?;
            match plan.architecture {
                Architecture::Phi3 => {
                    add(name("ffn_up"), embd, 0, 2)?;
                    add(name("ffn_up"), embd, 1, 2)?;
                    add(name("ffn_down"), ff, 0, 1)?;
                }
                Architecture::Llama => {
                    add(name("ffn_gate"), embd, 0, 1)?;
                    add(name("ffn_up"), embd, 0, 1)?;
                    add(name("ffn_down"), ff, 0, 1)?;
                }
                Architecture::Phi2 => {
                    add(name("ffn_up"), embd, 0, 1)?;
                    add(name("ffn_down"), ff, 0, 1)?;
                }
                Architecture::PhiMoe => {
                    add(name("ffn_gate_inp"), embd, 0, 1)?;
                    for expert in 0..plan.n_expert {
                        add(name("ffn_gate_exps"), embd, expert, plan.n_expert)?;
                        add(name("ffn_up_exps"), embd, expert, plan.n_expert)?;
                        add(name("ffn_down_exps"), ff, expert, plan.n_expert)?;
                    }
                }
            }
        }
        add(if plan.tied_embeddings { EMBEDDING } else { "output.weight" }.to_owned(), embd, 0, 1)?;
        Ok(parts)
    }

    fn mapped(&self, part: &Part<'_>, bytes: &[Memory]) -> Result<Matrix> {
        let start = self.file.tensor_range(part.tensor)?.start;
        let range = part.range();
        let range = start + range.start..start + range.end;
        let bytes =
            bytes.get(part.tensor.part).ok_or_else(|| Error::internal("A part of the model is not here."))?;
        Matrix::new(part.tensor.kind, part.rows.len(), part.k, false, Arc::clone(bytes), range)
    }

    /// Reads some rows, and refuses values that are not finite. Where weights are copied they are all looked at; where they stay in
    /// the file, which is there at once, a fault shows in the logits.
    fn check(&self, part: &Part<'_>, compute: &Compute) -> Result<()> {
        let bytes = part.range().len();
        let piece = part.tensor.kind.type_size() * CHECKED_BLOCKS;
        let reader = Reader::new(self.file, part);
        compute.pool.for_each(bytes.div_ceil(piece), &|unit, scratch| {
            let range = unit * piece..bytes.min((unit + 1) * piece);
            let to = scratch.bytes(range.len());
            reader.read(range, to);
        })?;
        reader.end()
    }

    /// Lays all parts out in one arena.
    fn packed(
        &self,
        parts: &[Part<'_>],
        compute: &Compute,
        progress: &dyn Fn(u64, u64),
    ) -> Result<Vec<Matrix>> {
        let mut ranges = Vec::with_capacity(parts.len());
        let mut size = 0usize;
        for part in parts {
            let end = size
                .checked_add(part.packed_bytes()?)
                .ok_or_else(|| Error::internal("The weights do not fit into the address space."))?;
            ranges.push(size..end);
            size = end;
        }
        let mut arena = Arena::new(size)?;
        self.check(&self.embedding()?, compute)?;
        for (i, (part, range)) in parts.iter().zip(&ranges).enumerate() {
            // While this one is laid out, a disk can bring the next.
            if let Some(next) = parts.get(i + 1) {
                self.file.read_ahead(next.tensor, next.range());
            }
            let reader = Reader::new(self.file, part);
            let (shape, to) = ([part.rows.len(), part.k], &mut arena[range.clone()]);
            Matrix::pack(compute, part.tensor.kind, shape, &|range, to| reader.read(range, to), to)?;
            reader.end()?;
            progress(range.end as u64, size as u64);
        }
        let memory: Memory = Arc::new(arena);
        parts
            .iter()
            .zip(ranges)
            .map(|(part, range)| {
                Matrix::new(part.tensor.kind, part.rows.len(), part.k, true, Arc::clone(&memory), range)
            })
            .collect()
    }
}

/// Reads rows of one tensor, on several threads, and looks for values that are not finite.
struct Reader<'a> {
    file: &'a GgufFile,
    part: &'a Part<'a>,
    /// The first block of the tensor with such a value, or the greatest number.
    fault: AtomicUsize,
    /// Why the system could not read.
    error: OnceLock<Error>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a GgufFile, part: &'a Part<'a>) -> Self {
        Self { file, part, fault: AtomicUsize::new(usize::MAX), error: OnceLock::new() }
    }

    /// Reads whole blocks of the part's rows: the bytes at `range` of them.
    fn read(&self, range: Range<usize>, to: &mut [u8]) {
        let (tensor, at) = (self.part.tensor, self.part.range().start + range.start);
        if self.error.get().is_some() {
            return;
        }
        if let Err(error) = self.file.read(tensor, at, to) {
            // Of several, one is enough.
            self.error.get_or_init(|| error);
        } else if let Some(block) = check_finite(tensor.kind, to) {
            self.fault.fetch_min(at / tensor.kind.type_size() + block, Ordering::Relaxed);
        }
    }

    /// What went wrong.
    fn end(self) -> Result<()> {
        match (self.error.into_inner(), self.fault.into_inner()) {
            (Some(error), _) => Err(error),
            (None, usize::MAX) => Ok(()),
            (None, block) => Err(not_finite(self.file, self.part.tensor, block)),
        }
    }
}

/// The values of a tensor of plain floats, all of them finite.
pub(super) fn vector(file: &GgufFile, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let bytes = file.tensor_bytes(tensor)?;
    if let Some(block) = check_finite(tensor.kind, bytes) {
        return Err(not_finite(file, tensor, block));
    }
    match tensor.kind {
        GgmlType::F32 => Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        GgmlType::F16 => {
            Ok(bytes.as_chunks().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()).collect())
        }
        GgmlType::BF16 => {
            Ok(bytes.as_chunks().0.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()).collect())
        }
        kind => Err(Error::internal(format!("The tensor `{}` is {kind}, not plain floats.", tensor.name))),
    }
}
