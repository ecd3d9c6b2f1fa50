//! What a model has to read and to compute, and the least time that a machine needs for it.

use crate::gguf::{ModelPlan, TensorInfo};
use crate::model::KvDtype;

/// What the machine can do at most with some number of threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Peaks {
    /// Bytes read from memory in a second.
    pub(super) bandwidth: f64,
    /// 8-bit multiplications and additions in a second, each counted.
    pub(super) int8: f64,
    /// f32 multiplications and additions in a second, each counted.
    pub(super) f32: f64,
}

/// The least time for some work, and what sets it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Floor {
    pub(super) seconds: f64,
    /// `bandwidth` or `compute`.
    pub(super) by: &'static str,
}

/// Parameters of matrices, by the arithmetic that multiplies with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Parameters {
    /// Quantised: multiplied as 8-bit numbers.
    int8: u64,
    /// F32, F16 and BF16: multiplied as f32.
    f32: u64,
}

/// What one pass of a model reads and computes. Norms and biases are left out: they are a thousandth of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// Bytes of every matrix that a token meets, so the least that a pass reads of a mixture of experts. Of `token_embd` a token needs one row, so it counts only where it is the
    /// output matrix as well.
    pub(super) weight_bytes: u64,
    /// Bytes of keys and values for each token of the context; 0 before it is known how they are kept.
    pub(super) kv_token_bytes: u64,
    /// Tokens that attention looks back over, when limited.
    window: Option<usize>,
    /// Matrices of the layers: needed for each token.
    layers: Parameters,
    /// The output matrix: needed where logits are wanted.
    output: Parameters,
}

impl Work {
    /// The work of the model with these `tensors` and the `plan` made of them.
    pub(super) fn new(tensors: &[TensorInfo], plan: &ModelPlan) -> Self {
        let output_name = if plan.tied_embeddings { "token_embd.weight" } else { "output.weight" };
        let (mut layers, mut output, mut weight_bytes) = (Parameters::default(), Parameters::default(), 0);
        let used = tensors.iter().filter(|tensor| !plan.extra_tensors.contains(&tensor.name));
        for tensor in used.filter(|tensor| tensor.shape.len() >= 2) {
            let part = match tensor.name.as_str() {
                name if name == output_name => &mut output,
                "token_embd.weight" => continue,
                _ => &mut layers,
            };
            // Of a stack of experts a token meets some.
            let (met, of) = if tensor.shape.len() > 2 { (plan.n_expert_used, plan.n_expert) } else { (1, 1) };
            let met = |all: u64| all * met as u64 / of.max(1) as u64;
            weight_bytes += met(tensor.n_bytes);
            let count = if tensor.kind.is_float() { &mut part.f32 } else { &mut part.int8 };
            *count += met(tensor.elements());
        }
        Self { weight_bytes, kv_token_bytes: 0, window: plan.sliding_window, layers, output }
    }

    /// Multiplications and additions for each token of a prompt, attention not counted.
    pub(super) fn ops_per_token(&self) -> u64 {
        2 * (self.layers.int8 + self.layers.f32)
    }

    /// Bytes that a pass reads for the token at `position`: the weights, and the keys and values up to it.
    pub(super) fn bytes_at(&self, position: usize) -> u64 {
        self.weight_bytes + self.kv_bytes(position)
    }

    fn kv_bytes(&self, position: usize) -> u64 {
        let seen = (position + 1).min(self.window.unwrap_or(usize::MAX));
        self.kv_token_bytes.saturating_mul(seen as u64)
    }

    /// For a prompt of `tokens` that are new, with logits at its end.
    pub(super) fn prefill(&self, tokens: usize, peaks: &Peaks) -> Floor {
        let bytes = self.weight_bytes as f64;
        floor(bytes, self.compute(tokens, 1, peaks), peaks)
    }

    /// For `passes` passes, in each of which `batch` sequences get one token; the first lands at position `depth`.
    pub(super) fn decode(&self, batch: usize, depth: usize, passes: usize, peaks: &Peaks) -> Floor {
        let kv: f64 = (depth..depth + passes).map(|position| self.kv_bytes(position) as f64).sum();
        let bytes = self.weight_bytes as f64 * passes as f64 + kv * batch as f64;
        let tokens = batch * passes;
        floor(bytes, self.compute(tokens, tokens, peaks), peaks)
    }

    /// For one pass over `tokens` tokens of one sequence that holds `depth`.
    pub(super) fn check(&self, depth: usize, tokens: usize, peaks: &Peaks) -> Floor {
        let bytes = self.bytes_at(depth + tokens.saturating_sub(1)) as f64;
        floor(bytes, self.compute(tokens, tokens, peaks), peaks)
    }

