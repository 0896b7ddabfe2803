//! The ways in which GGML packs numbers: blocks of some numbers in some bytes.

use std::fmt;

/// How a tensor's numbers are packed; the kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // The names are GGML's.
pub enum BlockKind {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q6K,
}

/// Kind, id in the file, name, numbers of a block, bytes of a block.
const TABLE: [(BlockKind, u32, &str, u64, u64); 8] = [
    (BlockKind::F32, 0, "F32", 1, 4),
    (BlockKind::F16, 1, "F16", 1, 2),
    (BlockKind::Bf16, 30, "BF16", 1, 2),
    (BlockKind::Q8_0, 8, "Q8_0", 32, 34),
    (BlockKind::Q4_0, 2, "Q4_0", 32, 18),
    (BlockKind::Q4_1, 3, "Q4_1", 32, 20),
    (BlockKind::Q4K, 12, "Q4_K", 256, 144),
    (BlockKind::Q6K, 14, "Q6_K", 256, 210),
];

/// Names of kinds that are known but not read, for messages.
const OTHERS: [(u32, &str); 24] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

impl BlockKind {
    /// The kind with this id in a file.
    pub fn of_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// All that are read.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The names of those that are read, for messages.
    pub fn supported() -> String {
        TABLE.map(|row| row.2).join(", ")
    }

    /// Its id in a file.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// Its name, as GGML spells it.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Numbers of one block.
    pub fn numbers(self) -> u64 {
        self.row().3
    }

    /// Bytes of one block.
    pub fn bytes(self) -> u64 {
        self.row().4
    }

    fn row(self) -> &'static (Self, u32, &'static str, u64, u64) {
        // A test walks the table, so the fallback row is never taken.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[0])
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kind that is not read, in words.
pub(super) fn describe_id(id: u32) -> String {
    match OTHERS.iter().find(|other| other.0 == id) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("of unknown type {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_row() {
        for kind in [
            BlockKind::F32,
            BlockKind::F16,
            BlockKind::Bf16,
            BlockKind::Q8_0,
            BlockKind::Q4_0,
            BlockKind::Q4_1,
            BlockKind::Q4K,
            BlockKind::Q6K,
        ] {
            assert_eq!(kind.row().0, kind);
            assert_eq!(BlockKind::of_id(kind.id()), Some(kind));
        }
        assert!(OTHERS.iter().all(|other| BlockKind::of_id(other.0).is_none()));
    }
}
