//! The files behind `-f`: reads them, checks them together, and finds the line for what a server says about them.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use fusebox_policy::{Namespace, Policy};
use fusebox_proto::{manifest, v1};

use super::failure::{BadField, Class, Failure};

/// The options of commands that read manifests.
#[derive(Clone, Debug, Args)]
pub struct FileArgs {
    /// File or folder of manifests, or - for stdin; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Read folders with all that is below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// One policy and where it was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The policy.
    pub(crate) policy: Policy,
    /// The file as it was named.
    source: String,
    /// Number of the document in the file.
    index: usize,
    /// Its first line.
    line: usize,
}

/// All policies of a command.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// In the order of the files.
    pub(crate) written: Vec<Written>,
    texts: BTreeMap<String, String>,
}

/// What stdin is called in messages.
const STDIN: &str = "<stdin>";

impl Manifests {
    /// Reads and checks everything; faults of all files are told together.
    ///
    /// # Errors
    /// A file that cannot be read, or anything that is wrong in one.
    pub(crate) fn read(args: &FileArgs, namespace: Option<&str>) -> Result<Self, Failure> {
        let mut all = Self::default();
        let mut faults = Vec::new();
        for (source, text) in texts(args)? {
            match manifest::parse(&source, &text) {
                Ok(documents) => {
                    for (index, document) in documents.into_iter().enumerate() {
                        let (policy, line) = (document.policy, document.line);
                        all.written.push(Written { policy, source: source.clone(), index, line });
                    }
                }
                Err(error) => faults.push(error.to_string().trim_end().to_owned()),
            }
            all.texts.insert(source, text);
        }
        if !faults.is_empty() {
            return Err(invalid(faults.join("\n")));
        }
        if all.written.is_empty() {
            return Err(invalid("the files hold no policy".to_owned()));
        }
        if let Some(namespace) = namespace {
            all.put_into(namespace)?;
        }
        all.refuse_twins()?;
        Ok(all)
    }

