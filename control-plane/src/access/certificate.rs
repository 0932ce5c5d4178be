//! Who a connection's certificate says the peer is.
//!
//! rustls has checked the chain, the dates and the usage; this reads the names. They come from the subject alternative name alone: a common
//! name was never checked by anybody, and is no identity.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// Longest name: SPIFFE's own limit.
const LONGEST: usize = 2048;

/// What the gate has to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The names, as grants write them: `spiffe://...` and `dns:...`. Empty if it has none of those.
    pub names: Vec<String>,
    /// From when on it counts no more.
    pub expires: SystemTime,
}

/// A certificate that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate can't be read: {0}")]
pub struct Unreadable(String);

impl Certificate {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// It is none, or names in a way that could be read in several.
    pub fn read(der: &[u8]) -> Result<Self, Unreadable> {
        let bad = |why: &dyn std::fmt::Display| Unreadable(why.to_string());
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|error| bad(&error))?;
        let found = certificate.subject_alternative_name().map_err(|error| bad(&error))?;
        let mut names = Vec::new();
        for name in found.iter().flat_map(|names| &names.value.general_names) {
            if let GeneralName::URI(uri) = name
                && uri.starts_with("spiffe://")
            {
                names.push((*uri).to_owned());
            } else if let GeneralName::DNSName(name) = name {
                names.push(format!("dns:{}", name.to_ascii_lowercase()));
            }
        }
        if names.iter().filter(|name| name.starts_with("spiffe://")).count() > 1 {
            // The SPIFFE standard: one certificate, one identity.
            return Err(Unreadable("it has more than one SPIFFE id".to_owned()));
        }
        if names.iter().any(|name| name.len() > LONGEST || name.chars().any(char::is_control)) {
            return Err(Unreadable(format!("a name is longer than {LONGEST} bytes, or has control characters")));
        }
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self { names, expires: UNIX_EPOCH + Duration::from_secs(expires) })
    }
}
