//! A matrix of weights, in tiles or as its file has it.

use std::ops::Range;
use std::sync::Arc;

use super::format::{Family, GROUPS, layout};
use super::pack;
use crate::error::{Error, Result};
use crate::gguf::GgmlType;
use crate::kernels::simd::LANES;
use crate::kernels::{ALIGNMENT, Compute, DisjointMut};

/// Memory that matrices share: an arena, a mapped file.
pub(crate) type Memory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Weights of `rows` outputs of `k` inputs each.
#[derive(Clone)]
pub(crate) struct Matrix {
    pub(super) kind: GgmlType,
    pub(super) family: Family,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Whether the bytes are tiles.
    pub(super) packed: bool,
    memory: Memory,
    range: Range<usize>,
}

impl Matrix {
    /// Bytes that [`pack`](Self::pack) fills for a matrix: a multiple of 64. `None` for a type that is no weight.
    pub(crate) fn packed_bytes(kind: GgmlType, rows: usize, k: usize) -> Option<usize> {
        let (_, tile) = layout(kind)?;
        let bytes = match tile {
            Some(_) => rows.div_ceil(LANES).checked_mul(pack::group_bytes(kind, k)?)?,
            None => rows.checked_mul(row_bytes(kind, k))?,
        };
        bytes.checked_next_multiple_of(ALIGNMENT)
    }

    /// Lays `rows` rows of `k` values out in `to`, which is zero and has [`packed_bytes`](Self::packed_bytes). `read` gives the
    /// bytes of some of the rows, by their place in the matrix as a file has it; every byte is asked for once, by any thread.
    ///
    /// # Errors
    /// `Internal` when the sizes do not agree, and those of the pool.
    pub(crate) fn pack(
        compute: &Compute,
        kind: GgmlType,
        [rows, k]: [usize; 2],
        read: &(dyn Fn(Range<usize>, &mut [u8]) + Sync),
        to: &mut [u8],
    ) -> Result<()> {
        if Self::packed_bytes(kind, rows, k) != Some(to.len()) {
            return Err(Error::internal(format!(
                "{rows} x {k} values of {kind} do not fit into {} bytes of tiles.",
                to.len()
            )));
        }
        let row = row_bytes(kind, k);
        let tiles = pack::group_bytes(kind, k);
        let to = DisjointMut::new(to);
        let groups = rows.div_ceil(LANES);
        compute.pool.for_each(groups.div_ceil(GROUPS), &|strip, scratch| {
            let strip = strip * GROUPS..groups.min((strip + 1) * GROUPS);
            let source = strip.start * LANES * row..rows.min(strip.end * LANES) * row;
            let place = tiles.map_or(source.clone(), |bytes| strip.start * bytes..strip.end * bytes);
            // SAFETY: units write the tiles, or the rows, of different strips.
            let to = unsafe { to.slice(place) };
            if tiles.is_some() {
                let rows = scratch.bytes(source.len());
                read(source, rows);
                pack::pack_strip(kind, k, rows, to);
            } else {
                read(source, to);
            }
        })
    }

    /// The matrix at `range` of `memory`: tiles as [`pack`](Self::pack) makes them, or rows as a file has them.
    ///
    /// # Errors
    /// `Internal` when the range has another size than the matrix, or lies outside.
    pub(crate) fn new(
        kind: GgmlType,
        rows: usize,
        k: usize,
        packed: bool,
        memory: Memory,
        range: Range<usize>,
    ) -> Result<Self> {
        let family = layout(kind).map(|(family, _)| family);
        let bytes =
            if packed { Self::packed_bytes(kind, rows, k) } else { rows.checked_mul(row_bytes(kind, k)) };
        let fits = (*memory).as_ref().get(range.clone()).map(<[u8]>::len);
        match family {
            Some(family) if fits == bytes && k.is_multiple_of(kind.block_size()) => {
                Ok(Self { kind, family, rows, k, packed, memory, range })
            }
            _ => Err(Error::internal(format!("{rows} x {k} values of {kind} are not {fits:?} bytes."))),
        }
    }

    /// Outputs.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// What the activations must look like.
    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Whether the bytes are tiles that a kernel reads as they are.
    pub(super) fn is_tiled(&self) -> bool {
        self.packed && self.tile().is_some()
    }

    /// Bytes of a tile, for types that have one.
    pub(super) fn tile(&self) -> Option<usize> {
        layout(self.kind).and_then(|(_, tile)| tile)
    }

    /// Tiles of a group of 16 rows.
    pub(super) fn tiles(&self) -> usize {
        self.k.div_ceil(self.family.tile_k())
    }

    /// Groups of 16 rows.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Bytes of a row as the file has it.
    pub(super) fn row_bytes(&self) -> usize {
        row_bytes(self.kind, self.k)
    }

    /// Bytes of a group as the file has it.
    pub(super) fn group_bytes(&self) -> usize {
        LANES * self.row_bytes()
    }

    /// All its bytes.
    pub(super) fn data(&self) -> &[u8] {
        &(*self.memory).as_ref()[self.range.clone()]
    }

    /// The bytes of groups `groups`: the tiles of strips, or the rows of any groups.
    pub(super) fn group_data(&self, groups: Range<usize>) -> &[u8] {
        let data = self.data();
        let unit =
            if self.is_tiled() { self.tiles() * self.tile().unwrap_or_default() } else { self.group_bytes() };
        let end = if self.is_tiled() {
            groups.end * unit
        } else {
            (self.rows * self.row_bytes()).min(groups.end * unit)
        };
        &data[groups.start * unit..end]
    }
}

/// Bytes of `k` values as a file has them.
fn row_bytes(kind: GgmlType, k: usize) -> usize {
    k / kind.block_size() * kind.type_size()
}
