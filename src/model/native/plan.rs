//! What a model costs on this backend, from its header alone. Every size that the kernels choose is a constant or a line here.

use crate::gguf::{ModelPlan, TensorInfo};
use crate::model::{KvDtype, MemoryMode, MemoryPlan};

/// Rows of a tile of packed weights; the last tile is filled up with zeros.
const TILE_ROWS: u64 = 16;
/// Positions of a block of keys and values: memory for them comes in such blocks.
const KV_BLOCK: u64 = 64;
/// Elements that a head is filled up to a multiple of.
const HEAD_STEP: u64 = 16;
/// Elements of a block of quantised activations, with one scale and a sum for each 16.
const ACTIVATION_BLOCK: u64 = 256;
/// Bytes that go with a block of quantised activations: an f32 scale and 16 sums of 16 bits.
const ACTIVATION_EXTRA: u64 = 4 + 16 * 2;
/// Bytes of scratch of a thread: unpacked weights, scores, and what is in work between them.
const THREAD_SCRATCH: u64 = 1 << 20;
/// Memory that should be available for packed weights, as a share of their size: 13 / 10.
const ROOM: (u64, u64) = (13, 10);

/// What is asked of a model, as far as memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Tokens that a sequence may hold.
    pub context_length: usize,
    /// How keys and values are kept.
    pub kv_dtype: KvDtype,
    /// Threads that compute.
    pub threads: usize,
    /// Most rows (tokens) of one pass.
    pub run_tokens: usize,
}

/// The memory plan of this backend, with `available` bytes to take, and how it would keep the weights: never
/// [`MemoryMode::Auto`], which becomes [`MemoryMode::Repack`] when that fits and leaves room, or else [`MemoryMode::Mmap`].
///
/// `tensors` are those of the header that `plan` was made from.
pub fn memory(
    tensors: &[TensorInfo],
    plan: &ModelPlan,
    needs: &Needs,
    mode: MemoryMode,
    available: u64,
) -> (MemoryMode, MemoryPlan) {
    let packed = with_weights(tensors, plan, needs, MemoryMode::Repack, available);
    let mapped = || (MemoryMode::Mmap, with_weights(tensors, plan, needs, MemoryMode::Mmap, available));
    match mode {
        MemoryMode::Repack => (mode, packed),
        MemoryMode::Mmap => mapped(),
        MemoryMode::Auto => {
            let (share, whole) = ROOM;
            let wanted = u128::from(packed.weights_bytes) * u128::from(share);
            let has_room = wanted <= u128::from(available) * u128::from(whole);
            if packed.fits() && has_room { (MemoryMode::Repack, packed) } else { mapped() }
        }
    }
}

fn with_weights(
    tensors: &[TensorInfo],
    plan: &ModelPlan,
    needs: &Needs,
    mode: MemoryMode,
    available: u64,
) -> MemoryPlan {
    let (weights_bytes, mapped_bytes) = weights(tensors, plan, mode);
    MemoryPlan {
        weights_bytes,
        mapped_bytes,
        kv_bytes: kv_bytes(plan, needs),
        scratch_bytes: scratch_bytes(plan, needs),
        available_bytes: available,
        context_length: needs.context_length,
    }
}

/// Bytes of weights in memory of our own, and in pages of the file.
fn weights(tensors: &[TensorInfo], plan: &ModelPlan, mode: MemoryMode) -> (u64, u64) {
    let used = tensors.iter().filter(|tensor| !plan.extra_tensors.contains(&tensor.name));
    used.fold((0, 0), |(own, file), tensor| {
        // Single rows of the embedding are read from the file, unless it is the output matrix too.
        let only_looked_up = tensor.name == "token_embd.weight" && !plan.tied_embeddings;
        if tensor.shape.len() < 2 {
            (tensor.n_bytes.saturating_add(own), file)
        } else if mode == MemoryMode::Mmap || only_looked_up {
            (own, tensor.n_bytes.saturating_add(file))
        } else {
            (packed_bytes(tensor).saturating_add(own), file)
        }
    })
}

/// Bytes of a matrix in tiles: those of the file, with the rows filled up to whole tiles.
fn packed_bytes(tensor: &TensorInfo) -> u64 {
    let rows = tensor.shape.iter().skip(1).fold(1, |rows: u64, &dim| rows.saturating_mul(dim)).max(1);
    (tensor.n_bytes / rows).saturating_mul(rows.next_multiple_of(TILE_ROWS))
}

