//! What a model costs on this backend, from its header alone. The kernels say how large what they work on is.

use super::limits;
use crate::gguf::{Architecture, ModelPlan, TensorInfo};
use crate::kernels::{Activations, AttentionPlan, Forms, Heads, KvShape, Matrix, family};
use crate::model::{KvDtype, LOGIT_ROWS, MemoryMode, MemoryPlan};

/// Memory that should be available for packed weights, as a share of their size: 13 / 10.
const ROOM: (u64, u64) = (13, 10);

/// What is asked of a model, as far as memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Tokens that all sequences together may hold.
    pub context_length: usize,
    /// How keys and values are kept.
    pub kv_dtype: KvDtype,
    /// Threads that compute.
    pub threads: usize,
    /// Sequences that are computed at once.
    pub slots: usize,
    /// Most rows (tokens) of one pass.
    pub rows: usize,
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
        scratch_bytes: scratch_bytes(tensors, plan, needs, mode),
        available_bytes: available,
        context_length: needs.context_length,
    }
}

/// Bytes of weights in memory of our own, and in pages of the file.
fn weights(tensors: &[TensorInfo], plan: &ModelPlan, mode: MemoryMode) -> (u64, u64) {
    tensors.iter().filter(|tensor| is_used(tensor, plan)).fold((0, 0), |(own, file), tensor| {
        if tensor.shape.len() < 2 {
            // Norms and biases become f32.
            (tensor.shape.iter().product::<u64>().saturating_mul(4).saturating_add(own), file)
        } else if mode == MemoryMode::Mmap || !is_multiplied(tensor, plan) {
            (own, tensor.n_bytes.saturating_add(file))
        } else {
            (packed_bytes(tensor, plan).saturating_add(own), file)
        }
    })
}

/// Whether the model reads the tensor.
fn is_used(tensor: &TensorInfo, plan: &ModelPlan) -> bool {
    !plan.extra_tensors.contains(&tensor.name)
}

/// Whether activations are multiplied with it. Single rows of the embedding are read from the file, unless it is the output
/// matrix too.
fn is_multiplied(tensor: &TensorInfo, plan: &ModelPlan) -> bool {
    tensor.shape.len() >= 2 && (tensor.name != "token_embd.weight" || plan.tied_embeddings)
}

/// Inputs and outputs of a matrix; the outputs of all experts together.
fn sides(tensor: &TensorInfo) -> (usize, usize) {
    let side = |dims: &[u64]| {
        let product = dims.iter().fold(1, |product: u64, &dim| product.saturating_mul(dim));
        usize::try_from(product).unwrap_or(usize::MAX)
    };
    let (row, rest) = tensor.shape.split_at(tensor.shape.len().min(1));
    (side(row), side(rest))
}

/// Bytes of a matrix as the kernels lay it out.
fn packed_bytes(tensor: &TensorInfo, plan: &ModelPlan) -> u64 {
    let (k, rows) = sides(tensor);
    // Gate and up, which the file has in one, are two matrices here, and every expert has one of its own.
    let parts = match plan.architecture {
        Architecture::Phi3 if tensor.name.ends_with("ffn_up.weight") => 2,
        _ if tensor.shape.len() > 2 => plan.n_expert.max(1),
        _ => 1,
    };
    let part = Matrix::packed_bytes(tensor.kind, rows / parts, k);
    part.map_or(tensor.n_bytes, |bytes| (bytes as u64).saturating_mul(parts as u64))
}

fn kv_shape(plan: &ModelPlan, needs: &Needs) -> KvShape {
    KvShape { layers: plan.n_layer, kv_heads: plan.n_head_kv, head_dim: plan.head_dim, dtype: needs.kv_dtype }
}

/// Bytes of keys and values of all sequences together.
fn kv_bytes(plan: &ModelPlan, needs: &Needs) -> u64 {
    kv_shape(plan, needs)
        .bytes(limits::kv_tokens(plan, needs.context_length, needs.slots))
        .map_or(u64::MAX, |bytes| bytes as u64)
}

