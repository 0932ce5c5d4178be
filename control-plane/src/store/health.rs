//! What a store says of the disk and of what is on it.

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes of the whole disk.
    pub total: u64,
    /// Bytes that the data takes.
    pub used: u64,
}

/// Something stored that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub table: String,
    /// Which row; a dash for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, key, reason } = self;
        write!(f, "{table} {key}: {reason}")
    }
}
