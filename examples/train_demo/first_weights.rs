//! A head start for copying: the first weights of two heads already find "the token after the last one like this".
//!
//! Left to itself, a network of this size takes most of its training to discover that pair of heads (a head that looks
//! one token back, and one that looks for what came after an equal token), and learns nothing about subjects before.

use candle_core::{Device, Result, Tensor, Var};

use crate::network::{Network, ROPE_BASE};

/// Length of a head.
const HEAD: usize = 32;
/// Pairs of a head that turn fast tell neighbours apart; the slow rest hardly turns over a conversation.
const FAST_PAIRS: usize = 6;
/// How sharply the first head looks one token back.
const LOOK_BACK: f32 = 3.0;
/// How sharply the second head looks for an equal token.
const LOOK_FOR: f32 = 1.8;

/// A matrix that can be changed entry by entry.
struct Matrix {
    rows: Vec<Vec<f32>>,
}

impl Matrix {
    fn of(var: &Var) -> Result<Self> {
        Ok(Self { rows: var.as_tensor().to_vec2()? })
    }

    fn put(self, var: &Var) -> Result<()> {
        let shape = var.dims2()?;
        var.set(&Tensor::from_vec(self.rows.concat(), shape, &Device::Cpu)?)
    }
}

/// Changes the first head of the first two layers.
pub(crate) fn prepare_copying(network: &Network) -> Result<()> {
    let [first, second, ..] = network.layers.as_slice() else {
        return Ok(());
    };
    let constant = network.sizes.width - 1;

    // One entry is the same for all tokens, so that a head can ask for a place and not for a token.
    let mut embedding = Matrix::of(&network.embedding)?;
    embedding.rows.iter_mut().for_each(|row| row[constant] = 1.0);
    embedding.put(&network.embedding)?;

    let (mut query, mut key) = (Matrix::of(&first.query)?, Matrix::of(&first.key)?);
    for rows in [&mut query.rows, &mut key.rows] {
        rows.iter_mut().for_each(|row| row[..HEAD].fill(0.0));
    }
    for pair in 0..FAST_PAIRS {
        let turn = 1.0 / ROPE_BASE.powf(2.0 * pair as f32 / HEAD as f32);
        query.rows[constant][pair] = LOOK_BACK;
        key.rows[constant][pair] = LOOK_BACK * turn.cos();
        key.rows[constant][pair + HEAD / 2] = LOOK_BACK * turn.sin();
    }
    query.put(&first.query)?;
    key.put(&first.key)?;

    // What the first head writes about the token before, the second head's key reads back, and its query asks for the
    // same projection of the token that is here.
    let value = Matrix::of(&first.value)?;
    let mut written = Matrix::of(&first.attn_output)?;
    let scale = 0.125 / deviation(&written.rows[..HEAD]);
    written.rows[..HEAD].iter_mut().flatten().for_each(|x| *x *= scale);
    let (mut query, mut key) = (Matrix::of(&second.query)?, Matrix::of(&second.key)?);
    for (at, row) in query.rows.iter_mut().enumerate() {
        for (j, asked) in row[..HEAD].iter_mut().enumerate() {
            let slow = j % (HEAD / 2) >= FAST_PAIRS;
            *asked = if slow { LOOK_FOR * value.rows[at][j] } else { 0.0 };
            key.rows[at][j] = if slow { 0.45 * LOOK_FOR * written.rows[j][at] } else { 0.0 };
        }
    }
    written.put(&first.attn_output)?;
    query.put(&second.query)?;
    key.put(&second.key)?;

    // The second head says what it finds: its output is its value turned round.
    let value = Matrix::of(&second.value)?;
    let mut said = Matrix::of(&second.attn_output)?;
    for (j, row) in said.rows[..HEAD].iter_mut().enumerate() {
        row.iter_mut().enumerate().for_each(|(at, x)| *x = 2.0 * value.rows[at][j]);
    }
    said.put(&second.attn_output)
}

fn deviation(rows: &[Vec<f32>]) -> f32 {
    let count = rows.iter().map(Vec::len).sum::<usize>() as f32;
    (rows.iter().flatten().map(|x| x * x).sum::<f32>() / count).sqrt()
}
