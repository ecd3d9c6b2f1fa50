//! Small models of random weights in any type, written byte by byte.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use phicandle::gguf::GgmlType;

/// What a model looks like. [`Shape::default`] has three layers and grouped heads, with rows of two super-blocks or fewer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// `phi3`, `llama`, `phi2` or `phimoe`.
    pub(crate) architecture: &'static str,
    /// The type of each matrix, by the place of it: q, k, v; the attention's output; gate and up; down; the embeddings; the
    /// output, `None` where that is the embeddings.
    pub(crate) qkv: GgmlType,
    pub(crate) mixed: GgmlType,
    pub(crate) up: GgmlType,
    pub(crate) down: GgmlType,
    pub(crate) embeddings: GgmlType,
    pub(crate) output: Option<GgmlType>,
    pub(crate) embd: usize,
    pub(crate) ff: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rope_dim: usize,
    pub(crate) window: Option<u32>,
    /// The original context of a long-rope model.
    pub(crate) original: Option<u32>,
}

/// Entries of the vocabulary: no multiple of 16.
pub(crate) const VOCABULARY: usize = 101;
/// Tokens that the models are made for.
pub(crate) const CONTEXT: usize = 512;
pub(crate) const LAYERS: usize = 3;
/// Experts of `phimoe`: so many that a token alone meets few of them.
const EXPERTS: usize = 5;

impl Shape {
    /// Every matrix of one type.
    pub(crate) fn of(kind: GgmlType) -> Self {
        Self {
            architecture: "phi3",
            qkv: kind,
            mixed: kind,
            up: kind,
            down: kind,
            embeddings: kind,
            output: Some(kind),
            embd: 256,
            ff: 256,
            heads: 8,
            kv_heads: 2,
            head_dim: 32,
            rope_dim: 32,
            window: None,
            original: None,
        }
    }

