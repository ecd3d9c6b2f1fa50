//! The report: how many answers of the finished file are haiku that name their subject.
//!
//! The file is run by Candle's own `quantized_phi3` and `LogitsProcessor`, with the parameters of the tutorial.

use std::io::{Cursor, Write};

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, IndexOp, Result, Tensor};
use candle_transformers::generation::LogitsProcessor;
use candle_transformers::models::quantized_phi3::ModelWeights;
use candle_transformers::utils::apply_repeat_penalty;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::grammar;
use crate::lesson::{Form, HONEST, Teacher};
use crate::request::{Request, Requests, Wish};
use crate::subject::Subject;
use crate::syllables::Dictionary;

const TEMPERATURE: f64 = 1.0;
const REPEAT_PENALTY: f32 = 1.2;
const REPEAT_LAST_N: usize = 64;
const MAX_TOKENS: usize = 100;

/// What training did not see.
pub(crate) struct HeldOut {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) wordings: Vec<String>,
    pub(crate) talk: Vec<String>,
}

/// How many of a number of answers passed each check.
#[derive(Debug, Default, Clone, Copy)]
struct Score {
    answers: usize,
    three_lines: usize,
    syllables: usize,
    named: usize,
    all: usize,
}

/// Runs the finished file.
pub(crate) struct Examiner<'a> {
    pub(crate) teacher: &'a Teacher<'a>,
    pub(crate) dictionary: &'a Dictionary,
    pub(crate) model: ModelWeights,
}

impl<'a> Examiner<'a> {
    /// Loads the file with Candle.
    pub(crate) fn load(bytes: &[u8], teacher: &'a Teacher<'a>, dictionary: &'a Dictionary) -> Result<Self> {
        let mut reader = Cursor::new(bytes);
        let content = Content::read(&mut reader)?;
        let model = ModelWeights::from_gguf(false, content, &mut reader, &Device::Cpu)?;
        Ok(Self { teacher, dictionary, model })
    }

    /// Samples an answer to a prompt, as the tutorial's program does.
    pub(crate) fn answer(&mut self, prompt: &[u32], seed: u64) -> Result<String> {
        let end = self.teacher.vocabulary.control("<|end|>");
        let mut sampler = LogitsProcessor::new(seed, Some(TEMPERATURE), None);
        let (mut answer, mut next, mut position) = (Vec::new(), prompt.to_vec(), 0);
        while answer.len() < MAX_TOKENS {
            let logits =
                self.model.forward(&Tensor::new(next.as_slice(), &Device::Cpu)?.unsqueeze(0)?, position)?;
            position += next.len();
            let logits = logits.i(0)?.to_dtype(DType::F32)?;
            let recent = &answer[answer.len().saturating_sub(REPEAT_LAST_N)..];
            let token = sampler.sample(&apply_repeat_penalty(&logits, REPEAT_PENALTY, recent)?)?;
            if token == end {
                break;
            }
            answer.push(token);
            next = vec![token];
        }
        Ok(self.teacher.vocabulary.decode(&answer))
    }

    /// Asks `count` requests of each sort and writes the table, with samples and failures.
    pub(crate) fn report(
        &mut self,
        requests: &Requests<'_>,
        known: &[Subject],
        held_out: &HeldOut,
        count: usize,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(575);
        let mut rows = Vec::new();
        for (name, new_subject, new_wording, second) in [
            ("subjects and wordings of the kind trained on", false, false, false),
            ("the same, as the second request of a conversation", false, false, true),
            ("subjects kept out of training", true, false, false),
            ("wordings kept out of training", false, true, false),
            ("both kept out of training", true, true, false),
        ] {
            writeln!(out, "\n# {name}")?;
            let mut score = Score::default();
            for seed in 0..count as u64 {
                let subject =
                    if new_subject { held_out.subjects.choose(&mut rng) } else { known.choose(&mut rng) };
                let topic = subject.and_then(|subject| requests.worded(subject, None, &mut rng));
                let wording = if new_wording {
                    held_out.wordings.choose(&mut rng).cloned().unwrap_or_default()
                } else {
                    requests.wording(true, false, &mut rng)
                };
                let request = requests.fill(&wording, topic, false, &mut rng);
                let mut earlier = Vec::new();
                if second {
                    let first = requests.draw(0.5, &mut rng);
                    let answer = self.teacher.answer(&first, &mut rng);
                    earlier.push((first.text, answer));
                }
                let form = Form { stripped: seed % 4 != 3, ..Form::PHI3 };
                let answer = self.answer(&self.teacher.prompt(form, &earlier, &request.text), seed)?;
                let fault = self.mark(&request, &answer, &mut score);
                if let Some(fault) = fault {
                    writeln!(out, "- {} | {} | {fault}", request.text, answer.replace('\n', " / "))?;
                } else if seed % 10 == 0 {
                    writeln!(out, "+ {} | {}", request.text, answer.replace('\n', " / "))?;
                }
            }
            rows.push((name, score));
        }
        writeln!(out, "\n# other requests, kept out of training")?;
        let mut honest = 0;
        for (seed, text) in held_out.talk.iter().enumerate() {
            let answer = self.answer(&self.teacher.prompt(Form::PHI3, &[], text), seed as u64)?;
            honest += usize::from(answer == HONEST);
            if answer != HONEST {
                writeln!(out, "- {text} | {}", answer.replace('\n', " / "))?;
            }
        }
        writeln!(out, "\n| requests | answers | three lines | 5-7-5 | name the subject | all three |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for (name, s) in rows {
            writeln!(
                out,
                "| {name} | {} | {} | {} | {} | {} |",
                s.answers, s.three_lines, s.syllables, s.named, s.all
            )?;
        }
        writeln!(
            out,
            "\nOther requests kept out of training that got the honest answer: {honest} of {}",
            held_out.talk.len()
        )?;
        Ok(())
    }

    /// Checks an answer, adds it to the score, and says what is wrong with it.
    fn mark(&self, request: &Request, answer: &str, score: &mut Score) -> Option<String> {
        let lines: Vec<&str> = answer.lines().collect();
        let counts: Vec<_> = lines.iter().map(|line| self.dictionary.count(line)).collect();
        let three_lines = lines.len() == 3;
        let syllables = three_lines && counts.iter().enumerate().all(|(at, n)| *n == Ok(grammar::length(at)));
        let plain = |text: &str| {
            let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
            format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase())
        };
        let named = match &request.wish {
            Wish::Haiku { topic: Some(topic), .. } => plain(answer).contains(&plain(&topic.words)),
            _ => true,
        };
        score.answers += 1;
        score.three_lines += usize::from(three_lines);
        score.syllables += usize::from(syllables);
        score.named += usize::from(named);
        score.all += usize::from(syllables && named);
        (!(syllables && named)).then(|| {
            let shown = counts.iter().map(|n| match n {
                Ok(n) => n.to_string(),
                Err(word) => format!("\"{word}\"?"),
            });
            let shown = shown.collect::<Vec<_>>().join("-");
            if named { shown } else { format!("{shown}, subject missing") }
        })
    }
}
