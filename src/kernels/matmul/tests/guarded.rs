//! Matrices, activations and results that end where memory ends: whoever reads or writes on is stopped by the system.

use memmap2::{MmapMut, MmapOptions};

use super::*;
use crate::kernels::{view, view_mut};

/// A multiple of every system's pages.
const PAGES: usize = 1 << 16;

/// Bytes behind which there are none: the end of a file, mapped with more pages than it has.
struct Guarded {
    map: MmapMut,
    start: usize,
    end: usize,
}

impl Guarded {
    fn new(bytes: usize) -> Self {
        let end = bytes.next_multiple_of(PAGES);
        let file = tempfile::tempfile().unwrap();
        file.set_len(end as u64).unwrap();
        // SAFETY: the file has no name, so nobody else can change it.
        let map = unsafe { MmapOptions::new().len(end + PAGES).map_mut(&file).unwrap() };
        Self { map, start: end - bytes, end }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut new = Self::new(bytes.len());
        new.bytes_mut().copy_from_slice(bytes);
        new
    }

    fn floats(values: &[f32]) -> Self {
        let mut new = Self::new(values.len() * 4);
        view_mut(new.bytes_mut()).copy_from_slice(values);
        new
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.end]
    }
}

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.start..self.end]
    }
}

#[test]
fn nothing_is_read_or_written_past_an_end() {
    let mut random = StdRng::seed_from_u64(6);
    let scalar = Compute::new(1, Isa::Scalar).unwrap();
    let mut products = 0;
    for kind in KINDS {
        for (rows, blocks) in [(1, 1), (16, 2), (33, 3)] {
            let k = blocks * kind.block_size().max(32);
            let bytes = random_rows(&mut random, kind, rows, k);
            let size = Matrix::packed_bytes(kind, rows, k).unwrap();
            let mut tiles = Guarded::new(size);
            let source = Guarded::of(&bytes);
            Matrix::pack(&scalar, kind, [rows, k], &reader(source.as_ref()), tiles.bytes_mut()).unwrap();
            let tiles = Matrix::new(kind, rows, k, true, Arc::new(tiles), 0..size).unwrap();
            let mapped = Arc::new(Guarded::of(&bytes));
            let mapped = Matrix::new(kind, rows, k, false, mapped, 0..bytes.len()).unwrap();
            for tokens in [1, 3, 8, 13] {
                let values = random_values(&mut random, tokens * k);
                let wanted = multiply(&scalar, &tiles, &values, tokens);
                let values = Guarded::floats(&values);
                for tier in Tier::all() {
                    let compute = with(1, tier);
                    for matrix in [&tiles, &mapped] {
                        let mut acts = Activations::default();
                        let source = Copied { values: view(values.as_ref()) };
                        let forms = Forms::default().with(matrix.family());
                        compute.quantise(&source, tokens, k, forms, &mut acts).unwrap();
                        let mut out = Guarded::new(tokens * rows * 4);
                        let out = view_mut::<f32>(out.bytes_mut());
                        compute.matmul(&[matrix], &acts, Then::Store, out, &|| false).unwrap();
                        let same = wanted.iter().zip(&*out).all(|(w, f)| w.to_bits() == f.to_bits());
                        assert!(same, "{kind} {rows}x{k}, {tokens} tokens on {tier:?}");
                        products += 1;
                    }
                }
            }
            for tier in Tier::all() {
                let compute = with(1, tier);
                let mut out = Guarded::new(k * 4);
                let out = view_mut::<f32>(out.bytes_mut());
                compute.embed(&mapped, &[rows as u32 - 1], out).unwrap();
                assert!(out.iter().all(|x| x.is_finite()), "{kind} {rows}x{k} on {tier:?}");
            }
        }
    }
    assert!(products >= KINDS.len() * 3 * 4 * 2);
}