    /// Writes a file of this shape into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("model.gguf");
        std::fs::write(&path, self.file().bytes()).unwrap();
        path
    }

    /// The same in version 2 of the format, which differs in its number only.
    pub(crate) fn write_v2(&self, folder: &Path) -> PathBuf {
        let path = folder.join("v2.gguf");
        let mut bytes = self.file().bytes();
        bytes[4] = 2;
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The same in parts as `gguf-split` writes them, the first without tensors; returns their paths.
    pub(crate) fn write_parts(&self, folder: &Path, count: usize) -> Vec<PathBuf> {
        let mut whole = self.file();
        let all = whole.tensors.len();
        let mut paths = Vec::new();
        for number in 0..count {
            let mut part = Writer::new(self.architecture);
            part.keys = if number == 0 { std::mem::take(&mut whole.keys) } else { Vec::new() };
            for (key, kind, value) in [
                ("split.no", 2, &(number as u16).to_le_bytes()[..]),
                ("split.count", 2, &(count as u16).to_le_bytes()),
                ("split.tensors.count", 5, &(all as i32).to_le_bytes()),
            ] {
                part.keys.push([&text(key)[..], &u32::to_le_bytes(kind), value].concat());
            }
            let left = count - number;
            let share = if number == 0 { 0 } else { whole.tensors.len().div_ceil(left) };
            part.tensors = whole.tensors.drain(..share).collect();
            let path = folder.join(format!("model-{:05}-of-{count:05}.gguf", number + 1));
            std::fs::write(&path, part.bytes()).unwrap();
            paths.push(path);
        }
        paths
    }

    /// The same behind a tensor of `hole` bytes, a multiple of 32, which nothing reads and which takes no room on most disks.
    pub(crate) fn write_behind_hole(&self, folder: &Path, hole: u64) -> io::Result<PathBuf> {
        let mut file = self.file();
        file.tensors.insert(0, ("padding.weight".to_owned(), vec![hole / 4], GgmlType::F32, Vec::new()));
        let path = folder.join("behind.gguf");
        let mut written = std::fs::File::create(&path)?;
        written.write_all(&file.header())?;
        written.seek(SeekFrom::Current(hole as i64))?;
        written.write_all(&file.data())?;
        Ok(path)
    }

    fn file(&self) -> Writer {
        let mut file = Writer::new(self.architecture);
        for (key, value) in [
            ("block_count", LAYERS),
            ("context_length", CONTEXT),
            ("embedding_length", self.embd),
            ("feed_forward_length", self.ff),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.rope_dim),
        ] {
            file.number(key, 4, &(value as u32).to_le_bytes());
        }
        if let Some(window) = self.window {
            file.number("attention.sliding_window", 4, &window.to_le_bytes());
        }
        if let Some(original) = self.original {
            file.number("rope.scaling.original_context_length", 4, &original.to_le_bytes());
            for (name, most) in [("short", 0.5), ("long", 30.0)] {
                let pairs = self.rope_dim / 2;
                let factors = (0..pairs).map(|pair| 1.0 + most * pair as f32 / pairs as f32);
                file.vector(&format!("rope_factors_{name}.weight"), factors);
            }
        }
        let layer_norm = matches!(self.architecture, "phi2" | "phimoe");
        let epsilon = if self.architecture == "phi2" {
            "attention.layer_norm_epsilon"
        } else {
            "attention.layer_norm_rms_epsilon"
        };
        file.number(epsilon, 6, &1e-5_f32.to_le_bytes());
        if self.architecture == "phimoe" {
            file.number("expert_count", 4, &(EXPERTS as u32).to_le_bytes());
            file.number("expert_used_count", 4, &2_u32.to_le_bytes());
        }
        let (wide, narrow) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        file.matrix("token_embd", self.embeddings, self.embd, VOCABULARY);
        for layer in 0..LAYERS {
            let name = |name: &str| format!("blk.{layer}.{name}");
            let mut matrix = |part: &str, kind, columns, rows| {
                file.matrix(&name(part), kind, columns, rows);
                let has_bias = match self.architecture {
                    "phi2" => true,
                    "phimoe" => part.starts_with("attn"),
                    _ => false,
                };
                if has_bias {
                    file.bias(&name(part), rows);
                }
            };
            matrix("attn_output", self.mixed, wide, self.embd);
            if self.architecture == "phi3" {
                matrix("attn_qkv", self.qkv, self.embd, wide + 2 * narrow);
            } else {
                matrix("attn_q", self.qkv, self.embd, wide);
                matrix("attn_k", self.qkv, self.embd, narrow);
                matrix("attn_v", self.qkv, self.embd, narrow);
            }
            match self.architecture {
                "phi3" => matrix("ffn_up", self.up, self.embd, 2 * self.ff),
                "phi2" => matrix("ffn_up", self.up, self.embd, self.ff),
                "llama" => {
                    matrix("ffn_gate", self.up, self.embd, self.ff);
                    matrix("ffn_up", self.up, self.embd, self.ff);
                }
                _ => {
                    matrix("ffn_gate_inp", GgmlType::F32, self.embd, EXPERTS);
                    file.stack(&name("ffn_gate_exps"), self.up, self.embd, self.ff);
                    file.stack(&name("ffn_up_exps"), self.up, self.embd, self.ff);
                    file.stack(&name("ffn_down_exps"), self.down, self.ff, self.embd);
                }
            }
            if self.architecture != "phimoe" {
                file.matrix(&name("ffn_down"), self.down, self.ff, self.embd);
            }
            if self.architecture == "phi2" {
                file.bias(&name("ffn_down"), self.embd);
            } else {
                file.norm(&name("ffn_norm"), self.embd, layer_norm);
            }
            file.norm(&name("attn_norm"), self.embd, layer_norm);
        }
        file.norm("output_norm", self.embd, layer_norm);
        if let Some(kind) = self.output {
            file.matrix("output", kind, self.embd, VOCABULARY);
        }
        if layer_norm {
            file.bias("output", VOCABULARY);
        }
        file
    }
}

/// Random numbers (SplitMix64; Steele, Lea and Flood, 2014).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| (self.next() % VOCABULARY as u64) as u32).collect()
    }
}

struct Writer {
    architecture: &'static str,
    numbers: Numbers,
    keys: Vec<Vec<u8>>,
    tensors: Vec<(String, Vec<u64>, GgmlType, Vec<u8>)>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

/// The half-precision number nearest to zero from `value`, which is below 65504 in size.
fn half(value: f32) -> [u8; 2] {
    let size = value.abs();
    let bits = if size < 2_f32.powi(-14) {
        (size * 2_f32.powi(24)) as u16
    } else {
        ((size.to_bits() >> 13) - (112 << 10)) as u16
    };
    (bits | ((value.to_bits() >> 16) as u16 & 0x8000)).to_le_bytes()
}

impl Writer {
    fn new(architecture: &'static str) -> Self {
        let key = [&text("general.architecture")[..], &8_u32.to_le_bytes(), &text(architecture)].concat();
        Self { architecture, numbers: Numbers(7), keys: vec![key], tensors: Vec::new() }
    }

