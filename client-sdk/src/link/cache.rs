//! The last good policies on disk.
//!
//! Layout: 8 bytes magic, 4 bytes length (little endian), 32 bytes of a [`seal`], the payload (protobuf). A file
//! that is not exactly that, or is another service's, counts as none. Writing is atomic: temporary file, fsync, rename.
//! Nothing here is on the path of a call.

#[cfg(test)]
mod keyed;
mod seal;

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fusebox_policy::{CallerName, Namespace};
use fusebox_proto::{sync::v1 as sync, v1};
use prost::Message;

pub(crate) use self::seal::KeyFile;
use self::seal::{KeyFault, SEAL, Seal};

/// Magic and length.
const START: usize = 8 + 4;
const HEAD: usize = START + SEAL;
/// A full set of large policies is far below; what is above was not written by this code.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What is kept.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Kept {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    /// Whose it is.
    #[prost(string, tag = "2")]
    pub(crate) service: String,
    /// Id of the database that the policies are from.
    #[prost(string, tag = "3")]
    pub(crate) store_id: String,
    /// Their revision.
    #[prost(uint64, tag = "4")]
    pub(crate) revision: u64,
    /// The highest term ever seen.
    #[prost(uint64, tag = "5")]
    pub(crate) highest_term: u64,
    /// The policies.
    #[prost(message, repeated, tag = "6")]
    pub(crate) policies: Vec<v1::Policy>,
    /// The overrides, with what was left of them at `saved_unix_ms`.
    #[prost(message, repeated, tag = "7")]
    pub(crate) overrides: Vec<sync::Override>,
    /// Wall time of writing.
    #[prost(uint64, tag = "8")]
    pub(crate) saved_unix_ms: u64,
    /// Id of the database that the overrides are from.
    #[prost(string, tag = "9")]
    pub(crate) overrides_store_id: String,
    /// The run of a server that `highest_term` was first heard from. 0 in what was written by versions that did not know.
    #[prost(uint64, tag = "10")]
    pub(crate) highest_term_run: u64,
}

impl Kept {
    /// How long ago it was written, by the wall clock; zero if that has gone backwards: what is left of an override is never more than
    /// was left when it was written.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_millis(unix_ms().saturating_sub(self.saved_unix_ms))
    }
}

