//! What tells a whole cache file from a damaged one, and, where a key was given, from one that somebody else has written.
//!
//! Without a key it is a SHA-256 of the content, which everybody can make. With a key it is an HMAC-SHA256 over everything in the file, and
//! files without it count as none. The key is read from its file each time: a new one counts from the next reading or writing on.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use ring::hmac;
use sha2::{Digest as _, Sha256};

/// Bytes of a digest, and of an authentication code.
pub(super) const SEAL: usize = 32;
/// Bytes that a key has at least: as many as the code, as RFC 2104 advises.
const SHORTEST: usize = 32;
/// And at most: what is larger is another file.
const LONGEST: u64 = 4096;

/// Where the key of the cache stands.
#[derive(Clone)]
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no key. Nothing of the key is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFault {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} must hold from {SHORTEST} to {LONGEST} bytes, without white space at its ends", .0.display())]
    Size(PathBuf),
}

/// What stands before the content of a file, and is made of it.
pub(super) enum Seal {
    /// A digest of the content.
    Digest,
    /// A code over everything that only whoever has the key can make.
    Code(hmac::Key),
}

impl Seal {
    /// With the key of a file, if there is one.
    pub(super) fn new(key: Option<&KeyFile>) -> Result<Self, KeyFault> {
        key.map_or(Ok(Self::Digest), |KeyFile(path)| read(path).map(Self::Code))
    }

    /// The first bytes of a file with it.
    pub(super) const fn magic(&self) -> &'static [u8; 8] {
        match self {
            Self::Digest => b"FUSEBOX\x01",
            Self::Code(_) => b"FUSEBOX\x02",
        }
    }

    /// The seal of a file. `head` is what stands before the seal.
    pub(super) fn of(&self, head: &[u8], payload: &[u8]) -> [u8; SEAL] {
        match self {
            Self::Digest => Sha256::digest(payload).into(),
            Self::Code(key) => {
                let mut seal = [0; SEAL];
                seal.copy_from_slice(hmac::sign(key, &[head, payload].concat()).as_ref());
                seal
            }
        }
    }

    /// Whether a seal is that of a file.
    pub(super) fn holds(&self, head: &[u8], payload: &[u8], seal: &[u8]) -> bool {
        match self {
            Self::Digest => self.of(head, payload) == *seal,
            // In constant time.
            Self::Code(key) => hmac::verify(key, &[head, payload].concat(), seal).is_ok(),
        }
    }
}

fn read(path: &Path) -> Result<hmac::Key, KeyFault> {
    let unreadable = |source| KeyFault::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(unreadable)?.take(LONGEST + 2).read_to_end(&mut bytes).map_err(unreadable)?;
    // Editors and `echo` end a line.
    let key = bytes.trim_ascii();
    if key.len() < SHORTEST || key.len() as u64 > LONGEST {
        return Err(KeyFault::Size(path.to_owned()));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key))
}
