//! Keys and values of a sequence, in blocks of 64 positions.

use std::ops::Range;
use std::sync::Arc;

use super::super::simd::LANES;
use super::super::{ALIGNMENT, Arena, Factors};
use super::dtype::KvDtype;
use super::spare::Spare;
use crate::error::{Error, ErrorKind, Result};

/// Positions of a block: block `b` holds positions `64 b` to `64 b + 63`, whatever the sequence.
pub(crate) const BLOCK: usize = 64;
/// Positions whose keys in f16 lie side by side, element by element: as many as a cache line holds. So all lines that a position
/// writes to are one run of memory.
pub(super) const BESIDE: usize = ALIGNMENT / 2;
/// The same of keys in 8 bits, four elements by four elements.
pub(super) const BESIDE_Q8: usize = ALIGNMENT / 4;
/// Largest head: what the tiles' scratch is planned for.
const MAX_HEAD: usize = 512;

/// What the blocks of a model are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KvShape {
    /// Layers, all of which share a block.
    pub(crate) layers: usize,
    /// Key and value heads of a layer.
    pub(crate) kv_heads: usize,
    /// Elements of a head.
    pub(crate) head_dim: usize,
    /// How they are kept.
    pub(crate) dtype: KvDtype,
}

/// Where the parts of one head of one layer of a block are: byte offsets, multiples of 64. What is beyond `head_dim` is zero;
/// the rest, until it is written, is zero or what another sequence of the model left there.
///
/// F16: keys are `[2][head_dim][32 positions]`, values `[64 positions][width]`, f16.
/// Q8: keys are `[4][quads][16 positions][4 elements]`, bytes `q + 128`; values `[64 positions][width]`, i8; both have
/// 64 scales, f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Elements of a row of values: `head_dim` in whole vectors. Those beyond `head_dim` are zero.
    pub(super) width: usize,
    /// Groups of four elements of a key; elements beyond `head_dim` count as zero.
    pub(super) quads: usize,
    /// Positions whose keys lie side by side.
    beside: usize,
    pub(super) key_scales: usize,
    pub(super) values: usize,
    pub(super) value_scales: usize,
    pub(super) bytes: usize,
}

/// The keys and values of 64 positions, in all layers and heads. What they are depends on the tokens up to there and on nothing
/// else, so sequences that begin alike share them.
#[derive(Debug)]
pub struct KvBlock {
    /// Taken out when the block is dropped.
    memory: Option<Arena>,
    spare: Arc<Spare>,
}

/// The keys and values of one sequence. A clone shares the blocks until one of the two writes to them.
#[derive(Debug, Clone)]
pub(crate) struct KvCache {
    shape: KvShape,
    /// What its keys are turned with.
    factors: Factors,
    /// The blocks from `released` on.
    blocks: Vec<Arc<KvBlock>>,
    /// Blocks at the beginning that were given back.
    released: usize,
    len: usize,
    spare: Arc<Spare>,
}

impl KvShape {
    pub(super) fn layout(&self) -> Layout {
        let width = self.head_dim.next_multiple_of(16);
        let quads = self.head_dim.div_ceil(4);
        let scales = BLOCK * size_of::<f32>();
        let (beside, keys, scales, values) = match self.dtype {
            KvDtype::F16 => (BESIDE, BLOCK * self.head_dim * 2, 0, BLOCK * width * 2),
            KvDtype::Q8 => (BESIDE_Q8, BLOCK * quads * 4, scales, BLOCK * width),
        };
        Layout {
            width,
            quads,
            beside,
            key_scales: keys,
            values: keys + scales,
            value_scales: keys + scales + values,
            bytes: keys + values + 2 * scales,
        }
    }

    /// Bytes of a block of 64 positions; `None` when they do not fit into an address.
    pub(crate) fn block_bytes(&self) -> Option<usize> {
        self.layout().bytes.checked_mul(self.kv_heads)?.checked_mul(self.layers)
    }

    /// Bytes for `positions` positions: whole blocks.
    pub(crate) fn bytes(&self, positions: usize) -> Option<usize> {
        self.block_bytes()?.checked_mul(positions.div_ceil(BLOCK))
    }

