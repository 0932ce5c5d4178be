//! The seeds, and everything that once broke a promise, through their targets. What the fuzzer finds goes into `crashes`, so that it
//! is found again without one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fusebox_fuzz::{TARGETS, call};
use fusebox_policy::{Policy, policy::Definition};
use fusebox_proto::{manifest, v1};
use prost::Message as _;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of a folder in the order of their names. A folder that is not there is empty.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), bytes(&path))).collect()
}

fn run_all(folder_name: &str) {
    for (name, run) in TARGETS {
        for (path, bytes) in files(&folder(folder_name).join(name)) {
            // The test's output is shown when it fails: the last line names the input.
            eprintln!("{}", path.display());
            run(&bytes);
        }
    }
}

#[test]
fn seeds_keep_every_promise() {
    run_all("corpus");
}

#[test]
fn what_once_broke_a_promise_keeps_it() {
    run_all("crashes");
}

#[test]
fn the_policies_of_the_demo_keep_every_promise() {
    let policies = files(&folder("../../demo-services/policies"));
    assert!(!policies.is_empty());
    for (path, bytes) in policies {
        eprintln!("{}", path.display());
        fusebox_fuzz::manifest::run(&bytes);
    }
}

/// What a fuzzer would do first, for those who don't run one. Small bytes are failures: half of the scripts are unlucky.
#[test]
fn calls_of_every_seed_keep_every_promise_whatever_happens() {
    let mut random = fastrand::Rng::with_seed(7);
    for (path, text) in files(&folder("corpus/manifest")) {
        let Ok(documents) = manifest::parse("seed", &String::from_utf8_lossy(&text)) else { continue };
        let spec = v1::PolicySpec::from(&documents[0].policy.definition);
        eprintln!("{}", path.display());
        for _ in 0..100 {
            let small = random.u8(..);
            let mut script = vec![0; random.usize(..600)];
            script.fill_with(|| if random.u8(..) < small { random.u8(..8) } else { random.u8(..) });
            call::run(&call::input(&spec, &script));
        }
    }
}

/// What happens in the seeds of calls: three calls at once, failures of each kind, waits, a drop, a timeout.
const SCRIPT: &[u8] = &[
    0, 0, 1, 0, 0, 4, 5, 0, 40, 0, 99, 5, 0, 0, 20, 1, 99, 6, 1, 0, 210, 240, 7, 2, 0, 35, 225, 100, 99, 3, 120, 4, 0,
    250, 200, 2, 1, 5, 0, 0, 0, 7, 7, 0, 0, 36, 0, 60, 4, 0, 130, 5, 0, 0, 3, 200, 0, 4, 4, 0, 0, 0, 0,
];

/// The binary seeds are the textual ones on the wire. `UPDATE_SEEDS=1 cargo test -p fusebox-fuzz` writes them anew.
#[test]
fn the_seeds_on_the_wire_are_those_in_text() {
    for (path, text) in files(&folder("corpus/manifest")) {
        let name = path.file_stem().unwrap();
        let documents = match manifest::parse("seed", &String::from_utf8(text).unwrap()) {
            Ok(documents) => documents,
            Err(_) if name == "wrong" => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let policy = &documents[0].policy;
        let [wire_path, call_path] = ["wire", "call"].map(|target| folder("corpus").join(target).join(name));
        let message = v1::Policy::from(policy);
        let spec = message.spec.clone().unwrap();
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::write(&wire_path, message.encode_to_vec()).unwrap();
            fs::write(&call_path, call::input(&spec, SCRIPT)).unwrap();
        }
        let on_wire = v1::Policy::decode(bytes(&wire_path).as_slice()).unwrap();
        assert_eq!(Policy::try_from(on_wire).as_ref(), Ok(policy), "{}", wire_path.display());
        let definition: Option<Definition> = call::parts(&bytes(&call_path)).map(|(definition, _)| definition);
        assert_eq!(definition.as_ref(), Some(&policy.definition), "{}", call_path.display());
    }
}
