//! An array of byte strings inside a header, without one allocation per string.

#![forbid(unsafe_code)]

/// The strings of one metadata array, as bytes: tokens need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct StringArray<'a> {
    raw: &'a [u8],
    /// Where each string begins in `raw`, just after its length of 8 bytes.
    starts: &'a [u32],
    /// Where the last string ends in `raw`.
    end: u32,
}

impl<'a> StringArray<'a> {
    pub(super) fn new(raw: &'a [u8], starts: &'a [u32], end: u32) -> Self {
        Self { raw, starts, end }
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The bytes of string `index`; empty when there is no such string.
    pub fn get(&self, index: usize) -> &'a [u8] {
        let Some(&start) = self.starts.get(index) else { return &[] };
        let end = match self.starts.get(index + 1) {
            Some(&next) => (next as usize).saturating_sub(8),
            None => self.end as usize,
        };
        self.raw.get(start as usize..end).unwrap_or(&[])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let array = *self;
        (0..array.len()).map(move |index| array.get(index))
    }
}
