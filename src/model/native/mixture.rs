//! Sparse experts in place of the feed-forward block: each token goes through two of them.

use super::room::Room;
use super::step::Step;
use super::weights::{Expert, NormWeights};
use crate::kernels::{Choice, Forms, Halt, Matrix, Picked, Then};

/// The tokens of one expert.
#[derive(Default)]
struct Share {
    rows: Vec<usize>,
    /// What the expert's output is multiplied by, for each row.
    weights: Vec<f32>,
}

impl Step<'_> {
    /// The tokens are sorted by expert, so that each expert's weights are read once. A token's two outputs are added in the
    /// order of the experts' numbers, whoever else is in the pass, and their sum then goes onto the residual stream.
    pub(super) fn mixture(
        &self,
        room: &mut Room,
        norm: &NormWeights,
        router: &Matrix,
        experts: &[Expert],
    ) -> Result<(), Halt> {
        let k = norm.weight.len();
        let choices = self.choices(room, norm, router)?;
        room.mixed.clear();
        room.mixed.resize(choices.len() * k, 0.0);
        for (expert, share) in experts.iter().zip(shares(&choices, experts.len())) {
            if share.rows.is_empty() {
                continue;
            }
            self.expert(room, norm, expert, &share)?;
            let outputs = room.expert.chunks_exact(k);
            for ((output, &row), weight) in outputs.zip(&share.rows).zip(&share.weights) {
                let mixed = &mut room.mixed[row * k..(row + 1) * k];
                mixed.iter_mut().zip(output).for_each(|(mixed, output)| *mixed += weight * output);
            }
        }
        room.x.iter_mut().zip(&room.mixed).for_each(|(x, mixed)| *x += mixed);
        Ok(())
    }

    /// Two experts for each row.
    fn choices(
        &self,
        room: &mut Room,
        norm: &NormWeights,
        router: &Matrix,
    ) -> Result<Vec<[Choice; 2]>, Halt> {
        self.check()?;
        let k = norm.weight.len();
        let rows = room.x.len() / k;
        let forms = Forms::default().with(router.family());
        self.compute.quantise(&norm.of(&room.x, self.norms), rows, k, forms, &mut room.embd_acts)?;
        room.scores.resize(rows * router.rows(), 0.0);
        self.compute.matmul(&[router], &room.embd_acts, Then::Store, &mut room.scores, self.stop)?;
        Ok(self.compute.route(&room.scores, router.rows()))
    }

    /// SwiGLU of one expert for its rows, to `room.expert`.
    fn expert(
        &self,
        room: &mut Room,
        norm: &NormWeights,
        expert: &Expert,
        share: &Share,
    ) -> Result<(), Halt> {
        let Room { x, embd_acts, hidden, feed_acts, expert: out, .. } = room;
        let rows = share.rows.len();
        let picked = Picked { source: &norm.of(x, self.norms), rows: &share.rows };
        self.swiglu(&picked, rows, expert, [embd_acts, feed_acts], hidden)?;
        out.resize(rows * norm.weight.len(), 0.0);
        self.compute.matmul(&[&expert.down.matrix], feed_acts, Then::Store, out, self.stop)
    }
}

/// The rows of each expert, in ascending order.
fn shares(choices: &[[Choice; 2]], experts: usize) -> Vec<Share> {
    let mut shares: Vec<Share> = (0..experts).map(|_| Share::default()).collect();
    for (row, choices) in choices.iter().enumerate() {
        for choice in choices {
            shares[choice.expert].rows.push(row);
            shares[choice.expert].weights.push(choice.weight);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_both_of_their_experts() {
        let choice = |expert, weight| Choice { expert, weight };
        let shares = shares(&[[choice(2, 1.0), choice(0, 0.5)], [choice(2, 0.75), choice(3, 1.0)]], 4);
        let rows: Vec<&[usize]> = shares.iter().map(|share| &share.rows[..]).collect();
        assert_eq!(rows, [&[0][..], &[], &[0, 1], &[1]]);
        assert_eq!(shares[2].weights, [1.0, 0.75]);
        assert_eq!(shares[0].weights, [0.5]);
    }
}
