//! A scripted model whose keys and values are the tokens themselves, in blocks that sequences share: what it writes depends on
//! every token before, so a wrong block shows in the text.

use super::*;
use crate::kernels::{KV_BLOCK, KvShape, Spare};
use crate::model::{KvBlock, Run};

/// Letters, of which the texts are.
pub(super) const LETTERS: u32 = 26;

/// Blocks as small as they come: 64 tokens of four bytes fit.
const SHAPE: KvShape = KvShape { layers: 1, kv_heads: 1, head_dim: 2, dtype: crate::model::KvDtype::F16 };

pub(super) struct Reader {
    pub(super) limits: Limits,
    spare: Arc<Spare>,
    /// By slot: what is read with short factors, and with long ones.
    slots: Vec<[Vec<Arc<KvBlock>>; 2]>,
    /// How many tokens are in each.
    lens: Vec<[usize; 2]>,
    /// The run whose tokens wait behind some of the layers in each.
    halfway: Vec<[Option<Run>; 2]>,
    /// The runs of each pass.
    pub(super) passes: Vec<Vec<Run>>,
    /// The most blocks that there were.
    pub(super) most: usize,
    /// Blocks that the system gives at most.
    pub(super) system: usize,
}

/// What comes after `text`: a letter that depends on all of it, though one text in two goes on as it went before.
pub(super) fn next_letter(text: &[u32]) -> u32 {
    let sum = text.iter().fold(7_u64, |sum, &token| sum.wrapping_mul(31).wrapping_add(u64::from(token)));
    let habit = text.iter().rev().take(2).fold(3_u64, |sum, &token| sum * 29 + u64::from(token));
    (if text[0].is_multiple_of(2) { habit % 7 } else { (sum >> 7) % u64::from(LETTERS) }) as u32
}

impl Reader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            spare: Arc::new(Spare::new(0)),
            slots: vec![Default::default(); limits.slots],
            lens: vec![Default::default(); limits.slots],
            halfway: vec![Default::default(); limits.slots],
            passes: Vec::new(),
            most: 0,
            system: usize::MAX,
        }
    }

    fn token(&self, slot: usize, reading: usize, position: usize) -> u32 {
        let bytes = self.slots[slot][reading][position / KV_BLOCK].bytes();
        let at = position % KV_BLOCK * 4;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Behind any but the last layer, there is room for tokens, and no more.
    fn write(&mut self, run: &Run) -> Result<()> {
        let reading = usize::from(run.factors == Factors::Long);
        let is_last = run.depth(self.limits.layers).end == self.limits.layers;
        let blocks = &mut self.slots[run.slot][reading];
        blocks.truncate(run.start.div_ceil(KV_BLOCK));
        for (position, token) in (run.start..).zip(&run.tokens) {
            let (number, at) = (position / KV_BLOCK, position % KV_BLOCK * 4);
            let mut bytes = match blocks.get(number) {
                Some(block) => block.bytes().to_vec(),
                None => vec![0xff; SHAPE.block_bytes().unwrap()],
            };
            let known = if is_last { *token } else { !token };
            bytes[at..at + 4].copy_from_slice(&known.to_le_bytes());
            blocks.truncate(number);
            if self.spare.lent() >= self.system {
                return Err(Error::new(ErrorKind::OutOfMemory { needed: 1, available: 0 }, "No.", "Less."));
            }
            blocks.push(Arc::new(KvBlock::from_bytes(&SHAPE, &self.spare, &bytes)?));
        }
        if is_last {
            self.lens[run.slot][reading] = run.start + run.tokens.len();
        }
        Ok(())
    }

    /// Checks that `run` goes on with the tokens that wait, if they do not begin, and has them wait again.
    fn pass_on(&mut self, run: &Run) {
        let (layers, reading) = (self.limits.layers, usize::from(run.factors == Factors::Long));
        let (depth, halfway) = (run.depth(layers), &mut self.halfway[run.slot][reading]);
        assert!(!depth.is_empty() && depth.end <= layers, "{run:?}");
        let waiting = halfway.take().filter(|_| depth.start > 0);
        let waiting = waiting.map(|waiting| (waiting.depth(layers).end, waiting.start, waiting.tokens));
        assert_eq!(waiting.is_some(), depth.start > 0, "nothing waits for {run:?}");
        if let Some(waiting) = waiting {
            assert_eq!(waiting, (depth.start, run.start, run.tokens.clone()));
        }
        *halfway = (depth.end < layers).then(|| run.clone());
        assert!(halfway.is_none() || run.logit_rows() == 0, "{run:?}");
    }
}

impl Forward for Reader {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, _: &dyn Fn() -> bool) -> Result<bool> {
        logits.reset(self.limits.vocab_size);
        for run in &batch.runs {
            let reading = usize::from(run.factors == Factors::Long);
            assert!(run.start == 0 || run.start <= self.lens[run.slot][reading], "{run:?} leaves a gap");
            self.pass_on(run);
            self.write(run)?;
            let end = run.start + run.tokens.len();
            let text: Vec<u32> = (0..end).map(|position| self.token(run.slot, reading, position)).collect();
            for position in run.start + run.logits_from..end {
                logits.push_row()[next_letter(&text[..=position]) as usize] = 10.0;
            }
        }
        self.passes.push(batch.runs.clone());
        self.most = self.most.max(self.spare.lent());
        Ok(true)
    }

    fn release(&mut self, slot: usize) {
        self.slots[slot] = Default::default();
        self.lens[slot] = Default::default();
        self.halfway[slot] = Default::default();
    }

    fn forget(&mut self, slot: usize, factors: Factors) {
        let reading = usize::from(factors == Factors::Long);
        self.slots[slot][reading].clear();
        self.lens[slot][reading] = 0;
        self.halfway[slot][reading] = None;
    }

    fn kv_bytes(&self, slot: usize) -> u64 {
        self.slots[slot].iter().flatten().count() as u64
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        Some(self)
    }
}

impl BlockCache for Reader {
    fn block(&self, slot: usize, factors: Factors, number: usize) -> Option<Arc<KvBlock>> {
        self.slots[slot][usize::from(factors == Factors::Long)].get(number).cloned()
    }

    fn adopt(&mut self, slot: usize, factors: Factors, blocks: &[Arc<KvBlock>], len: usize) -> Result<()> {
        let reading = usize::from(factors == Factors::Long);
        self.slots[slot][reading] = blocks.to_vec();
        self.lens[slot][reading] = len;
        self.halfway[slot][reading] = None;
        Ok(())
    }

    fn block_from(&self, bytes: &[u8]) -> Result<Arc<KvBlock>> {
        Ok(Arc::new(KvBlock::from_bytes(&SHAPE, &self.spare, bytes)?))
    }

    fn blocks(&self) -> usize {
        self.spare.lent()
    }

    fn growth(&self, run: &Run) -> isize {
        let reading = usize::from(run.factors == Factors::Long);
        let blocks = &self.slots[run.slot][reading];
        let kept = blocks.len().min(run.start.div_ceil(KV_BLOCK));
        let freed = blocks[kept..].iter().filter(|block| Arc::strong_count(block) == 1).count();
        let fresh = (run.start + run.tokens.len()).div_ceil(KV_BLOCK) - kept;
        let copied =
            !run.start.is_multiple_of(KV_BLOCK) && Arc::strong_count(&blocks[run.start / KV_BLOCK]) > 1;
        (fresh + usize::from(copied)).cast_signed() - freed.cast_signed()
    }
}