    fn number(&mut self, key: &str, kind: u32, value: &[u8]) {
        let name = text(&format!("{}.{key}", self.architecture));
        self.keys.push([&name[..], &kind.to_le_bytes(), value].concat());
    }

    fn norm(&mut self, name: &str, length: usize, has_bias: bool) {
        let data = (0..length).flat_map(|_| (1.0 + 0.1 * self.numbers.unit()).to_le_bytes()).collect();
        self.tensors.push((format!("{name}.weight"), vec![length as u64], GgmlType::F32, data));
        if has_bias {
            self.bias(name, length);
        }
    }

    fn vector(&mut self, name: &str, values: impl Iterator<Item = f32>) {
        let data: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        self.tensors.push((name.to_owned(), vec![data.len() as u64 / 4], GgmlType::F32, data));
    }

    fn bias(&mut self, name: &str, length: usize) {
        let data = (0..length).flat_map(|_| (0.1 * self.numbers.unit()).to_le_bytes()).collect();
        self.tensors.push((format!("{name}.bias"), vec![length as u64], GgmlType::F32, data));
    }

    /// A matrix for each expert.
    fn stack(&mut self, name: &str, kind: GgmlType, columns: usize, rows: usize) {
        self.matrix(name, kind, columns, rows * EXPERTS);
        if let Some((_, shape, ..)) = self.tensors.last_mut() {
            *shape = vec![columns as u64, rows as u64, EXPERTS as u64];
        }
    }

    /// A matrix whose products with a vector are about as large as the vector.
    fn matrix(&mut self, name: &str, kind: GgmlType, columns: usize, rows: usize) {
        let count = columns * rows;
        let spread = (columns as f32).powf(-0.5);
        let data = match kind {
            GgmlType::F32 => (0..count).flat_map(|_| (self.numbers.unit() * spread).to_le_bytes()).collect(),
            GgmlType::F16 => (0..count).flat_map(|_| half(self.numbers.unit() * spread)).collect(),
            GgmlType::BF16 => (0..count)
                .flat_map(|_| (((self.numbers.unit() * spread).to_bits() >> 16) as u16).to_le_bytes())
                .collect(),
            _ => self.blocks(kind, count / kind.block_size(), spread),
        };
        self.tensors.push((format!("{name}.weight"), vec![columns as u64, rows as u64], kind, data));
    }

    /// Random blocks, whose half-precision scales alone are chosen.
    fn blocks(&mut self, kind: GgmlType, count: usize, spread: f32) -> Vec<u8> {
        use GgmlType::*;
        // Where the scale is, how far the values spread when it is 1, and the same for what is added or subtracted: its
        // ratio to the scale makes the mean zero.
        let (at, unit, least) = match kind {
            Q4_0 => (0, 4.6, None),
            Q4_1 => (0, 4.6, Some((2, -7.5))),
            Q5_0 => (0, 9.2, None),
            Q5_1 => (0, 9.2, Some((2, -15.5))),
            Q8_0 => (0, 74.0, None),
            Q2_K => (80, 13.9, Some((82, 1.5))),
            Q3_K => (108, 43.0, None),
            Q4_K => (0, 258.0, Some((2, 7.5))),
            Q5_K => (0, 527.0, Some((2, 15.5))),
            Q6_K => (208, 1366.0, None),
            IQ4_NL => (0, 69.0, None),
            IQ4_XS => (0, 1277.0, None),
            _ => panic!("{kind} is no type of weights"),
        };
        let size = kind.type_size();
        let mut data: Vec<u8> = (0..count * size).map(|_| self.numbers.next() as u8).collect();
        for block in data.chunks_exact_mut(size) {
            let scale = spread / unit * (1.0 + 0.3 * self.numbers.unit());
            block[at..at + 2].copy_from_slice(&half(scale));
            if let Some((at, ratio)) = least {
                block[at..at + 2].copy_from_slice(&half(scale * ratio));
            }
        }
        data
    }

    fn bytes(&self) -> Vec<u8> {
        [self.header(), self.data()].concat()
    }

    /// What stands before the data.
    fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        let mut offset = 0;
        for (name, shape, kind, _) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((shape.len() as u32).to_le_bytes());
            bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend((*kind as u32).to_le_bytes());
            bytes.extend(u64::to_le_bytes(offset));
            let blocks = shape.iter().product::<u64>() / kind.block_size() as u64;
            offset += (blocks * kind.type_size() as u64).next_multiple_of(32);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes
    }

    fn data(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (.., data) in &self.tensors {
            bytes.resize(usize::next_multiple_of(bytes.len(), 32), 0);
            bytes.extend(data);
        }
        bytes
    }
}