    /// Seconds to compute `tokens` tokens and `rows` rows of logits.
    fn compute(&self, tokens: usize, rows: usize, peaks: &Peaks) -> f64 {
        let ops =
            |layers: u64, output: u64| 2.0 * (layers as f64 * tokens as f64 + output as f64 * rows as f64);
        let seconds = |ops: f64, peak: f64| if ops > 0.0 { ops / peak } else { 0.0 };
        seconds(ops(self.layers.int8, self.output.int8), peaks.int8)
            + seconds(ops(self.layers.f32, self.output.f32), peaks.f32)
    }
}

/// Bytes of the keys and values of one token, as `backend` keeps them.
pub(super) fn kv_token_bytes(plan: &ModelPlan, backend: &str, kv_dtype: KvDtype) -> u64 {
    let dim = plan.head_dim as u64;
    let head = match (backend, kv_dtype) {
        // candle-transformers keeps f32.
        ("candle", _) => 4 * dim,
        (_, KvDtype::F16) => 2 * dim,
        // With a scale in f32.
        (_, KvDtype::Q8) => dim + 4,
    };
    2 * (plan.n_layer * plan.n_head_kv) as u64 * head
}

/// Reading and computing go on at once, so the longer one sets the time.
fn floor(bytes: f64, compute: f64, peaks: &Peaks) -> Floor {
    let read = bytes / peaks.bandwidth;
    if read >= compute {
        Floor { seconds: read, by: "bandwidth" }
    } else {
        Floor { seconds: compute, by: "compute" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Architecture, GgmlType, RopePlan, RopeScaling};

    /// Phi-3-mini as Q4_K_M: the published shapes, and the types that llama.cpp's rules give them.
    fn phi3_mini() -> (Vec<TensorInfo>, ModelPlan) {
        let mut tensors = Vec::new();
        let mut add = |name: String, kind: GgmlType, shape: &[u64]| {
            let (n_bytes, _) = kind.size_of(shape).unwrap();
            tensors.push(TensorInfo { name, kind, shape: shape.to_vec(), part: 0, offset: 0, n_bytes });
        };
        add("token_embd.weight".to_owned(), GgmlType::Q4_K, &[3072, 32_064]);
        add("output.weight".to_owned(), GgmlType::Q6_K, &[3072, 32_064]);
        add("output_norm.weight".to_owned(), GgmlType::F32, &[3072]);
        for layer in 0..32 {
            let wide = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31].contains(&layer);
            let down = if wide { GgmlType::Q6_K } else { GgmlType::Q4_K };
            add(format!("blk.{layer}.attn_norm.weight"), GgmlType::F32, &[3072]);
            add(format!("blk.{layer}.attn_qkv.weight"), GgmlType::Q5_K, &[3072, 9216]);
            add(format!("blk.{layer}.attn_output.weight"), GgmlType::Q4_K, &[3072, 3072]);
            add(format!("blk.{layer}.ffn_up.weight"), GgmlType::Q4_K, &[3072, 16_384]);
            add(format!("blk.{layer}.ffn_down.weight"), down, &[8192, 3072]);
        }
        let rope = RopePlan {
            dimension_count: 96,
            freq_base: 10_000.0,
            scaling: RopeScaling::None,
            frequency_factors: false,
        };
        let plan = ModelPlan {
            architecture: Architecture::Phi3,
            name: None,
            n_layer: 32,
            n_embd: 3072,
            n_head: 32,
            n_head_kv: 32,
            head_dim: 96,
            n_ff: 8192,
            context_length: 4096,
            vocab_size: 32_064,
            norm_eps: 1e-5,
            rope,
            sliding_window: None,
            tied_embeddings: false,
            biases: false,
            n_expert: 0,
            n_expert_used: 0,
            parameters: 3_821_079_552,
            weight_bytes: tensors.iter().map(|tensor| tensor.n_bytes).sum(),
            type_mix: Vec::new(),
            extra_tensors: Vec::new(),
        };
        (tensors, plan)
    }

    /// Its work with keys and values in f16.
    fn work() -> Work {
        let (tensors, plan) = phi3_mini();
        let kv_token_bytes = kv_token_bytes(&plan, "native", KvDtype::F16);
        Work { kv_token_bytes, ..Work::new(&tensors, &plan) }
    }

    const PEAKS: Peaks = Peaks { bandwidth: 40e9, int8: 1986e9, f32: 400e9 };

    #[test]
    fn the_published_shape_costs_what_was_worked_out_by_hand() {
        let work = work();
        assert_eq!(work.weight_bytes, 2_336_288_256);
        assert_eq!(work.kv_token_bytes, 393_216);
        assert_eq!(work.ops_per_token(), 7_247_757_312);
        assert_eq!(work.bytes_at(2047), 2_336_288_256 + 2048 * 393_216);
    }

    #[test]
    fn keys_and_values_take_what_the_backend_keeps() {
        let (_, plan) = phi3_mini();
        assert_eq!(kv_token_bytes(&plan, "candle", KvDtype::F16), 2 * 393_216);
        assert_eq!(kv_token_bytes(&plan, "native", KvDtype::Q8), 32 * 2 * 32 * (96 + 4));
    }

    #[test]
    fn decode_is_bound_by_memory_and_prefill_by_arithmetic() {
        let work = work();
        // 40 GB/s: 17.1 tokens a second without a context and 12.7 at 2048.
        let empty = work.decode(1, 0, 1, &PEAKS);
        assert_eq!((empty.by, (10.0 / empty.seconds).round()), ("bandwidth", 171.0));
        let deep = work.decode(1, 2047, 1, &PEAKS);
        assert_eq!((10.0 / deep.seconds).round(), 127.0);
        // 1986 GOPS: 274 tokens a second, less the output matrix once.
        let prompt = work.prefill(512, &PEAKS);
        assert_eq!((prompt.by, (512.0 / prompt.seconds).round()), ("compute", 274.0));
    }

    #[test]
    fn sequences_share_the_weights_and_not_their_keys() {
        let work = work();
        let (one, four) = (work.decode(1, 512, 8, &PEAKS), work.decode(4, 512, 8, &PEAKS));
        let kv: u64 = (512..520).map(|position| work.bytes_at(position) - work.weight_bytes).sum();
        let more = (four.seconds - one.seconds) * PEAKS.bandwidth;
        assert!((more - 3.0 * kv as f64).abs() < 1.0, "{more}");
        assert_eq!(work.decode(64, 0, 1, &PEAKS).by, "compute");
        // Five tokens of one sequence read what the last of them reads.
        assert_eq!(
            work.check(100, 5, &PEAKS),
            Floor { seconds: work.bytes_at(104) as f64 / 40e9, by: "bandwidth" }
        );
    }

    #[test]
    fn a_window_ends_the_growth_of_what_is_read() {
        let work = Work { window: Some(1024), ..work() };
        assert_eq!(work.bytes_at(1023), work.bytes_at(4000));
        assert!(work.bytes_at(1022) < work.bytes_at(1023));
    }

    #[test]
    fn an_embedding_counts_where_it_is_the_output_and_strangers_do_not() {
        let (mut tensors, mut plan) = phi3_mini();
        tensors.retain(|tensor| tensor.name != "output.weight");
        plan.tied_embeddings = true;
        let (q4, q6) = (32_064 * 3072 / 256 * 144, 32_064 * 3072 / 256 * 210);
        let tied = Work::new(&tensors, &plan);
        assert_eq!(tied.weight_bytes, 2_336_288_256 - q6 + q4);
        assert_eq!((tied.ops_per_token(), tied.output.int8), (7_247_757_312, 98_500_608));
        tensors.push(TensorInfo { name: "stranger".to_owned(), ..tensors[0].clone() });
        plan.extra_tensors.push("stranger".to_owned());
        assert_eq!(Work::new(&tensors, &plan), tied);
    }

    #[test]
    fn of_a_mixture_a_token_meets_two_experts() {
        let (mut tensors, mut plan) = phi3_mini();
        let dense = Work::new(&tensors, &plan);
        (plan.architecture, plan.n_expert, plan.n_expert_used) = (Architecture::PhiMoe, 16, 2);
        let shape = vec![3072, 512, 16];
        let (n_bytes, _) = GgmlType::Q4_K.size_of(&shape).unwrap();
        let name = "blk.0.ffn_gate_exps.weight".to_owned();
        tensors.push(TensorInfo { name, kind: GgmlType::Q4_K, shape, part: 0, offset: 0, n_bytes });
        let mixture = Work::new(&tensors, &plan);
        assert_eq!(mixture.weight_bytes - dense.weight_bytes, 2 * 512 * 3072 / 256 * 144);
        assert_eq!(mixture.ops_per_token() - dense.ops_per_token(), 2 * 2 * 512 * 3072);
    }

    #[test]
    fn floats_are_measured_by_the_peak_of_floats() {
        let (mut tensors, plan) = phi3_mini();
        for tensor in &mut tensors {
            tensor.kind = GgmlType::F16;
        }
        let work = Work::new(&tensors, &plan);
        let expected = (7_247_757_312.0 * 512.0 + 2.0 * 98_500_608.0) / 400e9;
        assert!((work.prefill(512, &PEAKS).seconds - expected).abs() < 1e-9);
    }
}
