//! The training loop: AdamW, a warm-up, a cosine, and a penalty that keeps the logits near log-probabilities.

use std::io::Write;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::rngs::StdRng;

use crate::lesson::{Lesson, Teacher};
use crate::network::Network;
use crate::operations::Surprise;

/// How long and how fast to learn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Number of batches.
    pub(crate) steps: usize,
    /// Conversations of one turn in a batch; of several turns there are a third as many.
    pub(crate) batch: usize,
    /// The highest learning rate.
    pub(crate) rate: f64,
}

/// Batches over which the learning rate rises.
const WARM_UP: usize = 100;
/// Every so many batches, one is of conversations of several turns.
const LONG_EVERY: usize = 6;
/// Weight of the squared log of the normaliser. With it near zero a certain token's logit is near zero too, and all
/// others are negative: the repeat penalty then hardly touches a certain token, however often it came before.
const NORMALISER_WEIGHT: f32 = 0.02;

/// Trains `network` in place and writes a line of progress every 50 batches.
pub(crate) fn train(
    network: &Network,
    teacher: &Teacher<'_>,
    schedule: Schedule,
    rng: &mut StdRng,
    progress: &mut dyn Write,
) -> Result<()> {
    let mut optimiser = AdamW::new(
        network.vars(),
        ParamsAdamW { lr: schedule.rate, beta1: 0.9, beta2: 0.97, eps: 1e-8, weight_decay: 0.02 },
    )?;
    let started = Instant::now();
    let mut recent = 0.0;
    for step in 0..schedule.steps {
        let long = step % LONG_EVERY == LONG_EVERY - 1;
        let count = if long { schedule.batch.div_ceil(3) } else { schedule.batch };
        let lessons: Vec<Lesson> = (0..count).map(|_| teacher.lesson(long, rng)).collect();
        let loss = loss(network, &lessons)?;
        optimiser.set_learning_rate(rate(schedule, step));
        optimiser.step(&loss.backward()?)?;
        recent += f64::from(loss.to_scalar::<f32>()?) / 50.0;
        if (step + 1) % 50 == 0 {
            let seconds = started.elapsed().as_secs();
            writeln!(progress, "batch {:5}  loss {recent:.4}  {seconds} s", step + 1)?;
            progress.flush()?;
            recent = 0.0;
        }
    }
    Ok(())
}

fn rate(schedule: Schedule, step: usize) -> f64 {
    let warm = ((step + 1) as f64 / WARM_UP as f64).min(1.0);
    let done = step as f64 / schedule.steps as f64;
    schedule.rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}

/// The mean over the taught tokens of what is minimised.
fn loss(network: &Network, lessons: &[Lesson]) -> Result<Tensor> {
    let length = lessons.iter().map(|lesson| lesson.tokens.len() - 1).max().unwrap_or(1);
    let mut tokens = vec![0u32; lessons.len() * length];
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (i, lesson) in lessons.iter().enumerate() {
        let inputs = lesson.tokens.len() - 1;
        tokens[i * length..i * length + inputs].copy_from_slice(&lesson.tokens[..inputs]);
        for at in 0..inputs {
            if lesson.taught[at + 1] {
                rows.push((i * length + at) as u32);
                targets.push(lesson.tokens[at + 1]);
            }
        }
    }
    let count = rows.len();
    let tokens = Tensor::from_vec(tokens, (lessons.len(), length), &Device::Cpu)?;
    let logits = network.logits(&tokens, &Tensor::from_vec(rows, count, &Device::Cpu)?)?;
    logits.apply_op1(Surprise { targets, weight: NORMALISER_WEIGHT })?.mean_all()
}
