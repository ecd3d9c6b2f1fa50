//! Trains the demo model that ships inside the Python package, and reports how well it writes haiku.
//!
//! `cargo run --release --example train_demo` trains, writes `python/phicandle/demo.gguf` and reports;
//! with `--report` it only reports on the file that is there.

mod export;
mod first_weights;
mod grammar;
mod lesson;
mod network;
mod operations;
mod report;
mod request;
mod subject;
mod syllables;
mod training;
mod vocabulary;

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;

use grammar::Grammar;
use lesson::{Form, Teacher};
use network::{Network, Sizes};
use report::{Examiner, HeldOut};
use request::Requests;
use subject::Subject;
use syllables::Dictionary;
use training::Schedule;
use vocabulary::Vocabulary;

const LINES: &str = include_str!("data/lines.txt");
const SPECIALS: &str = include_str!("data/specials.txt");
const SUBJECTS: &str = include_str!("data/subjects.txt");
const HELD_SUBJECTS: &str = include_str!("data/held_out.txt");
const WORDS: &str = include_str!("data/words.txt");
const SYLLABLES: &str = include_str!("data/syllables.txt");
const WORDINGS: &str = include_str!("data/wordings.txt");
const HELD_TALK: &str = include_str!("data/held_talk.txt");
const HELD_WORDINGS: &str = include_str!("data/held_wordings.txt");

/// Trains the demo model, or reports on it.
#[derive(Debug, Parser)]
struct Options {
    /// The model file.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/python/phicandle/demo.gguf"))]
    file: PathBuf,
    /// Only report on the file that is there.
    #[arg(long)]
    report: bool,
    /// Only print the vocabulary's size, words that are not one piece a syllable, and samples of the lessons.
    #[arg(long)]
    inspect: bool,
    /// Answer one request and end.
    #[arg(long)]
    ask: Option<String>,
    /// Requests of each sort in the report.
    #[arg(long, default_value_t = 50)]
    requests: usize,
    /// Batches to train for.
    #[arg(long, default_value_t = 7000)]
    steps: usize,
    /// Conversations in a batch.
    #[arg(long, default_value_t = 24)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
    /// Length of a token's vector; heads are 32 long.
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Number of layers.
    #[arg(long, default_value_t = 5)]
    layers: usize,
    /// Length of the gated vector.
    #[arg(long, default_value_t = 384)]
    hidden: usize,
    /// Seed of the weights and of the lessons.
    #[arg(long, default_value_t = 575)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut out = stdout();
    let mut dictionary = Dictionary::default();
    for text in [WORDS, SUBJECTS] {
        dictionary.read(text);
    }
    let grammar = Grammar::read(LINES, SPECIALS, &dictionary)?;
    let vocabulary = Vocabulary::build(&dictionary, &grammar, WORDINGS, SYLLABLES);
    let known = Subject::read(SUBJECTS);
    let requests = Requests::read(
        WORDINGS,
        known.clone(),
        |subject| grammar.has_own_lines(subject),
        &dictionary,
        vocabulary.word_parts(),
    );
    let teacher = Teacher { grammar: &grammar, requests: &requests, vocabulary: &vocabulary };
    if options.inspect {
        return inspect(&dictionary, &teacher, &mut out);
    }
    if !options.report && options.ask.is_none() {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let sizes = Sizes {
            width: options.width,
            layers: options.layers,
            heads: options.width / 32,
            hidden: options.hidden,
            vocabulary: vocabulary.tokens().len(),
        };
        let network = Network::random(sizes, &mut rng)?;
        first_weights::prepare_copying(&network)?;
        writeln!(out, "{} weights, {} tokens", network.parameters(), sizes.vocabulary)?;
        let schedule = Schedule { steps: options.steps, batch: options.batch, rate: options.rate };
        training::train(&network, &teacher, schedule, &mut rng, &mut out)?;
        let bytes = export::gguf(&network, &vocabulary)?;
        std::fs::write(&options.file, &bytes)?;
        writeln!(out, "wrote {} ({} bytes)", options.file.display(), bytes.len())?;
    }

    // The report's own words and subjects: read only now, after everything that trains.
    let mut wider = Dictionary::default();
    for text in [WORDS, SUBJECTS, HELD_SUBJECTS] {
        wider.read(text);
    }
    let held_requests = Requests::read(WORDINGS, known.clone(), |_| false, &wider, vocabulary.word_parts());
    let bytes = std::fs::read(&options.file)?;
    let mut examiner = Examiner::load(&bytes, &teacher, &wider)?;
    if let Some(text) = options.ask {
        for seed in 0..5 {
            let answer = examiner.answer(&teacher.prompt(Form::PHI3, &[], &text), seed)?;
            writeln!(out, "{answer}\n")?;
        }
        return Ok(());
    }
    let entries =
        |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let held_out = HeldOut {
        subjects: Subject::read(HELD_SUBJECTS),
        wordings: entries(HELD_WORDINGS),
        talk: entries(HELD_TALK),
    };
    examiner.report(&held_requests, &known, &held_out, options.requests, &mut out)?;
    Ok(())
}

/// Shows what the lessons are made of.
fn inspect(
    dictionary: &Dictionary,
    teacher: &Teacher<'_>,
    out: &mut dyn Write,
) -> Result<(), Box<dyn Error>> {
    writeln!(out, "{} tokens", teacher.vocabulary.tokens().len())?;
    let show = |ids: &[u32]| {
        let texts =
            ids.iter().map(|&id| teacher.vocabulary.tokens()[id as usize].text.replace('\u{2581}', "_"));
        texts.collect::<Vec<_>>().join("|")
    };
    let mut odd = 0;
    for (word, syllables) in dictionary.iter() {
        let ids = teacher.vocabulary.encode(word, true);
        if ids.len() != syllables.len() {
            odd += 1;
            write!(out, "{} ", show(&ids))?;
        }
    }
    writeln!(out, "\n{odd} words are not one piece a syllable")?;
    let mut rng = StdRng::seed_from_u64(1);
    let mut lengths = 0;
    for i in 0..200 {
        let lesson = teacher.lesson(false, 0.0, &mut rng);
        lengths += lesson.tokens.len();
        if i < 40 {
            writeln!(out, "{}", show(&lesson.tokens).replace("<0x0A>", "/"))?;
        }
    }
    writeln!(out, "{} tokens in a lesson", lengths / 200)?;
    Ok(())
}