    /// The bytes of a head within a block.
    pub(super) fn head(&self, layer: usize, head: usize) -> Range<usize> {
        let bytes = self.layout().bytes;
        let start = (layer * self.kv_heads + head) * bytes;
        start..start + bytes
    }
}

impl Layout {
    /// Where what belongs to the first `positions` positions ends.
    pub(super) fn end(&self, positions: usize) -> usize {
        if positions == BLOCK {
            return self.bytes;
        }
        self.values + (self.value_scales - self.values) / BLOCK * positions
    }

    /// The bytes of all keys that lie beside that of the position at `place` of a block, and its own place among them.
    #[inline]
    pub(super) fn beside(&self, place: usize) -> (Range<usize>, usize) {
        let bytes = self.key_scales / (BLOCK / self.beside);
        let start = place / self.beside * bytes;
        (start..start + bytes, place % self.beside)
    }
}

impl KvBlock {
    fn new(shape: &KvShape, spare: &Arc<Spare>) -> Result<Self> {
        let bytes = shape.block_bytes().unwrap_or(usize::MAX);
        match spare.take(bytes) {
            Ok(memory) => Ok(Self { memory: Some(memory), spare: Arc::clone(spare) }),
            Err(error) if matches!(error.kind(), ErrorKind::OutOfMemory { .. }) => Err(Error::new(
                ErrorKind::OutOfMemory { needed: bytes as u64, available: 0 },
                format!(
                    "The system refused {} MiB of memory for the keys and values of {BLOCK} tokens.",
                    bytes.div_ceil(1 << 20)
                ),
                "Use a shorter context, fewer sequences at once, or kv_dtype=\"q8\".",
            )),
            Err(error) => Err(error),
        }
    }

    /// A block that holds `bytes`, as [`KvBlock::bytes`] gave them.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when they are not as many as a block of `shape` has; [`ErrorKind::OutOfMemory`].
    pub(crate) fn from_bytes(shape: &KvShape, spare: &Arc<Spare>, bytes: &[u8]) -> Result<Self> {
        if shape.block_bytes() != Some(bytes.len()) {
            return Err(Error::internal(format!("A block of keys and values has {} bytes.", bytes.len())));
        }
        let mut block = Self::new(shape, spare)?;
        block.bytes_mut().copy_from_slice(bytes);
        Ok(block)
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }

    /// All bytes, to write.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for KvBlock {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.spare.give(memory);
        }
    }
}

impl KvCache {
    /// An empty cache for keys turned with `factors`, which takes no memory yet. What its blocks take comes from `spare`, and
    /// goes back there.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for a shape without layers or heads, or with heads of more than 512 elements or of an odd number.
    pub(crate) fn new(shape: KvShape, factors: Factors, spare: &Arc<Spare>) -> Result<Self> {
        if shape.layers == 0
            || shape.kv_heads == 0
            || shape.head_dim == 0
            || shape.head_dim > MAX_HEAD
            || !shape.head_dim.is_multiple_of(2)
        {
            return Err(Error::internal(format!(
                "Keys and values of {} layers with {} heads of {} elements.",
                shape.layers, shape.kv_heads, shape.head_dim
            )));
        }
        Ok(Self { shape, factors, blocks: Vec::new(), released: 0, len: 0, spare: Arc::clone(spare) })
    }

    /// What its blocks are made of.
    pub(crate) fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// What its keys are turned with: all of them, so that no query meets a key of the other kind.
    pub(crate) fn factors(&self) -> Factors {
        self.factors
    }

    /// The first position that is still there.
    pub(crate) fn start(&self) -> usize {
        self.released * BLOCK
    }

    /// Positions that are filled, in all layers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The end of the positions for which there is memory.
    pub(crate) fn capacity(&self) -> usize {
        (self.released + self.blocks.len()) * BLOCK
    }

