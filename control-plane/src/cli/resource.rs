//! What a command is about: `TYPE NAME...` or `TYPE/NAME`.

use super::failure::{Class, Failure};
use crate::nearest::nearest;

/// Kinds of thing that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Policies.
    Policies,
    /// Circuit breakers.
    Breakers,
    /// Connected replicas.
    Instances,
    /// Services that replicas connect as or call.
    Services,
    /// Rollouts of policies.
    Rollouts,
}

/// Spellings, the canonical one first.
const SPELLINGS: [(Kind, &[&str]); 5] = [
    (Kind::Policies, &["policies", "policy", "pol"]),
    (Kind::Breakers, &["breakers", "breaker", "br"]),
    (Kind::Instances, &["instances", "instance", "inst"]),
    (Kind::Services, &["services", "service", "svc"]),
    (Kind::Rollouts, &["rollouts", "rollout", "ro"]),
];

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        SPELLINGS.iter().find(|(_, words)| words.contains(&text)).map(|(kind, _)| *kind)
    }

    /// The word for several of them.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Breakers => "breakers",
            Self::Instances => "instances",
            Self::Services => "services",
            Self::Rollouts => "rollouts",
        }
    }

    /// Whether they carry labels.
    pub(crate) const fn has_labels(self) -> bool {
        matches!(self, Self::Policies | Self::Instances)
    }

    /// The word for one of them.
    pub(crate) const fn singular(self) -> &'static str {
        match self {
            Self::Policies => "policy",
            Self::Breakers => "breaker",
            Self::Instances => "instance",
            Self::Services => "service",
            Self::Rollouts => "rollout",
        }
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The kind.
    pub(crate) kind: Kind,
    /// The names; empty means all.
    pub(crate) names: Vec<String>,
}

impl Wanted {
    /// Reads `TYPE`, `TYPE NAME...`, `TYPE/NAME...`.
    ///
    /// # Errors
    /// An unknown type, or several types at once.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Failure> {
        let Some((first, rest)) = words.split_first() else {
            return Err(usage("nothing was named").fix("give policies, breakers, instances, services or rollouts"));
        };
        if let Some(kind) = Kind::parse(first) {
            let names = rest.iter().map(|word| Self::strip(kind, word)).collect();
            return Ok(Self { kind, names });
        }
        let mut wanted: Option<Self> = None;
        for word in words {
            let (kind, name) = Self::typed(word)?;
            match &mut wanted {
                None => wanted = Some(Self { kind, names: vec![name.to_owned()] }),
                Some(own) if own.kind == kind => own.names.push(name.to_owned()),
                Some(_) => return Err(usage("things of several types cannot be shown together")),
            }
        }
        wanted.ok_or_else(|| usage("nothing was named"))
    }

    /// Reads exactly one thing of one of `kinds`.
    ///
    /// # Errors
    /// None or several names, or another type.
    pub(crate) fn one(words: &[String], kinds: &[Kind]) -> Result<(Kind, String), Failure> {
        let Self { kind, mut names } = Self::parse(words)?;
        if !kinds.contains(&kind) {
            let able = kinds.iter().map(|kind| kind.singular()).collect::<Vec<_>>().join(" or ");
            return Err(usage(format!("this works on a {able}, not on a {}", kind.singular())));
        }
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => Ok((kind, name)),
            (None, _) => Err(usage(format!("the name of the {0} is missing", kind.singular()))
                .fix(format!("`fusebox get {}` lists them", kind.plural()))),
            (Some(_), false) => Err(usage(format!("one {} at a time", kind.singular()))),
        }
    }

    /// `policy policy/x` is as good as `policy x`. A bare slash inside a name is part of the name.
    fn strip(kind: Kind, word: &str) -> String {
        match word.split_once('/') {
            Some((head, name)) if Kind::parse(head) == Some(kind) && !name.is_empty() => name.to_owned(),
            _ => word.to_owned(),
        }
    }

    fn typed(word: &str) -> Result<(Kind, &str), Failure> {
        let (head, name) = word.split_once('/').map_or((word, None), |(head, name)| (head, Some(name)));
        match (Kind::parse(head), name) {
            (Some(kind), Some(name)) if !name.is_empty() => Ok((kind, name)),
            (Some(kind), _) => Err(usage(format!("\"{word}\" lacks a name: {}/NAME", kind.singular()))),
            (None, _) => {
                let known = SPELLINGS.iter().flat_map(|(_, words)| words.iter().copied());
                let near = nearest(head, known);
                let failure = usage(format!("\"{head}\" is not a type of resource"));
                Err(match near {
                    Some(near) => failure.fix(format!("did you mean \"{near}\"?")),
                    None => failure.fix(
                        "the types are policies, breakers, instances, services and rollouts, as TYPE NAME or TYPE/NAME",
                    ),
                })
            }
        }
    }
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::new(Class::Usage, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_type_and_a_name_may_be_joined_or_apart() {
        let wanted = Wanted { kind: Kind::Policies, names: vec!["a".to_owned(), "b".to_owned()] };
        for text in ["policy a b", "policies/a policy/b", "pol policy/a b"] {
            assert_eq!(Wanted::parse(&words(text)).unwrap(), wanted, "{text}");
        }
        let breaker = Wanted::parse(&words("breakers/default/a/p/s/t/-")).unwrap();
        assert_eq!(breaker.names, ["default/a/p/s/t/-"]);
    }

    #[test]
    fn a_wrong_type_is_told_with_the_nearest_right_one() {
        let failure = Wanted::parse(&words("polices")).unwrap_err();
        assert_eq!((failure.class, failure.fix.as_deref()), (Class::Usage, Some("did you mean \"policies\"?")));
    }

    #[test]
    fn verbs_for_one_thing_refuse_none_and_two() {
        for text in ["policy", "policy a b", "instance a"] {
            assert_eq!(Wanted::one(&words(text), &[Kind::Policies]).unwrap_err().class, Class::Usage, "{text}");
        }
        assert_eq!(Wanted::one(&words("policy/a"), &[Kind::Policies]).unwrap().1, "a");
    }
}
