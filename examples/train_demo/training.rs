//! The training loop: AdamW, a warm-up, a cosine, and a penalty that keeps the logits near log-probabilities.

use std::io::Write;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

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
/// The part of the training over which the lessons go from easy to varied.
const BEGINNERS: f64 = 0.25;
/// After so many batches of conversations of one turn comes one of several turns.
const SHORT_BATCHES: usize = 6;
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
    let mut ready = Vec::new();
    let mut recent = [0.0f32; 2];
    for step in 0..schedule.steps {
        let ease = (1.0 - step as f64 / (BEGINNERS * schedule.steps as f64)).max(0.0);
        if ready.is_empty() {
            ready = draw_batches(teacher, schedule.batch, ease, rng);
        }
        let Some(lessons) = ready.pop() else { continue };
        let (loss, shares) = loss(network, &lessons)?;
        optimiser.set_learning_rate(rate(schedule, step));
        optimiser.step(&loss.backward()?)?;
        recent.iter_mut().zip(shares).for_each(|(recent, share)| *recent += share / 50.0);
        if (step + 1) % 50 == 0 {
            let seconds = started.elapsed().as_secs();
            writeln!(
                progress,
                "batch {:5}  loss {:.4}, of subjects {:.4}  {seconds} s",
                step + 1,
                recent[0],
                recent[1]
            )?;
            progress.flush()?;
            recent = [0.0; 2];
        }
    }
    Ok(())
}

/// Several batches at once, in random order. Lessons of about one length go together, so that little is padded.
fn draw_batches(teacher: &Teacher<'_>, size: usize, ease: f64, rng: &mut StdRng) -> Vec<Vec<Lesson>> {
    let mut lessons: Vec<Lesson> =
        (0..size * SHORT_BATCHES).map(|_| teacher.lesson(false, ease, rng)).collect();
    lessons.sort_by_key(|lesson| lesson.tokens.len());
    let mut batches: Vec<Vec<Lesson>> = lessons.chunks(size).map(<[Lesson]>::to_vec).collect();
    batches.push((0..size.div_ceil(3)).map(|_| teacher.lesson(true, ease, rng)).collect());
    batches.shuffle(rng);
    batches
}

fn rate(schedule: Schedule, step: usize) -> f64 {
    let warm = ((step + 1) as f64 / WARM_UP as f64).min(1.0);
    let done = step as f64 / schedule.steps as f64;
    schedule.rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}

/// The weighted mean over the taught tokens, which is minimised, and the means over plain tokens and over subjects.
fn loss(network: &Network, lessons: &[Lesson]) -> Result<(Tensor, [f32; 2])> {
    let length = lessons.iter().map(|lesson| lesson.tokens.len() - 1).max().unwrap_or(1);
    let mut tokens = vec![0u32; lessons.len() * length];
    let (mut rows, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (i, lesson) in lessons.iter().enumerate() {
        let inputs = lesson.tokens.len() - 1;
        tokens[i * length..i * length + inputs].copy_from_slice(&lesson.tokens[..inputs]);
        for at in 0..inputs {
            if lesson.weights[at + 1] > 0.0 {
                weights.push(lesson.weights[at + 1]);
                rows.push((i * length + at) as u32);
                targets.push(lesson.tokens[at + 1]);
            }
        }
    }
    let count = rows.len();
    let tokens = Tensor::from_vec(tokens, (lessons.len(), length), &Device::Cpu)?;
    let logits = network.logits(&tokens, &Tensor::from_vec(rows, count, &Device::Cpu)?)?;
    let surprise = logits.apply_op1(Surprise { targets, weight: NORMALISER_WEIGHT })?;
    let mut sums = [(0.0, 0.0); 2];
    for (surprise, weight) in surprise.to_vec1::<f32>()?.into_iter().zip(&weights) {
        let sum = &mut sums[usize::from(*weight > 1.0)];
        *sum = (sum.0 + surprise, sum.1 + 1.0);
    }
    let shares = sums.map(|(sum, count)| sum / f32::max(count, 1.0));
    let total: f32 = weights.iter().sum();
    let weights = Tensor::from_vec(weights, count, &Device::Cpu)?;
    Ok(((surprise * weights)?.sum_all()?.affine(1.0 / f64::from(total), 0.0)?, shares))
}