    /// Bytes of its blocks, shared ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes().len()).sum()
    }

    /// Makes room for positions up to `end`, so that those from `start` on may be written: blocks that another cache shares
    /// are copied. Call it once per pass, before the first layer; [`KvCache::set_len`] after the last.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when the system refuses; the cache is as useful as before.
    pub(crate) fn reserve(&mut self, start: usize, end: usize) -> Result<()> {
        while self.capacity() < end {
            self.blocks.push(Arc::new(KvBlock::new(&self.shape, &self.spare)?));
        }
        let own = self.within(start / BLOCK)..self.within(end.div_ceil(BLOCK));
        for block in self.blocks.iter_mut().take(own.end).skip(own.start) {
            if Arc::get_mut(block).is_none() {
                let mut own = KvBlock::new(&self.shape, &self.spare)?;
                own.bytes_mut().copy_from_slice(block.bytes());
                *block = Arc::new(own);
            }
        }
        Ok(())
    }

    /// Says that the positions before `len` are filled. More than [`KvCache::capacity`] counts as that.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    /// Forgets the positions from `len` on, and gives back the blocks that hold no other.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks.truncate(self.within(self.len.div_ceil(BLOCK)));
        if self.len == 0 {
            self.released = 0;
        }
    }

    /// Gives back the blocks whose positions all come before `position`: no later query sees them.
    pub(crate) fn release_before(&mut self, position: usize) {
        let passed = self.within(position.min(self.len) / BLOCK);
        self.blocks.drain(..passed);
        self.released += passed;
    }

    /// Block `block`, to share it with another cache; `None` when it is not there.
    pub(crate) fn block(&self, block: usize) -> Option<Arc<KvBlock>> {
        self.blocks.get(block.checked_sub(self.released)?).cloned()
    }

    /// Becomes a sequence of `len` positions, whose blocks from the first on are `blocks`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when there are not as many blocks as that takes, or they are of another shape.
    pub(crate) fn adopt(&mut self, blocks: &[Arc<KvBlock>], len: usize) -> Result<()> {
        let fits = |block: &Arc<KvBlock>| Some(block.bytes().len()) == self.shape.block_bytes();
        if blocks.len() != len.div_ceil(BLOCK) || !blocks.iter().all(fits) {
            return Err(Error::internal(format!("{} blocks for {len} positions.", blocks.len())));
        }
        (self.blocks, self.released, self.len) = (blocks.to_vec(), 0, len);
        Ok(())
    }

    /// How many more blocks will exist when this cache, forgetting what is before `seen` and from `start` on, has made room for
    /// positions up to `end`; negative when there will be fewer.
    pub(crate) fn growth(&self, seen: usize, start: usize, end: usize) -> isize {
        let gone = |block: &&Arc<KvBlock>| Arc::strong_count(block) == 1;
        if start == 0 {
            let freed = self.blocks.iter().filter(gone).count();
            return end.div_ceil(BLOCK).cast_signed() - freed.cast_signed();
        }
        let kept_from = self.within(seen.min(start) / BLOCK);
        let kept_to = self.within(start.div_ceil(BLOCK)).max(kept_from);
        let freed = self.blocks.iter().take(kept_from).chain(self.blocks.iter().skip(kept_to)).filter(gone);
        let kept = self.blocks.len().min(kept_to) + self.released;
        let fresh = end.div_ceil(BLOCK).saturating_sub(kept);
        let shared = |block: &Arc<KvBlock>| Arc::strong_count(block) > 1;
        let partly = !start.is_multiple_of(BLOCK);
        let copied = partly && self.blocks.get(self.within(start / BLOCK)).is_some_and(shared);
        (fresh + usize::from(copied)).cast_signed() - freed.count().cast_signed()
    }

    /// Where block `block` is among those that are left.
    fn within(&self, block: usize) -> usize {
        block.saturating_sub(self.released)
    }

    /// Forgets all positions and gives back their memory.
    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// The bytes of one head in block `block`.
    pub(super) fn head(&self, block: usize, layer: usize, head: usize) -> &[u8] {
        &self.blocks[block - self.released].bytes()[self.shape.head(layer, head)]
    }

    /// Blocks to write to; an error when one is shared or missing.
    pub(super) fn blocks_mut(&mut self, range: Range<usize>) -> Result<impl Iterator<Item = &mut KvBlock>> {
        let range = match range.start.checked_sub(self.released) {
            Some(start) => start..range.end - self.released,
            None => {
                return Err(Error::internal(
                    "Keys and values would be written to a block that was given back.",
                ));
            }
        };
        let blocks = self.blocks.get_mut(range).ok_or_else(|| Error::internal("No room was reserved."))?;
        if blocks.iter_mut().any(|block| Arc::get_mut(block).is_none()) {
            return Err(Error::internal("Keys and values would be written to a block that is shared."));
        }
        Ok(blocks.iter_mut().filter_map(Arc::get_mut))
    }
}

