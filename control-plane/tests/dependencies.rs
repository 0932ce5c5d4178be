//! That every crate which a build could take in comes from where it may, under a licence that may be, and is none that must not be: what
//! `.ci/deny.toml` says, asked of `cargo metadata`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

use std::{collections::BTreeSet, path::Path, process::Command};

use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Ban {
    /// A name, or a name with versions below one that is banned: `h2:<0.4.19`.
    #[serde(rename = "crate")]
    named: String,
    #[serde(default)]
    deny_multiple_versions: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    unknown_registry: String,
    unknown_git: String,
    allow_registry: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None of those of this workspace.
    source: Option<String>,
}

fn rules() -> Rules {
    toml::from_str(include_str!("../../.ci/deny.toml")).unwrap()
}

/// Every package that any feature on any platform brings.
fn packages() -> Vec<Package> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"]).current_dir(root);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Metadata>(&output.stdout).unwrap().packages
}

/// Whether a licence expression can be met by licences that are allowed: AND binds closer than OR, and a slash is an old way to write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest, allowed) && rest.is_empty()
}

fn any(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = all(words, allowed);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        met |= all(words, allowed);
    }
    met
}

fn all(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let met = any(words, allowed);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            met
        }
        // With an exception it is another licence.
        [_, "WITH", _, rest @ ..] => {
            *words = rest;
            false
        }
        [name, rest @ ..] => {
            *words = rest;
            allowed.contains(*name)
        }
        [] => false,
    }
}

/// What is wrong with these packages.
fn faults(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    let registries: BTreeSet<String> =
        rules.sources.allow_registry.iter().map(|registry| format!("registry+{registry}")).collect();
    for Package { name, version, license, source } in packages {
        let Some(source) = source else { continue };
        if !registries.contains(source) {
            faults.push(format!("{name} {version} comes from {source}"));
        }
        let license = license.as_deref().unwrap_or("none");
        if !is_allowed(license, &rules.licenses.allow) {
            faults.push(format!("{name} {version} has the licence {license}"));
        }
    }
    for Ban { named, deny_multiple_versions } in &rules.bans.deny {
        let (named, below) = named.split_once(":<").map_or((named.as_str(), None), |(name, below)| (name, Some(below)));
        let found: BTreeSet<&str> =
            packages.iter().filter(|package| package.name == named).map(|package| package.version.as_str()).collect();
        if *deny_multiple_versions {
            if found.len() > 1 {
                faults.push(format!("{named} is there in several versions: {found:?}"));
            }
            continue;
        }
        let banned = found.into_iter().filter(|version| below.is_none_or(|below| parts(version) < parts(below)));
        faults.extend(banned.map(|version| format!("{named} {version} is banned")));
    }
    faults
}

/// A version for comparison; what is before a release counts as it.
fn parts(version: &str) -> Vec<u64> {
    let numbers = version.split(['-', '+']).next().unwrap();
    numbers.split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn every_dependency_is_one_that_may_be() {
    let (rules, packages) = (rules(), packages());
    assert!(packages.len() > 300, "{} packages: that is not the lock file", packages.len());
    assert_eq!((rules.sources.unknown_registry.as_str(), rules.sources.unknown_git.as_str()), ("deny", "deny"));
    assert_eq!(faults(&rules, &packages), Vec::<String>::new());
    // What is allowed is needed.
    for license in &rules.licenses.allow {
        let without: BTreeSet<String> = rules.licenses.allow.iter().filter(|own| *own != license).cloned().collect();
        let needs = |package: &Package| package.license.as_ref().is_some_and(|text| !is_allowed(text, &without));
        assert!(packages.iter().any(needs), "{license} is allowed, and nothing needs it");
    }
}

#[test]
fn what_may_not_be_is_noticed() {
    let rules = rules();
    let fine = Package {
        name: "fine".to_owned(),
        version: "1.0.0".to_owned(),
        license: Some("MIT OR Apache-2.0".to_owned()),
        source: Some("registry+https://github.com/rust-lang/crates.io-index".to_owned()),
    };
    let named = |name: &str, version: &str| Package { name: name.into(), version: version.into(), ..fine.clone() };
    let licensed = |license: Option<&str>| Package { license: license.map(str::to_owned), ..fine.clone() };
    let from = |source: &str| Package { source: Some(source.to_owned()), ..fine.clone() };
    assert!(faults(&rules, &[fine.clone(), named("tonic", "0.14.7"), named("h2", "0.4.19")]).is_empty());
    for (packages, fault) in [
        (vec![named("openssl", "0.10.0")], "openssl 0.10.0 is banned"),
        (vec![named("aws-lc-rs", "1.0.0")], "aws-lc-rs 1.0.0 is banned"),
        (vec![named("h2", "0.4.18")], "h2 0.4.18 is banned"),
        (vec![named("tonic", "0.14.6-rc.1")], "tonic 0.14.6-rc.1 is banned"),
        (vec![named("tonic", "0.14.9"), named("tonic", "0.15.0")], "tonic is there in several versions"),
        (vec![licensed(Some("GPL-3.0-only"))], "has the licence GPL-3.0-only"),
        (vec![licensed(Some("MIT AND GPL-3.0-only"))], "has the licence MIT AND"),
        (vec![licensed(Some("(MIT OR ISC) AND (GPL-3.0-only OR LGPL-3.0-only)"))], "has the licence (MIT"),
        (vec![licensed(Some("Apache-2.0 WITH LLVM-exception"))], "has the licence Apache-2.0 WITH"),
        (vec![licensed(Some(""))], "has the licence "),
        (vec![licensed(None)], "has the licence none"),
        (vec![from("git+https://github.com/somebody/fine")], "comes from git+"),
        (vec![from("registry+https://crates.example.org/index")], "comes from registry+https://crates.example.org"),
    ] {
        let found = faults(&rules, &packages);
        assert!(found.len() == 1 && found[0].contains(fault), "{fault}: {found:?}");
    }
    assert!(is_allowed("MIT/Apache-2.0", &rules.licenses.allow) && is_allowed("GPL-3.0 OR MIT", &rules.licenses.allow));
    assert!(is_allowed("(MIT OR GPL-3.0) AND ISC", &rules.licenses.allow));
}
