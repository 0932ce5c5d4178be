//! The secret part of access: what a token looks like, how it is made, and how it is recognised. Nothing in here is ever printed.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How every token begins: people and scanners of secrets know it by this.
pub const PREFIX: &str = "fbx_";
/// Bytes of the id, which is no secret, and of the secret.
const ID: usize = 6;
const SECRET: usize = 32;

/// A token as its holder has it: `fbx_`, the id, `_`, and 256 random bits, in hex.
#[derive(Clone)]
pub struct Secret {
    text: String,
    id: String,
}

/// What is kept of a token: enough to recognise it, nothing to make it from.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0_u8; ID + SECRET];
        getrandom::fill(&mut random)?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, secret) = hex.split_at(2 * ID);
        Ok(Self { text: format!("{PREFIX}{id}_{secret}"), id: id.to_owned() })
    }

    /// Reads one; `None` if it has not the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let hex = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        (hex(id, ID) && hex(secret, SECRET)).then(|| Self { text: text.to_owned(), id: id.to_owned() })
    }

    /// The part that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is kept of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }

    /// The whole, to be shown once to whoever asked for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_...", self.id)
    }
}

impl Digest {
    /// Of any text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::of_bytes(text.as_bytes())
    }

    /// Of any bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// As stored.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// To store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it is of the same text. Takes the same time whatever differs.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for Digest {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_as_it_was_made_and_never_shown() {
        let secret = Secret::generate().unwrap();
        assert!(secret.reveal().starts_with(PREFIX) && secret.reveal().len() == 81);
        let again = Secret::parse(secret.reveal()).unwrap();
        assert_eq!(again.id(), secret.id());
        assert_eq!(again.digest(), secret.digest());
        let shown = format!("{secret:?} {:?}", secret.digest());
        assert_eq!(shown, format!("fbx_{}_... Digest(..)", secret.id()));
        assert_ne!(Secret::generate().unwrap().digest(), secret.digest());
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        let good = Secret::generate().unwrap().reveal().to_owned();
        let bad = [
            good.to_uppercase(),
            good.replace("fbx_", "fby_"),
            format!("{good}0"),
            good[1..].to_owned(),
            String::new(),
        ];
        for text in &bad {
            assert!(Secret::parse(text).is_none());
        }
    }
}
