//! What names of others mean here: which role the owner of a certificate or a JWT has.
//!
//! A grant is written `ROLE=PATTERN`: `admin=spiffe://example.org/ns/ops/sa/ci`, `agent=spiffe://example.org/ns/{namespace}/sa/{service}`,
//! `agent=dns:{service}.{namespace}.svc.example.org`, `viewer=sub:alice@example.org`. `{namespace}` and `{service}` take one
//! part of the name, which may hold what names of namespaces and services hold, and no `/`, `.` or `:`. An agent's pattern has both, or has
//! `{service}` only and means the namespace `default`; the others are taken word for word. A name that no pattern takes has no role, and
//! trust domains are as good as different names: nothing is matched in part.

use std::str::FromStr;

use fusebox_policy::{CallerName, Namespace};

use super::principal::Role;

const NAMESPACE: &str = "{namespace}";
const SERVICE: &str = "{service}";

/// What one name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    meaning: Meaning,
    pattern: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Fixed(Role),
    Agent(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Word(String),
    Namespace,
    Service,
}

/// Text that is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no grant: {why}")]
pub struct BadGrant {
    text: String,
    why: &'static str,
}

impl FromStr for Grant {
    type Err = BadGrant;

    fn from_str(text: &str) -> Result<Self, BadGrant> {
        let bad = |why| BadGrant { text: text.to_owned(), why };
        let (role, pattern) = text
            .split_once('=')
            .ok_or_else(|| bad("write ROLE=PATTERN, like admin=spiffe://example.org/ns/ops/sa/ci"))?;
        let name = ["spiffe://", "dns:", "sub:"].iter().find_map(|kind| pattern.strip_prefix(kind));
        if name.is_none_or(str::is_empty) {
            return Err(bad("the pattern must begin with spiffe://, dns: or sub:, and go on"));
        }
        let meaning = match Role::of(role, None) {
            Some(_) if pattern.contains(['{', '}']) => {
                return Err(bad("only an agent's pattern has {namespace} and {service}: others are names"));
            }
            Some(role) => Meaning::Fixed(role),
            None if role == "agent" => Meaning::Agent(parts(pattern).map_err(bad)?),
            None => return Err(bad("the role must be viewer, operator, admin or agent")),
        };
        Ok(Self { meaning, pattern: pattern.to_owned() })
    }
}

fn parts(pattern: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(place) = rest.find('{') {
        let (word, hole) = rest.split_at(place);
        // Two holes in a row, or a hole within a word, could be read in several ways.
        if !word.ends_with(['/', '.', ':']) {
            return Err("{namespace} and {service} take a whole part of the name, after /, . or :");
        }
        parts.push(Part::Word(word.to_owned()));
        let part = [(NAMESPACE, Part::Namespace), (SERVICE, Part::Service)]
            .into_iter()
            .find_map(|(name, part)| Some((part, hole.strip_prefix(name)?)));
        let (part, after) = part.ok_or("between braces only {namespace} and {service} mean something")?;
        if !after.is_empty() && !after.starts_with(['/', '.', ':']) {
            return Err("{namespace} and {service} take a whole part of the name, up to /, . or :");
        }
        parts.push(part);
        rest = after;
    }
    if rest.contains('}') {
        return Err("a } has no {");
    }
    if !rest.is_empty() {
        parts.push(Part::Word(rest.to_owned()));
    }
    let times = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
    match (times(&Part::Service), times(&Part::Namespace)) {
        (1, 0 | 1) => Ok(parts),
        _ => Err("an agent's pattern has {service} once, and {namespace} at most once"),
    }
}

impl Grant {
    /// The role that it gives to a name.
    fn role(&self, name: &str) -> Option<Role> {
        match &self.meaning {
            Meaning::Fixed(role) => (self.pattern == name).then(|| role.clone()),
            Meaning::Agent(parts) => {
                let (mut namespace, mut service) = (Some(Namespace::default_namespace()), None);
                let mut rest = name;
                for part in parts {
                    if let Part::Word(word) = part {
                        rest = rest.strip_prefix(word.as_str())?;
                        continue;
                    }
                    let end = rest.find(['/', '.', ':']).unwrap_or(rest.len());
                    let (found, after) = rest.split_at(end);
                    if *part == Part::Namespace {
                        namespace = Namespace::try_new(found).ok();
                    } else {
                        service = CallerName::try_new(found).ok();
                    }
                    rest = after;
                }
                let (namespace, service) = namespace.zip(service).filter(|_| rest.is_empty())?;
                Some(Role::Agent { namespace, service })
            }
        }
    }
}

/// The role of whoever has these names: the first grant that takes one decides. With it, the name that it took.
#[must_use]
pub fn role_of(grants: &[Grant], names: &[String]) -> Option<(Role, String)> {
    grants.iter().find_map(|grant| names.iter().find_map(|name| Some((grant.role(name)?, name.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(grants: &[&str], name: &str) -> Option<String> {
        let grants: Vec<Grant> = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        role_of(&grants, &[name.to_owned()]).map(|(role, _)| role.to_string())
    }

    #[test]
    fn a_pattern_takes_whole_names_and_whole_parts() {
        let spiffe = &["agent=spiffe://example.org/ns/{namespace}/sa/{service}"][..];
        assert_eq!(role(spiffe, "spiffe://example.org/ns/shop/sa/cart").as_deref(), Some("agent of shop/cart"));
        for other in [
            "spiffe://example.org/ns/shop/sa/cart/x",
            "spiffe://example.org/ns/shop/sa/",
            "spiffe://example.org/ns/a/b/sa/cart",
            "spiffe://example.org.evil/ns/shop/sa/cart",
            "spiffe://other.org/ns/shop/sa/cart",
            "xspiffe://example.org/ns/shop/sa/cart",
            "spiffe://example.org/ns/sh op/sa/cart",
        ] {
            assert_eq!(role(spiffe, other), None, "{other}");
        }
        let dns = &["agent=dns:{service}.{namespace}.svc"][..];
        assert_eq!(role(dns, "dns:cart.shop.svc").as_deref(), Some("agent of shop/cart"));
        assert_eq!(role(dns, "dns:cart.shop.svc.evil"), None);
        assert_eq!(role(&["agent=sub:system:{service}"], "sub:system:cart").as_deref(), Some("agent of default/cart"));
    }

    #[test]
    fn operators_are_named_word_for_word_and_the_first_grant_decides() {
        let grants = ["admin=spiffe://x/ns/ops/sa/ci", "agent=spiffe://x/ns/{namespace}/sa/{service}"];
        assert_eq!(role(&grants, "spiffe://x/ns/ops/sa/ci").as_deref(), Some("admin"));
        assert_eq!(role(&grants, "spiffe://x/ns/ops/sa/ci2").as_deref(), Some("agent of ops/ci2"));
    }

    #[test]
    fn what_is_no_grant_is_told_why() {
        for (text, why) in [
            ("admin", "write ROLE=PATTERN"),
            ("root=dns:x", "the role must be"),
            ("admin=x", "must begin with"),
            ("admin=dns:", "must begin with"),
            ("admin=spiffe://x/{service}", "only an agent's"),
            ("agent=dns:x", "has {service} once"),
            ("agent=dns:a{service}", "after /, . or :"),
            ("agent=dns:{service}a", "up to /, . or :"),
            ("agent=dns:{service}.{service}", "has {service} once"),
            ("agent=dns:{other}", "only {namespace} and {service}"),
            ("agent=dns:{service}.}", "has no {"),
        ] {
            let error = text.parse::<Grant>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
