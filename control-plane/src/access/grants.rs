//! What names of others mean here: which role the owner of a certificate or a JWT has.
//!
//! A grant is written `ROLE=PATTERN` or `ROLE@NAMESPACE=PATTERN`: `admin=spiffe://example.org/ns/ops/sa/ci`,
//! `operator@shop=sub:alice@example.org`, `operator=spiffe://example.org/ns/{namespace}/sa/deployer`,
//! `agent=spiffe://example.org/ns/{namespace}/sa/{service}`, `agent=dns:{service}.{namespace}.svc.example.org`.
//!
//! `{namespace}` and `{service}` take one part of the name, which may hold what names of namespaces and services hold, and no `/`, `.` or
//! `:`. An agent's pattern has `{service}`; its namespace is that of the grant or of `{namespace}`, else `default`. Viewers, operators and
//! admins are bound to the namespace of the grant or of `{namespace}`; with neither the pattern is a name, taken word for word, and the role
//! is for all namespaces. A name that no pattern takes has no role, and trust domains are as good as different names: nothing is matched in
//! part.

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
    /// Of one name.
    Fixed(Role),
    /// Of every name with these parts, which say the rest.
    Parts { role: String, namespace: Option<Namespace>, parts: Vec<Part> },
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
        let (role, namespace) = match role.split_once('@') {
            Some((role, namespace)) => match Namespace::try_new(namespace) {
                Ok(namespace) => (role, Some(namespace)),
                Err(_) => return Err(bad("what stands behind the @ must be the name of a namespace")),
            },
            None => (role, None),
        };
        let name = ["spiffe://", "dns:", "sub:"].iter().find_map(|kind| pattern.strip_prefix(kind));
        if name.is_none_or(str::is_empty) {
            return Err(bad("the pattern must begin with spiffe://, dns: or sub:, and go on"));
        }
        let fixed = Role::of(role, namespace.clone(), None);
        if fixed.is_none() && role != "agent" {
            return Err(bad("the role must be viewer, operator, admin or agent"));
        }
        let meaning = match fixed {
            Some(role) if !pattern.contains(['{', '}']) => Meaning::Fixed(role),
            Some(_) | None => {
                let parts = parts(pattern).map_err(bad)?;
                let times = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
                match (fixed.is_none(), times(&Part::Service), times(&Part::Namespace)) {
                    (true, 1, 0 | 1) | (false, 0, 1) => {}
                    (true, ..) => {
                        return Err(bad("an agent's pattern has {service} once, and {namespace} at most once"));
                    }
                    (false, ..) => {
                        return Err(bad(
                            "the pattern of a viewer, operator or admin is a name, or has {namespace} once",
                        ));
                    }
                }
                if namespace.is_some() && times(&Part::Namespace) > 0 {
                    return Err(bad("the namespace is given twice: behind the @, and by {namespace}"));
                }
                Meaning::Parts { role: role.to_owned(), namespace, parts }
            }
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
    Ok(parts)
}

impl Grant {
    /// The role that it gives to a name.
    fn role(&self, name: &str) -> Option<Role> {
        match &self.meaning {
            Meaning::Fixed(role) => (self.pattern == name).then(|| role.clone()),
            Meaning::Parts { role, namespace, parts } => {
                let (mut namespace, mut service) = (namespace.clone(), None);
                let mut rest = name;
                for part in parts {
                    if let Part::Word(word) = part {
                        rest = rest.strip_prefix(word.as_str())?;
                        continue;
                    }
                    let end = rest.find(['/', '.', ':']).unwrap_or(rest.len());
                    let (found, after) = rest.split_at(end);
                    if *part == Part::Namespace {
                        namespace = Some(Namespace::try_new(found).ok()?);
                    } else {
                        service = Some(CallerName::try_new(found).ok()?);
                    }
                    rest = after;
                }
                if !rest.is_empty() {
                    return None;
                }
                if service.is_some() {
                    namespace = namespace.or_else(|| Some(Namespace::default_namespace()));
                }
                // A role of which nothing says how far it goes would go over everything.
                Role::of(role, Some(namespace?), service)
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
    fn a_role_is_bound_to_the_namespace_of_the_grant_or_of_the_name() {
        let named = &["viewer@shop=sub:alice@example.org", "admin=sub:root"][..];
        assert_eq!(role(named, "sub:alice@example.org").as_deref(), Some("viewer of shop"));
        assert_eq!(role(named, "sub:alice@example.org.evil"), None);
        assert_eq!(role(named, "sub:root").as_deref(), Some("admin"));
        let parts = &["operator=spiffe://x/ns/{namespace}/sa/deployer", "admin=dns:admin.{namespace}.svc"][..];
        assert_eq!(role(parts, "spiffe://x/ns/shop/sa/deployer").as_deref(), Some("operator of shop"));
        assert_eq!(role(parts, "dns:admin.bank.svc").as_deref(), Some("admin of bank"));
        for other in [
            "spiffe://x/ns//sa/deployer",
            "spiffe://x/ns/SHOP/sa/deployer",
            "spiffe://x/ns/shop/sa/deployer2",
            "spiffe://x/ns/shop/bank/sa/deployer",
            "dns:admin..svc",
            "dns:admin.bank.svc.evil",
        ] {
            assert_eq!(role(parts, other), None, "{other}");
        }
        let agents = &["agent@shop=dns:{service}.svc"][..];
        assert_eq!(role(agents, "dns:cart.svc").as_deref(), Some("agent of shop/cart"));
    }

    #[test]
    fn what_is_no_grant_is_told_why() {
        for (text, why) in [
            ("admin", "write ROLE=PATTERN"),
            ("root=dns:x", "the role must be"),
            ("admin=x", "must begin with"),
            ("admin=dns:", "must begin with"),
            ("admin=spiffe://x/{service}", "or has {namespace} once"),
            ("operator=dns:{namespace}.{namespace}", "or has {namespace} once"),
            ("operator@shop=dns:{namespace}.x", "given twice"),
            ("agent@shop=dns:{service}.{namespace}", "given twice"),
            ("agent@shop=dns:x", "has {service} once"),
            ("operator@=dns:x", "behind the @"),
            ("operator@Shop=dns:x", "behind the @"),
            ("root@shop=dns:x", "the role must be"),
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