// Heads begin at cache lines.
const _: () = assert!((BLOCK * 2).is_multiple_of(ALIGNMENT) && (BLOCK * 4).is_multiple_of(ALIGNMENT));

// Vectors of positions are whole.
const _: () = assert!(BLOCK.is_multiple_of(BESIDE) && BESIDE.is_multiple_of(LANES) && BESIDE_Q8 == LANES);

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(shape: KvShape) -> Result<KvCache> {
        KvCache::new(shape, Factors::Short, &Arc::new(Spare::new(4, usize::MAX)))
    }

    fn shape(head_dim: usize, dtype: KvDtype) -> KvShape {
        KvShape { layers: 2, kv_heads: 3, head_dim, dtype }
    }

    #[test]
    fn phi_3_takes_what_was_planned() {
        let phi = |dtype| KvShape { layers: 32, kv_heads: 32, head_dim: 96, dtype };
        assert_eq!(phi(KvDtype::F16).bytes(64), Some(64 * 393_216));
        assert_eq!(phi(KvDtype::Q8).bytes(65), Some(2 * 64 * 32 * 32 * 2 * (96 + 4)));
        let mut cache = self::cache(phi(KvDtype::Q8)).unwrap();
        assert_eq!((cache.bytes(), cache.capacity(), cache.len()), (0, 0, 0));
        cache.reserve(0, 65).unwrap();
        assert_eq!(Some(cache.bytes()), cache.shape().bytes(65));
        assert_eq!(cache.capacity(), 128);
    }

    #[test]
    fn parts_are_lines_apart() {
        for head_dim in (2..=512).step_by(2) {
            for dtype in [KvDtype::F16, KvDtype::Q8] {
                let layout = shape(head_dim, dtype).layout();
                for offset in [layout.key_scales, layout.values, layout.value_scales, layout.bytes] {
                    assert_eq!(offset % ALIGNMENT, 0);
                }
                assert!(layout.width >= head_dim && 4 * layout.quads >= head_dim);
                assert!(4 * layout.quads <= layout.width);
            }
        }
    }

    #[test]
    fn memory_grows_and_shrinks_with_the_sequence() {
        let mut cache = self::cache(shape(8, KvDtype::F16)).unwrap();
        cache.reserve(0, 64).unwrap();
        cache.set_len(64);
        cache.reserve(64, 65).unwrap();
        cache.set_len(65);
        assert_eq!((cache.len(), cache.capacity()), (65, 128));
        cache.truncate(64);
        assert_eq!((cache.len(), cache.capacity()), (64, 64));
        cache.truncate(100);
        assert_eq!(cache.len(), 64);
        cache.clear();
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn blocks_that_nobody_looks_back_to_are_given_back() {
        let mut cache = self::cache(shape(8, KvDtype::F16)).unwrap();
        cache.reserve(0, 200).unwrap();
        cache.set_len(200);
        cache.blocks_mut(0..4).unwrap().zip(0..).for_each(|(block, mark)| block.bytes_mut().fill(mark));
        cache.release_before(127);
        assert_eq!((cache.start(), cache.capacity(), cache.len()), (64, 256, 200));
        cache.release_before(100);
        cache.release_before(129);
        assert_eq!((cache.start(), cache.capacity(), cache.len()), (128, 256, 200));
        assert_eq!(Some(cache.bytes()), cache.shape().bytes(128));
        assert_eq!((cache.head(2, 1, 2)[0], cache.head(3, 0, 0)[0]), (2, 3));
        assert!(cache.blocks_mut(1..3).is_err(), "it is gone");
        assert_eq!(cache.blocks_mut(3..4).unwrap().next().unwrap().bytes_mut()[0], 3);
        cache.reserve(200, 300).unwrap();
        cache.set_len(300);
        assert_eq!((cache.start(), cache.capacity()), (128, 320));
        cache.release_before(1000);
        assert_eq!((cache.start(), cache.len()), (256, 300), "what it does not have yet stays");
        cache.clear();
        assert_eq!((cache.start(), cache.len(), cache.bytes()), (0, 0, 0));
    }

    #[test]
    fn shared_blocks_are_copied_before_they_are_written() {
        let mut one = cache(shape(8, KvDtype::F16)).unwrap();
        one.reserve(0, 130).unwrap();
        one.set_len(130);
        one.blocks_mut(0..3).unwrap().for_each(|block| block.bytes_mut().fill(1));
        let mut two = one.clone();
        assert!(two.blocks_mut(2..3).is_err(), "not before a reserve");
        two.reserve(130, 131).unwrap();
        two.blocks_mut(2..3).unwrap().for_each(|block| block.bytes_mut()[0] = 2);
        let byte = |cache: &KvCache, at: usize| cache.blocks[2].bytes()[at];
        assert_eq!((byte(&one, 0), byte(&two, 0), byte(&two, 1)), (1, 2, 1));
        assert!(Arc::ptr_eq(&one.blocks[1], &two.blocks[1]));
        assert!(two.blocks_mut(3..4).is_err(), "there is no such block");
    }

    #[test]
    fn a_cache_that_begins_with_anothers_blocks_counts_what_it_takes_more() {
        let spare = Arc::new(Spare::new(0, usize::MAX));
        let cache = || KvCache::new(shape(8, KvDtype::F16), Factors::Short, &spare).unwrap();
        let mut one = cache();
        let reserve = |cache: &mut KvCache, seen: usize, start: usize, end: usize| {
            let (before, growth) = (spare.lent().cast_signed(), cache.growth(seen, start, end));
            if start == 0 {
                cache.clear();
            }
            cache.truncate(start);
            cache.release_before(seen);
            cache.reserve(start, end).unwrap();
            cache.set_len(end);
            assert_eq!(spare.lent().cast_signed() - before, growth, "{seen} {start} {end}");
            growth
        };
        assert_eq!(reserve(&mut one, 0, 0, 150), 3);
        assert_eq!(reserve(&mut one, 0, 150, 192), 0);
        assert_eq!(reserve(&mut one, 0, 192, 200), 1);
        let blocks: Vec<_> = (0..4).map(|block| one.block(block).unwrap()).collect();
        assert!(one.block(4).is_none());
        let mut two = cache();
        two.adopt(&blocks[..3], 170).unwrap();
        assert!(two.adopt(&blocks, 170).is_err());
        drop(blocks);
        assert_eq!((two.len(), two.capacity(), spare.lent()), (170, 192, 4));
        assert_eq!(reserve(&mut two, 0, 170, 171), 1, "the third is copied");
        assert_eq!(reserve(&mut two, 130, 171, 200), 1, "what goes is the other one's too");
        drop(one);
        assert_eq!(spare.lent(), 2);
        let bytes = two.block(2).unwrap().bytes().to_vec();
        let copy = KvBlock::from_bytes(two.shape(), &spare, &bytes).unwrap();
        assert_eq!((copy.bytes(), spare.lent()), (&*bytes, 3));
        assert!(KvBlock::from_bytes(two.shape(), &spare, &bytes[1..]).is_err());
        let mut three = cache();
        assert_eq!(reserve(&mut three, 0, 0, 70), 2);
        assert_eq!(reserve(&mut three, 0, 0, 60), -1, "anew");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for head_dim in [0, 7, 514] {
            assert!(cache(shape(head_dim, KvDtype::F16)).is_err());
        }
        let mut huge =
            cache(KvShape { layers: 1 << 40, kv_heads: 1 << 20, head_dim: 64, dtype: KvDtype::F16 }).unwrap();
        let error = huge.reserve(0, 1).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OutOfMemory { .. }));
    }
}
