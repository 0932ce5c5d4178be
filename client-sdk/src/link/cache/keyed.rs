//! That a cache with a key is what its owner wrote, or none.

use std::fs;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A folder with a key in it.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), format!("{KEY}\n")).unwrap();
    dir
}

fn file(dir: &Path, namespace: &str, service: &str, key: Option<&str>) -> CacheFile {
    let (namespace, service) = (Namespace::try_new(namespace).unwrap(), CallerName::try_new(service).unwrap());
    CacheFile::new(dir, &namespace, &service, key.map(|name| KeyFile::new(dir.join(name))))
}

fn kept() -> Kept {
    let overrides = vec![sync::Override { id: 1, reason: "drill".into(), ..sync::Override::default() }];
    Kept { store_id: "s".into(), revision: 7, highest_term: 3, overrides, ..Kept::default() }
}

#[test]
fn no_bit_can_be_changed_and_no_byte_be_missing() {
    let dir = folder();
    let file = file(dir.path(), "default", "service-a", Some("key"));
    file.store(kept()).unwrap();
    assert_eq!(file.load().unwrap().unwrap().revision, 7);
    let good = fs::read(file.path()).unwrap();
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(file.path(), flipped).unwrap();
        assert!(file.load().is_err(), "bit {bit} flipped");
    }
    for length in 0..good.len() {
        fs::write(file.path(), &good[..length]).unwrap();
        assert!(file.load().is_err(), "cut after {length} bytes");
    }
    fs::write(file.path(), [good.as_slice(), &[0]].concat()).unwrap();
    assert!(matches!(file.load(), Err(CacheFault::Length { .. })));
    // Another content with everything that can be made without the key.
    let other = Kept { namespace: "default".into(), service: "service-a".into(), revision: 8, ..kept() };
    let mut forged = encode(&other, &Seal::Digest).unwrap();
    forged[..8].copy_from_slice(b"FUSEBOX\x02");
    fs::write(file.path(), forged).unwrap();
    assert!(matches!(file.load(), Err(CacheFault::Forged)));
    fs::write(file.path(), good).unwrap();
    assert_eq!(file.load().unwrap().unwrap().revision, 7, "as it was");
}

#[test]
fn only_what_was_written_with_the_key_for_this_service_counts() {
    let dir = folder();
    let own = file(dir.path(), "default", "service-a", Some("key"));
    for (namespace, service) in [("default", "service-c"), ("other", "service-a")] {
        let other = file(dir.path(), namespace, service, Some("key"));
        other.store(kept()).unwrap();
        fs::copy(other.path(), own.path()).unwrap();
        assert!(matches!(own.load(), Err(CacheFault::Foreign { .. })), "{namespace}/{service}");
    }
    fs::write(dir.path().join("another"), KEY.to_uppercase()).unwrap();
    file(dir.path(), "default", "service-a", Some("another")).store(kept()).unwrap();
    assert!(matches!(own.load(), Err(CacheFault::Forged)));
    let plain = file(dir.path(), "default", "service-a", None);
    plain.store(kept()).unwrap();
    assert!(matches!(own.load(), Err(CacheFault::Unauthenticated)));
    own.store(kept()).unwrap();
    assert!(matches!(plain.load(), Err(CacheFault::Authenticated)));
    assert_eq!(own.load().unwrap().unwrap().revision, 7);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_of_its_own_counts_as_none() {
    let dir = folder();
    let own = file(dir.path(), "default", "service-a", Some("key"));
    own.store(kept()).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(own.path(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, own.path()).unwrap();
    assert!(matches!(own.load(), Err(CacheFault::NotAFile)), "a link, even to what would count");
    own.store(Kept { revision: 8, ..kept() }).unwrap();
    assert_eq!(own.load().unwrap().unwrap().revision, 8, "the link was replaced, and not followed");
    assert!(fs::symlink_metadata(own.path()).unwrap().is_file());
    fs::remove_file(own.path()).unwrap();
    fs::create_dir(own.path()).unwrap();
    assert!(matches!(own.load(), Err(CacheFault::NotAFile)));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_read_only_and_a_key_that_can_not_be_used_lose_nothing_and_tell_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = folder();
    let own = file(dir.path(), "default", "service-a", Some("key"));
    own.store(kept()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write all the same: then it is whole.
    let written = own.store(Kept { revision: 8, ..kept() }).is_ok();
    assert_eq!(own.load().unwrap().unwrap().revision, if written { 8 } else { 7 });
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let whole = fs::read(own.path()).unwrap();
    for (what, key) in [("short", &KEY[..31]), ("empty", ""), ("blank", &" ".repeat(64)), ("long", &"k".repeat(4097))] {
        fs::write(dir.path().join("key"), key).unwrap();
        let fault = own.load().unwrap_err();
        assert!(matches!(fault, CacheFault::Key(KeyFault::Size(_))), "{what}: {fault:?}");
        let unwritten = own.store(kept()).unwrap_err();
        for text in [format!("{fault} {fault:?}"), format!("{unwritten} {unwritten:?}")] {
            assert!(key.trim().is_empty() || !text.contains(key), "{what}: {text}");
        }
    }
    fs::remove_file(dir.path().join("key")).unwrap();
    assert!(matches!(own.load(), Err(CacheFault::Key(KeyFault::Read { .. }))));
    assert!(own.store(kept()).is_err(), "nothing is written without its key");
    assert_eq!(fs::read(own.path()).unwrap(), whole);
}