/// Wall time.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Why a file counts as none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheFault {
    #[error("it can't be read")]
    Read(#[source] io::Error),
    #[error("it has {0} bytes, more than the {MAX_FILE} that are ever written")]
    TooLarge(u64),
    #[error("it does not begin as a policy cache of this version does")]
    NotACache,
    #[error("it is {found} bytes long and should be {wanted}")]
    Length { found: usize, wanted: usize },
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its content can't be decoded")]
    Decode(#[source] prost::DecodeError),
    #[error("it belongs to {namespace}/{service}")]
    Foreign { namespace: String, service: String },
    #[error("it is not a file of its own, but a link or something else")]
    NotAFile,
    #[error("its key can't be used")]
    Key(#[from] KeyFault),
    #[error("it was written without a key, and this client has one")]
    Unauthenticated,
    #[error("it was written with a key, and this client has none")]
    Authenticated,
    #[error("it was written with another key, or changed since")]
    Forged,
}

/// The file of one service.
#[derive(Clone, Debug)]
pub(crate) struct CacheFile {
    path: PathBuf,
    namespace: String,
    service: String,
    key: Option<KeyFile>,
}

impl CacheFile {
    /// `key`: what its content is authenticated with; without one, only against damage.
    pub(crate) fn new(dir: &Path, namespace: &Namespace, service: &CallerName, key: Option<KeyFile>) -> Self {
        // Names may hold ':' and '/', which file systems don't like; '%' is in no name, so no two names meet.
        let safe = service.as_str().replace('/', "%2f").replace(':', "%3a");
        Self {
            path: dir.join(format!("{namespace}.{safe}.policies")),
            namespace: namespace.as_str().to_owned(),
            service: service.as_str().to_owned(),
            key,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept; `None` if there is no file.
    pub(crate) fn load(&self) -> Result<Option<Kept>, CacheFault> {
        // Looked at first: to open a pipe would wait for somebody who writes into it. Where a key is asked for, a link is somebody else's
        // doing: this code makes none.
        let look = if self.key.is_some() { fs::symlink_metadata } else { fs::metadata };
        match look(&self.path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(CacheFault::NotAFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheFault::Read(error)),
        }
        let seal = Seal::new(self.key.as_ref())?;
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheFault::Read(error)),
        };
        let size = file.metadata().map_err(CacheFault::Read)?.len();
        if size > MAX_FILE {
            return Err(CacheFault::TooLarge(size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // A file that grows while it is read is bounded too.
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(CacheFault::Read)?;
        let kept = decode(&bytes, &seal)?;
        if kept.namespace != self.namespace || kept.service != self.service {
            return Err(CacheFault::Foreign { namespace: kept.namespace, service: kept.service });
        }
        Ok(Some(kept))
    }

    /// Writes the file anew. Blocks; not for the runtime's threads.
    pub(crate) fn store(&self, mut kept: Kept) -> io::Result<()> {
        kept.namespace.clone_from(&self.namespace);
        kept.service.clone_from(&self.service);
        // Nothing is written without the key that it should have.
        let seal = Seal::new(self.key.as_ref()).map_err(io::Error::other)?;
        let bytes = encode(&kept, &seal)?;
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(dir)?;
        // Replicas of one machine may share the folder: each has its own temporary file.
        let temporary = self.path.with_extension(format!("{}.{:x}.tmp", std::process::id(), fastrand::u32(..)));
        let written = write_synced(&temporary, &bytes).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        // The rename itself is durable only when the folder is.
        #[cfg(unix)]
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(kept: &Kept, seal: &Seal) -> io::Result<Vec<u8>> {
    let payload = kept.encode_to_vec();
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| u64::from(*length) + HEAD as u64 <= MAX_FILE)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the policies are too large for the cache"))?;
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(seal.magic());
    bytes.extend_from_slice(&length.to_le_bytes());
    let seal = seal.of(&bytes, &payload);
    bytes.extend_from_slice(&seal);
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

fn decode(bytes: &[u8], seal: &Seal) -> Result<Kept, CacheFault> {
    let (head, payload) = bytes.split_at_checked(HEAD).ok_or(CacheFault::NotACache)?;
    let (start, found) = head.split_at(START);
    let (magic, length) = start.split_at(START - 4);
    if magic != seal.magic() {
        return Err(match (magic, seal) {
            (b"FUSEBOX\x01", Seal::Code(_)) => CacheFault::Unauthenticated,
            (b"FUSEBOX\x02", Seal::Digest) => CacheFault::Authenticated,
            (_, Seal::Digest | Seal::Code(_)) => CacheFault::NotACache,
        });
    }
    let wanted = length.iter().rev().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
    if payload.len() != wanted {
        return Err(CacheFault::Length { found: payload.len(), wanted });
    }
    if !seal.holds(start, payload, found) {
        return Err(match seal {
            Seal::Digest => CacheFault::Checksum,
            Seal::Code(_) => CacheFault::Forged,
        });
    }
    Kept::decode(payload).map_err(CacheFault::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, service: &str) -> CacheFile {
        CacheFile::new(dir, &Namespace::default_namespace(), &CallerName::try_new(service).unwrap(), None)
    }

    fn kept() -> Kept {
        let overrides = vec![sync::Override { id: 1, reason: "drill".into(), ..sync::Override::default() }];
        Kept { store_id: "s".into(), revision: 7, highest_term: 3, overrides, ..Kept::default() }
    }

    #[test]
    fn what_was_stored_is_loaded_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "team/a:1");
        assert!(file.load().unwrap().is_none());
        file.store(kept()).unwrap();
        file.store(kept()).unwrap();
        assert_eq!(file.load().unwrap().unwrap().revision, 7);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    /// What was kept before runs had ids.
    #[derive(Clone, PartialEq, Message)]
    struct Older {
        #[prost(string, tag = "1")]
        namespace: String,
        #[prost(string, tag = "2")]
        service: String,
        #[prost(uint64, tag = "4")]
        revision: u64,
        #[prost(uint64, tag = "5")]
        highest_term: u64,
    }

    #[test]
    fn a_file_of_a_version_that_knew_no_runs_is_loaded_and_older_versions_load_ours() {
        let older = Older { namespace: "default".into(), service: "service-a".into(), revision: 7, highest_term: 3 };
        let loaded = Kept::decode(older.encode_to_vec().as_slice()).unwrap();
        assert_eq!((loaded.revision, loaded.highest_term, loaded.highest_term_run), (7, 3, 0));
        let ours = Kept { highest_term: 3, highest_term_run: u64::MAX, ..loaded };
        assert_eq!(Older::decode(ours.encode_to_vec().as_slice()).unwrap(), older);
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "service-a");
        file.store(kept()).unwrap();
        let good = fs::read(file.path()).unwrap();
        let table: [(&str, Vec<u8>); 7] = [
            ("empty", vec![]),
            ("head only", good[..HEAD].to_vec()),
            ("cut in the head", good[..10].to_vec()),
            ("cut in the payload", good[..good.len() - 1].to_vec()),
            ("longer", [good.clone(), vec![0]].concat()),
            ("other version", {
                let mut bytes = good.clone();
                bytes[7] = 9;
                bytes
            }),
            ("garbage", vec![0xff; 500]),
        ];
        for (what, bytes) in table {
            fs::write(file.path(), bytes).unwrap();
            assert!(file.load().is_err(), "{what}");
        }
        for length in 0..good.len() {
            fs::write(file.path(), &good[..length]).unwrap();
            assert!(file.load().is_err(), "cut after {length} bytes");
        }
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(file.path(), flipped).unwrap();
            assert!(file.load().is_err(), "bit {bit} flipped");
        }
    }

    #[test]
    fn a_file_of_another_namespace_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let own = file(dir.path(), "service-a");
        let service = CallerName::try_new("service-a").unwrap();
        let other = CacheFile::new(dir.path(), &Namespace::try_new("other").unwrap(), &service, None);
        other.store(kept()).unwrap();
        fs::copy(other.path(), own.path()).unwrap();
        assert!(matches!(own.load(), Err(CacheFault::Foreign { .. })));
    }

    #[test]
    fn a_file_of_another_service_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (file(dir.path(), "service-a"), file(dir.path(), "service-c"));
        other.store(kept()).unwrap();
        fs::copy(other.path(), own.path()).unwrap();
        assert!(matches!(own.load(), Err(CacheFault::Foreign { .. })));
    }

    #[test]
    fn an_oversized_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path(), "service-a");
        fs::File::create(file.path()).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(file.load(), Err(CacheFault::TooLarge(_))));
    }
}
