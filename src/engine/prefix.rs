//! Beginnings of texts whose keys and values are there: computed once, read by every sequence that begins alike.
//!
//! A radix tree over blocks of 64 tokens, as in SGLang's RadixAttention (arXiv 2312.07104), one for each kind of rope factors. A
//! node is a block; what leads to it is the text before. A text may share the first tokens of a block only: the sequence that
//! begins with it copies the block before it writes to it. What was not used for longest goes first, from the ends of texts.

use std::sync::Arc;

use slab::Slab;

use crate::model::{Factors, KV_BLOCK, KvBlock};

/// The blocks of texts that were read, by their tokens.
#[derive(Debug, Default)]
pub(super) struct PrefixTree {
    nodes: Slab<Node>,
    /// The first blocks of texts read with short factors, and with long ones.
    roots: [Vec<usize>; 2],
    /// Counts uses: the time of this tree.
    now: u64,
}

/// A block of a text.
#[derive(Debug)]
struct Node {
    /// Its tokens, [`KV_BLOCK`] of them unless a text ends in it.
    tokens: Box<[u32]>,
    block: Arc<KvBlock>,
    parent: Option<usize>,
    children: Vec<usize>,
    /// When it was last used.
    used: u64,
}

/// The beginning of a text, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    /// The blocks that hold it, from the first one on.
    pub(super) blocks: Vec<Arc<KvBlock>>,
    /// Tokens.
    pub(super) len: usize,
}

/// How many tokens two texts have in common at their beginning.
pub(super) fn common(one: &[u32], two: &[u32]) -> usize {
    one.iter().zip(two).take_while(|(one, two)| one == two).count()
}

impl PrefixTree {
    /// The longest beginning of `text` that is known.
    pub(super) fn find(&mut self, factors: Factors, text: &[u32]) -> Prefix {
        self.now += 1;
        let (mut found, mut children) = (Prefix::default(), &self.roots[root(factors)]);
        let mut path = Vec::new();
        while let Some((child, length)) = self.closest(children, &text[found.len..]) {
            let node = &self.nodes[child];
            path.push(child);
            found.blocks.push(Arc::clone(&node.block));
            found.len += length;
            if length < KV_BLOCK {
                break;
            }
            children = &node.children;
        }
        for node in path {
            self.nodes[node].used = self.now;
        }
        found
    }

    /// Of `children` the one that has most tokens in common with `rest`, and how many; one at least.
    fn closest(&self, children: &[usize], rest: &[u32]) -> Option<(usize, usize)> {
        let lengths = children.iter().map(|&child| (child, common(&self.nodes[child].tokens, rest)));
        lengths.filter(|&(_, length)| length > 0).max_by_key(|&(_, length)| length)
    }

    /// Keeps the blocks of `text`, which `block` gives by their number; `None` for one that is not there ends it. Of a block that
    /// the text fills only in part the first tokens count; it is not written to any more.
    pub(super) fn keep(
        &mut self,
        factors: Factors,
        text: &[u32],
        block: impl Fn(usize) -> Option<Arc<KvBlock>>,
    ) {
        self.now += 1;
        let mut parent = None;
        for (number, tokens) in text.chunks(KV_BLOCK).enumerate() {
            let children = self.children(factors, parent);
            let known = children.iter().find(|&&child| self.nodes[child].tokens.starts_with(tokens));
            let node = match known {
                Some(&node) => node,
                None => {
                    let Some(block) = block(number) else { return };
                    self.add(factors, parent, tokens, block)
                }
            };
            self.nodes[node].used = self.now;
            parent = Some(node);
        }
    }

    fn children(&self, factors: Factors, parent: Option<usize>) -> &Vec<usize> {
        match parent {
            Some(parent) => &self.nodes[parent].children,
            None => &self.roots[root(factors)],
        }
    }

    /// Adds a block, in place of those that hold its first tokens only.
    fn add(&mut self, factors: Factors, parent: Option<usize>, tokens: &[u32], block: Arc<KvBlock>) -> usize {
        let children = self.children(factors, parent).iter().copied();
        let shorter: Vec<usize> =
            children.filter(|&child| tokens.starts_with(&self.nodes[child].tokens)).collect();
        for node in shorter {
            self.remove(node);
        }
        let (tokens, children) = (tokens.into(), Vec::new());
        let node = self.nodes.insert(Node { tokens, block, parent, children, used: self.now });
        self.siblings(factors, parent).push(node);
        node
    }

    fn siblings(&mut self, factors: Factors, parent: Option<usize>) -> &mut Vec<usize> {
        match parent {
            Some(parent) => &mut self.nodes[parent].children,
            None => &mut self.roots[root(factors)],
        }
    }

    /// Takes a node without children out.
    fn remove(&mut self, node: usize) {
        let Some(removed) = self.nodes.try_remove(node) else { return };
        match removed.parent {
            Some(parent) => self.nodes[parent].children.retain(|&child| child != node),
            None => self.roots.iter_mut().for_each(|root| root.retain(|&child| child != node)),
        }
    }

    /// Forgets the block that was not used for longest, of those at the ends of texts: one that no sequence holds, where there
    /// is one. False: there is nothing to forget.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let ends = self.nodes.iter().filter(|(_, node)| node.children.is_empty());
        let oldest = ends.min_by_key(|(_, node)| (!node.is_free(), node.used)).map(|(node, _)| node);
        if let Some(oldest) = oldest {
            self.remove(oldest);
        }
        oldest.is_some()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Blocks that nobody else holds.
    pub(super) fn free(&self) -> usize {
        self.nodes.iter().filter(|(_, node)| node.is_free()).count()
    }

    /// Bytes of the blocks that nobody else holds.
    pub(super) fn free_bytes(&self) -> u64 {
        let free = self.nodes.iter().filter(|(_, node)| node.is_free());
        free.map(|(_, node)| node.block.bytes().len() as u64).sum()
    }
}

impl Node {
    /// Whether forgetting it gives memory back.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.block) == 1
    }
}

fn root(factors: Factors) -> usize {
    match factors {
        Factors::Short => 0,
        Factors::Long => 1,
    }
}