/// Bytes of keys and values of one sequence at the full context.
fn kv_bytes(plan: &ModelPlan, needs: &Needs) -> u64 {
    let head = (plan.head_dim as u64).next_multiple_of(HEAD_STEP);
    let (key_and_value, per_value) = match needs.kv_dtype {
        KvDtype::F16 => (2, 2 * head),
        // One f32 scale for each head and position.
        KvDtype::Q8 => (2, head + 4),
    };
    let positions = (needs.context_length as u64).div_ceil(KV_BLOCK).saturating_mul(KV_BLOCK);
    let heads = plan.n_layer as u64 * plan.n_head_kv as u64;
    heads.saturating_mul(key_and_value * per_value).saturating_mul(positions)
}

/// Bytes of activations of the widest pass, of a row of logits, and of the threads' own scratch.
fn scratch_bytes(plan: &ModelPlan, needs: &Needs) -> u64 {
    let (embd, ff) = (plan.n_embd as u64, plan.n_ff as u64);
    let query = plan.n_head as u64 * plan.head_dim as u64;
    let key = plan.n_head_kv as u64 * plan.head_dim as u64;
    let widest = embd.max(query).max(ff);
    let quantised = widest + widest.div_ceil(ACTIVATION_BLOCK) * ACTIVATION_EXTRA;
    // The residual stream, its norm, the three projections, what attention gives, gate and up.
    let floats = 2 * embd + query + 2 * key + query + 2 * ff;
    let row = 4 * floats + quantised;
    let rows = (needs.run_tokens as u64).saturating_mul(row);
    let logits = 4 * plan.vocab_size as u64;
    let threads = (needs.threads as u64).saturating_mul(THREAD_SCRATCH);
    rows.saturating_add(logits).saturating_add(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Architecture, GgmlType, RopePlan, RopeScaling};

    /// Phi-3-mini-4k in Q4_K throughout.
    fn phi3(tied: bool) -> (Vec<TensorInfo>, ModelPlan) {
        let mut tensors = Vec::new();
        let mut add = |name: String, kind: GgmlType, shape: &[u64]| {
            let (n_bytes, _) = kind.size_of(shape).unwrap();
            tensors.push(TensorInfo { name, kind, shape: shape.to_vec(), offset: 0, n_bytes });
        };
        add("token_embd.weight".into(), GgmlType::Q4_K, &[3072, 32064]);
        if !tied {
            add("output.weight".into(), GgmlType::Q6_K, &[3072, 32064]);
        }
        add("output_norm.weight".into(), GgmlType::F32, &[3072]);
        add("left_over.weight".into(), GgmlType::F32, &[3072, 99]);
        for layer in 0..32 {
            let mut add =
                |name: &str, kind, shape: &[u64]| add(format!("blk.{layer}.{name}.weight"), kind, shape);
            add("attn_norm", GgmlType::F32, &[3072]);
            add("attn_qkv", GgmlType::Q4_K, &[3072, 9216]);
            add("attn_output", GgmlType::Q4_K, &[3072, 3072]);
            add("ffn_norm", GgmlType::F32, &[3072]);
            add("ffn_up", GgmlType::Q4_K, &[3072, 16384]);
            add("ffn_down", GgmlType::Q4_K, &[8192, 3072]);
        }
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
            vocab_size: 32064,
            rms_eps: 1e-5,
            rope: RopePlan {
                dimension_count: 96,
                freq_base: 10_000.0,
                scaling: RopeScaling::None,
                frequency_factors: false,
            },
            sliding_window: Some(2047),
            tied_embeddings: tied,
            biases: false,
            n_expert: 0,
            parameters: 0,
            weight_bytes: 0,
            type_mix: Vec::new(),
            extra_tensors: vec!["left_over.weight".to_owned()],
        };
        (tensors, plan)
    }

    const NEEDS: Needs = Needs { context_length: 4096, kv_dtype: KvDtype::F16, threads: 2, run_tokens: 128 };
    const GIB: u64 = 1 << 30;

    /// Weights of a layer of [`phi3`]: 113,246,208 in blocks of 256 to 144 bytes.
    const LAYER: u64 = (9216 + 3072 + 16384) * 3072 / 256 * 144 + 3072 * 8192 / 256 * 144;
    const NORMS: u64 = (2 * 32 + 1) * 3072 * 4;
    const EMBEDDING: u64 = 32064 * 3072 / 256 * 144;
    const OUTPUT: u64 = 32064 * 3072 / 256 * 210;

    #[test]
    fn packed_weights_have_the_size_of_the_files() {
        let (tensors, plan) = phi3(false);
        let (mode, memory) = memory(&tensors, &plan, &NEEDS, MemoryMode::Repack, 8 * GIB);
        assert_eq!(mode, MemoryMode::Repack);
        assert_eq!(memory.weights_bytes, 32 * LAYER + NORMS + OUTPUT);
        assert_eq!(memory.mapped_bytes, EMBEDDING);
        assert_eq!((memory.available_bytes, memory.context_length), (8 * GIB, 4096));
    }

    #[test]
    fn a_tied_embedding_is_packed_as_the_output() {
        let (tensors, plan) = phi3(true);
        let (_, memory) = memory(&tensors, &plan, &NEEDS, MemoryMode::Repack, 8 * GIB);
        assert_eq!((memory.weights_bytes, memory.mapped_bytes), (32 * LAYER + NORMS + EMBEDDING, 0));
    }

    #[test]
    fn mapped_weights_take_next_to_nothing() {
        let (tensors, plan) = phi3(false);
        let (mode, memory) = memory(&tensors, &plan, &NEEDS, MemoryMode::Mmap, 8 * GIB);
        assert_eq!(mode, MemoryMode::Mmap);
        assert_eq!((memory.weights_bytes, memory.mapped_bytes), (NORMS, 32 * LAYER + EMBEDDING + OUTPUT));
    }

    #[test]
    fn rows_are_filled_up_to_tiles() {
        let tensor = |rows| {
            let shape = vec![256, rows];
            TensorInfo { name: String::new(), kind: GgmlType::Q4_K, n_bytes: 144 * rows, shape, offset: 0 }
        };
        assert_eq!(packed_bytes(&tensor(16)), 16 * 144);
        assert_eq!(packed_bytes(&tensor(17)), 32 * 144);
        assert_eq!(packed_bytes(&tensor(1)), 16 * 144);
    }

    #[test]
    fn keys_and_values_come_in_blocks() {
        let (_, plan) = phi3(false);
        let bytes = |context_length, kv_dtype| kv_bytes(&plan, &Needs { context_length, kv_dtype, ..NEEDS });
        // 32 layers, 32 heads, key and value, 96 elements of 2 bytes.
        assert_eq!(bytes(64, KvDtype::F16), 64 * 32 * 32 * 2 * 96 * 2);
        assert_eq!(bytes(1, KvDtype::F16), bytes(64, KvDtype::F16));
        assert_eq!(bytes(65, KvDtype::F16), 2 * bytes(64, KvDtype::F16));
        assert_eq!(bytes(64, KvDtype::Q8), 64 * 32 * 32 * 2 * (96 + 4));
        let odd = ModelPlan { head_dim: 80 + 2, ..plan };
        assert_eq!(kv_bytes(&odd, &Needs { context_length: 64, ..NEEDS }), 64 * 32 * 32 * 2 * 96 * 2);
    }

    #[test]
    fn scratch_grows_with_rows_and_threads() {
        let (_, plan) = phi3(false);
        let bytes = |threads, run_tokens| scratch_bytes(&plan, &Needs { threads, run_tokens, ..NEEDS });
        let row = bytes(1, 2) - bytes(1, 1);
        assert_eq!(bytes(1, 129) - bytes(1, 1), 128 * row);
        assert_eq!(bytes(3, 1) - bytes(1, 1), 2 * THREAD_SCRATCH);
        // At least the residual stream and both halves of the feed-forward layer, in f32.
        assert!(row > 4 * (3072 + 2 * 8192));
    }

    #[test]
    fn auto_packs_where_there_is_room() {
        let (tensors, plan) = phi3(false);
        let choose = |available, context_length| {
            let needs = Needs { context_length, ..NEEDS };
            memory(&tensors, &plan, &needs, MemoryMode::Auto, available).0
        };
        let weights = 32 * LAYER + NORMS + OUTPUT;
        let enough = (weights * 13).div_ceil(10);
        assert_eq!(choose(enough, 64), MemoryMode::Repack);
        assert_eq!(choose(enough - 1, 64), MemoryMode::Mmap);
        assert_eq!(choose(0, 64), MemoryMode::Mmap);
        assert_eq!(choose(u64::MAX, 64), MemoryMode::Repack);
        // 32,768 positions take 12 GiB: with 13 to take, that is possible only when the weights stay in the file.
        assert_eq!(choose(13 * GIB, 32_768), MemoryMode::Mmap);
        assert_eq!(choose(16 * GIB, 32_768), MemoryMode::Repack);
    }
}