/// Bytes of activations of the widest pass, of its logits, and of the threads' own scratch.
fn scratch_bytes(tensors: &[TensorInfo], plan: &ModelPlan, needs: &Needs, mode: MemoryMode) -> u64 {
    let query = plan.n_head * plan.head_dim;
    let key = plan.n_head_kv * plan.head_dim;
    // The experts' scores, the output of one, and the sum of those of all.
    let mixture = if plan.n_expert > 0 { plan.n_expert + 2 * plan.n_embd } else { 0 };
    // The residual stream; queries, keys and values; what attention gives; the feed-forward layer; cosines and sines.
    let floats = plan.n_embd + (query + 2 * key) + query + plan.n_ff + plan.rope.dimension_count + mixture;
    // Where prompts enter beside answers, the residual stream of rows that wait behind a layer, and as the next one will leave it.
    let floats = floats + if needs.slots > 1 { 2 * plan.n_embd } else { 0 };
    let rows = 4 * (floats as u64).saturating_mul(needs.rows as u64);
    let matrices = || tensors.iter().filter(|tensor| is_used(tensor, plan) && is_multiplied(tensor, plan));
    // Three rooms for activations: as the kernels of all matrices with such inputs want them.
    let inputs = |tensor: &TensorInfo| match &tensor.name {
        name if name.ends_with("attn_output.weight") => 1,
        name if name.ends_with("ffn_down.weight") || name.ends_with("ffn_down_exps.weight") => 2,
        _ => 0,
    };
    let rooms = [plan.n_embd, query, plan.n_ff].into_iter().enumerate();
    let activations = rooms.fold(0, |sum: u64, (room, k)| {
        let kinds =
            matrices().filter(|tensor| inputs(tensor) == room).filter_map(|tensor| family(tensor.kind));
        let bytes = Activations::bytes(needs.rows, k, kinds.fold(Forms::default(), Forms::with));
        sum.saturating_add(bytes as u64)
    });
    let heads = Heads {
        n_head: plan.n_head,
        n_kv_head: plan.n_head_kv.max(1),
        head_dim: plan.head_dim,
        window: plan.sliding_window,
    };
    let products = matrices().map(|tensor| {
        let (k, _) = sides(tensor);
        Matrix::scratch_bytes(tensor.kind, k, mode != MemoryMode::Mmap, needs.rows)
    });
    let attention = AttentionPlan::scratch_bytes(&heads, &kv_shape(plan, needs));
    let thread = products.fold(attention, usize::max) as u64;
    let logits = 4 * (plan.vocab_size as u64).saturating_mul((LOGIT_ROWS + needs.slots - 1) as u64);
    rows.saturating_add(activations)
        .saturating_add(logits)
        .saturating_add(thread.saturating_mul(needs.threads as u64))
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
            tensors.push(TensorInfo { name, kind, shape: shape.to_vec(), part: 0, offset: 0, n_bytes });
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
            norm_eps: 1e-5,
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
            n_expert_used: 0,
            parameters: 0,
            weight_bytes: 0,
            type_mix: Vec::new(),
            extra_tensors: vec!["left_over.weight".to_owned()],
        };
        (tensors, plan)
    }

    const NEEDS: Needs =
        Needs { context_length: 4096, kv_dtype: KvDtype::F16, threads: 2, slots: 1, rows: 128 };
    const GIB: u64 = 1 << 30;

    /// Weights of a layer of [`phi3`]: 113,246,208 in blocks of 256 to 144 bytes.
    const LAYER: u64 = (9216 + 3072 + 16384) * 3072 / 256 * 144 + 3072 * 8192 / 256 * 144;
    const NORMS: u64 = (2 * 32 + 1) * 3072 * 4;
    const EMBEDDING: u64 = 32064 * 3072 / 256 * 144;
    const OUTPUT: u64 = 32064 * 3072 / 256 * 210;
    /// Each tile of 16 blocks of Q6_K has 32 bytes of padding.
    const PACKED_OUTPUT: u64 = OUTPUT + 32064 * 3072 / 256 / 16 * 32;

    #[test]
    fn packed_weights_have_about_the_size_of_the_files() {
        let (tensors, plan) = phi3(false);
        let (mode, memory) = memory(&tensors, &plan, &NEEDS, MemoryMode::Repack, 8 * GIB);
        assert_eq!(mode, MemoryMode::Repack);
        assert_eq!(memory.weights_bytes, 32 * LAYER + NORMS + PACKED_OUTPUT);
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
        let (_, plan) = phi3(false);
        let bytes = |name: &str, rows| {
            let shape = vec![256, rows];
            let name = name.to_owned();
            packed_bytes(
                &TensorInfo { name, kind: GgmlType::Q4_K, n_bytes: 144 * rows, shape, part: 0, offset: 0 },
                &plan,
            )
        };
        assert_eq!(bytes("blk.0.ffn_down.weight", 16), 16 * 144);
        assert_eq!(bytes("blk.0.ffn_down.weight", 17), 32 * 144);
        assert_eq!(bytes("blk.0.ffn_down.weight", 1), 16 * 144);
        // Each half on its own.
        assert_eq!(bytes("blk.0.ffn_up.weight", 34), 2 * 32 * 144);
    }

    #[test]
    fn experts_are_matrices_of_their_own() {
        let (_, phi3) = phi3(false);
        let plan = ModelPlan { architecture: Architecture::PhiMoe, n_expert: 16, n_expert_used: 2, ..phi3 };
        let tensor = |name: &str, shape: &[u64]| {
            let n_bytes = shape.iter().product::<u64>() / 256 * 144;
            TensorInfo {
                name: name.to_owned(),
                kind: GgmlType::Q4_K,
                n_bytes,
                shape: shape.to_vec(),
                part: 0,
                offset: 0,
            }
        };
        // 6,400 rows are whole tiles; 17 are filled up to 32 in each expert.
        let gate = tensor("blk.0.ffn_gate_exps.weight", &[256, 6400, 16]);
        assert_eq!(packed_bytes(&gate, &plan), gate.n_bytes);
        assert_eq!(packed_bytes(&tensor("blk.0.ffn_down_exps.weight", &[256, 17, 16]), &plan), 16 * 32 * 144);
        let scratch = |plan: &ModelPlan, tensors: &[TensorInfo]| {
            scratch_bytes(tensors, plan, &Needs { rows: 10, ..NEEDS }, MemoryMode::Mmap)
        };
        // Beside the layers: 16 scores, an expert's output and the sum, 10 rows of each.
        let dense = ModelPlan { n_expert: 0, ..plan.clone() };
        assert_eq!(scratch(&plan, &[]) - scratch(&dense, &[]), 4 * 10 * (16 + 2 * 3072));
        // The inner vectors become 8 bits for the second matrix of the experts.
        let down = tensor("blk.0.ffn_down_exps.weight", &[8192, 3072, 16]);
        let other = TensorInfo { name: "blk.0.ffn_up_exps.weight".to_owned(), ..down.clone() };
        assert!(scratch(&plan, &[down]) > scratch(&plan, &[other]) + 10 * (8192 - 3072));
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
        // Values are filled up to whole vectors, keys are not.
        let odd = ModelPlan { head_dim: 80 + 2, ..plan };
        assert_eq!(kv_bytes(&odd, &Needs { context_length: 64, ..NEEDS }), 64 * 32 * 32 * (82 + 96) * 2);
    }

    #[test]
    fn keys_and_values_are_those_that_are_held() {
        let (_, plan) = phi3(false);
        let tokens = |plan: &ModelPlan, context_length, slots| {
            let needs = Needs { context_length, slots, ..NEEDS };
            kv_bytes(plan, &needs) / kv_bytes(plan, &Needs { context_length: 1, ..NEEDS }) * 64
        };
        // A window of 2047 and a run of 192 touch 36 blocks at most.
        assert_eq!([1, 2, 9].map(|slots| tokens(&plan, 10_000, slots)), [36 * 64, 72 * 64, 157 * 64]);
        let scaling = RopeScaling::LongRope { original_context: 4096, attention_factor: None };
        let long = ModelPlan {
            sliding_window: None,
            rope: RopePlan { scaling, ..plan.rope.clone() },
            ..plan.clone()
        };
        assert_eq!([4096, 4097, 10_000].map(|context| tokens(&long, context, 1)), [4096, 8192, 157 * 64]);
        let both = ModelPlan { sliding_window: plan.sliding_window, ..long };
        assert_eq!([4096, 4097].map(|context| tokens(&both, context, 1)), [36 * 64, 72 * 64]);
    }

    #[test]
    fn scratch_grows_with_rows_threads_and_answers() {
        let (tensors, plan) = phi3(false);
        let bytes = |threads, rows, slots| {
            scratch_bytes(&tensors, &plan, &Needs { threads, rows, slots, ..NEEDS }, MemoryMode::Repack)
        };
        let row = bytes(1, 130, 1) - bytes(1, 129, 1);
        assert_eq!(bytes(1, 140, 1) - bytes(1, 130, 1), 10 * row);
        // The residual stream, queries, keys, values, attention, the feed-forward layer and the rotation in f32; then 8 bits.
        let floats = 4 * (3072 + 3 * 3072 + 3072 + 8192 + 96);
        assert!(row > floats + 3072 + 3072 + 8192 && row < (floats + 3072 + 3072 + 8192) * 5 / 4, "{row}");
        // Four more rows of logits; and each row may wait behind a layer.
        assert_eq!(bytes(1, 1, 5) - bytes(1, 1, 1), 4 * 4 * 32064 + 2 * 4 * 3072);
        let thread = bytes(2, 512, 1) - bytes(1, 512, 1);
        assert_eq!(bytes(3, 512, 1) - bytes(1, 512, 1), 2 * thread);
        // The results of two strips of 32 rows, for as many tokens as they meet at a time.
        assert!(thread >= 2 * 64 * 32 * 4);
        assert_eq!(bytes(2, 130, 1) - bytes(1, 130, 1), thread);
        let mapped =
            scratch_bytes(&tensors, &plan, &Needs { threads: 1, rows: 512, ..NEEDS }, MemoryMode::Mmap);
        assert!(mapped >= bytes(1, 512, 1) + 32 * 8192 / 256 * 144, "tiles are made on the fly");
    }

    #[test]
    fn auto_packs_where_there_is_room() {
        let (tensors, plan) = phi3(false);
        let plan = ModelPlan { sliding_window: None, ..plan };
        let choose = |available, context_length| {
            let needs = Needs { context_length, ..NEEDS };
            memory(&tensors, &plan, &needs, MemoryMode::Auto, available).0
        };
        let weights = 32 * LAYER + NORMS + PACKED_OUTPUT;
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