    /// Manifests that name no namespace go where `-n` says; one that names another is a mistake of somebody.
    fn put_into(&mut self, namespace: &str) -> Result<(), Failure> {
        let wanted = Namespace::try_new(namespace)
            .map_err(|error| Failure::new(Class::Usage, format!("--namespace {error}")))?;
        let mut faults = Vec::new();
        for written in &mut self.written {
            let text = self.texts.get(&written.source).map(String::as_str).unwrap_or_default();
            match manifest::locate(text, written.index, "metadata.namespace") {
                Some((line, column)) if written.policy.namespace != wanted => faults.push(format!(
                    "{}:{line}:{column}: metadata.namespace: is \"{}\", but --namespace is \"{wanted}\"",
                    written.source, written.policy.namespace
                )),
                Some(_) => {}
                None => written.policy.namespace = wanted.clone(),
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(invalid(faults.join("\n"))) }
    }

    fn refuse_twins(&self) -> Result<(), Failure> {
        let mut seen: BTreeMap<String, &Written> = BTreeMap::new();
        let mut faults = Vec::new();
        for written in &self.written {
            if let Some(first) = seen.insert(written.policy.resource_name(), written) {
                faults.push(format!(
                    "{}:{}:1: metadata.name: policy \"{}\" is there twice, first at {}:{}",
                    written.source, written.line, written.policy.name, first.source, first.line
                ));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(invalid(faults.join("\n"))) }
    }

    /// The policies for the wire.
    pub(crate) fn to_wire(&self) -> Vec<v1::Policy> {
        self.written.iter().map(|written| v1::Policy::from(&written.policy)).collect()
    }

    /// A server's refusal with each field at its file, line and column.
    pub(crate) fn place(&self, mut failure: Failure) -> Failure {
        if failure.class != Class::Invalid || failure.fields.is_empty() {
            return failure;
        }
        let lines: Vec<_> = failure.fields.iter().map(|field| self.line_of(field)).collect();
        failure.what = lines.join("\n");
        failure.fields.clear();
        failure.fix.get_or_insert_with(|| "correct these, then run the command again; nothing was changed".to_owned());
        failure
    }

    fn line_of(&self, field: &BadField) -> String {
        let (index, path) = split(&field.path);
        let written = match (index, self.written.as_slice()) {
            (Some(index), written) => written.get(index),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let Some(written) = written else {
            return format!("{}: {}", field.path, field.reason);
        };
        let text = self.texts.get(&written.source).map(String::as_str).unwrap_or_default();
        let (line, column) = nearest_line(text, written, path);
        let place = format!("{}:{line}:{column}: {path}: {}", written.source, field.reason);
        match text.lines().nth(line.saturating_sub(1)) {
            Some(snippet) => format!("{place}\n{line:>5} | {snippet}\n      | {:>column$}", "^"),
            None => place,
        }
    }
}

/// A field that was left out has no line: the nearest field around it has.
fn nearest_line(text: &str, written: &Written, path: &str) -> (usize, usize) {
    let mut path = path;
    loop {
        if let Some(place) = manifest::locate(text, written.index, path) {
            return place;
        }
        match path.rfind(['.', '[']) {
            Some(end) => path = &path[..end],
            None => return (written.line, 1),
        }
    }
}

/// `policies[2].spec.match` is `spec.match` of the third policy.
fn split(path: &str) -> (Option<usize>, &str) {
    let parsed = path.strip_prefix("policies[").and_then(|rest| {
        let (index, rest) = rest.split_once(']')?;
        Some((index.parse().ok()?, rest.trim_start_matches('.')))
    });
    parsed.map_or((None, path), |(index, rest)| (Some(index), rest))
}

fn invalid(what: String) -> Failure {
    Failure::new(Class::Invalid, what)
}

fn texts(args: &FileArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for path in &args.files {
        if path == Path::new("-") {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| unreadable(Path::new(STDIN), &error))?;
            texts.push((STDIN.to_owned(), text));
            continue;
        }
        let is_folder = fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir();
        let files = if is_folder { files_in(path, args.recursive)? } else { vec![path.clone()] };
        if files.is_empty() {
            let failure = Failure::new(Class::Usage, format!("{} holds no .yaml, .yml or .json file", path.display()));
            return Err(if args.recursive { failure } else { failure.fix("-R also reads the folders below it") });
        }
        for file in files {
            let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            texts.push((file.display().to_string(), text));
        }
    }
    Ok(texts)
}

/// The manifests of a folder in the order of their names.
fn files_in(folder: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut entries = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>())
        .map_err(|error| unreadable(folder, &error))?;
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        // A link to a folder is not followed: it could lead round in a circle.
        let kind = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if kind.is_dir() {
            if recursive {
                files.extend(files_in(&path, true)?);
            }
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Class::Usage, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(path: &Path, recursive: bool) -> FileArgs {
        FileArgs { files: vec![path.to_owned()], recursive }
    }

    #[test]
    fn a_folder_is_read_in_order_and_below_it_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("c")).unwrap();
        for name in ["b.yaml", "a.yml", "c/d.json", "notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |recursive| {
            let found = texts(&args(folder.path(), recursive)).unwrap();
            let strip = |(name, _): &(String, String)| name.rsplit('/').next().unwrap().to_owned();
            found.iter().map(strip).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.yml", "b.yaml"]);
        assert_eq!(names(true), ["a.yml", "b.yaml", "d.json"]);
    }

    #[test]
    fn a_missing_file_and_an_empty_folder_are_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("none.yaml"), folder.path().to_owned()] {
            assert_eq!(texts(&args(&path, false)).unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn a_servers_path_names_the_document() {
        assert_eq!(split("policies[2].spec.match"), (Some(2), "spec.match"));
        assert_eq!(split("spec.match"), (None, "spec.match"));
        assert_eq!(split("policies[x].a"), (None, "policies[x].a"));
    }
}
