//! The logits of token ids, as raw little-endian f32: to compare engines, files or settings.
//!
//! ```text
//! cargo run --release --example logits -- model.gguf 1,306,4658 1,15043 > rows.f32
//! cargo run --release --example logits -- model.gguf backend=candle threads=1 chunk=512 1,306,4658 > rows.f32
//! ```
//!
//! Each list of ids is a sequence of its own. A row, as long as the vocabulary, is written for every token of it; `chunk`
//! tokens (1 unless said otherwise) go through the model in one pass.

use std::io::Write;
use std::path::PathBuf;

use phicandle::engine::{Backend, LoadOptions, LoadedModel, ModelSource};
use phicandle::model::{Batch, KvDtype, Logits, MemoryMode, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("The first argument is a model file.")?);
    let mut options = LoadOptions::new(ModelSource::File(path));
    let (mut chunk, mut sequences) = (1, Vec::new());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("backend", value)) => options.backend = Backend::parse(value)?,
            Some(("threads", value)) => options.threads = Some(value.parse()?),
            Some(("context", value)) => options.context_length = Some(value.parse()?),
            Some(("memory", value)) => options.memory = MemoryMode::parse(value)?,
            Some(("kv", value)) => options.kv_dtype = KvDtype::parse(value)?,
            Some(("chunk", value)) => chunk = value.parse::<usize>()?.max(1),
            Some((name, _)) => return Err(format!("There is no option {name:?}.").into()),
            None => {
                sequences.push(argument.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?);
            }
        }
    }
    let mut loaded = LoadedModel::load(&options)?;
    let model = loaded.model();
    let mut logits = Logits::default();
    let mut out = std::io::stdout().lock();
    for sequence in sequences {
        let factors = model.limits().factors(sequence.len());
        for (index, tokens) in sequence.chunks(chunk).enumerate() {
            let run = Run {
                slot: 0,
                factors,
                start: index * chunk,
                tokens: tokens.to_vec(),
                logits_from: 0,
                layers: None,
            };
            model.forward(&Batch { runs: vec![run] }, &mut logits, &|| false)?;
            for row in logits.rows_mut() {
                let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
                out.write_all(&bytes)?;
            }
        }
        model.release(0);
    }
    Ok(())
}
