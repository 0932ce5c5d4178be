//! `context`: control planes under short names, with what it takes to reach them, in one file of the user's own.
//!
//! What counts for a verb: its flag, else the environment, else the context, else the default. What a context says of CA, certificate and
//! token is of its own address alone: with another address, none of it is sent there.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    GlobalArgs,
    failure::{Class, Failure},
    output::{self, Format, OutputArgs},
};

/// What can be done with contexts.
#[derive(Clone, Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts; the one in use is marked
    #[command(after_help = "Example:\n  fusebox context list\n  fusebox context list -o json")]
    List(OutputArgs),
    /// Use another context from now on
    #[command(after_help = "Example:\n  fusebox context use production")]
    Use(NameArgs),
    /// Make a context of the given --address, --ca, --cert, --key, --token and --namespace, or change these in it
    #[command(
        after_help = "Example:\n  fusebox context set production --address https://fusebox.example.org:7443 --ca ca.pem\n  \
                            fusebox context set production --token-command 'pass show fusebox'"
    )]
    Set(SetArgs),
    /// Print the name of the context in use
    #[command(after_help = "Example:\n  fusebox context current")]
    Current,
}

/// A context's name.
#[derive(Clone, Debug, Args)]
pub struct NameArgs {
    /// Name of the context
    name: String,
}

/// Options of `context set`.
#[derive(Clone, Debug, Args)]
pub struct SetArgs {
    /// Name of the context
    name: String,
    /// Command whose first line of output is the token; run by sh each time
    #[arg(long, value_name = "COMMAND", conflicts_with = "token")]
    token_command: Option<String>,
}

/// A token as an option. Never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenText(String);

impl TokenText {
    /// To be sent.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for TokenText {
    fn from(text: String) -> Self {
        Self(text.trim().to_owned())
    }
}

impl std::str::FromStr for TokenText {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_owned().into())
    }
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenText(..)")
    }
}

/// One control plane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// Where a token comes from.
#[derive(Clone, Debug)]
pub(crate) enum TokenSource {
    /// It was given.
    Text(TokenText),
    /// A command prints it.
    Command(String),
}

/// What it takes to reach the control plane, and the namespace.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) address: String,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) token: Option<TokenSource>,
    pub(crate) plaintext_token: bool,
    pub(crate) namespace: Option<String>,
}

const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7443";

impl Settings {
    /// Merges flags, environment and context.
    ///
    /// # Errors
    /// The file of contexts can't be read, or there is no such context.
    pub(crate) fn new(globals: &GlobalArgs, env: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let said = |flag: Option<&String>, name: &str| flag.cloned().or_else(|| env(name));
        let path = |flag: Option<&PathBuf>, name: &str| flag.cloned().or_else(|| env(name).map(PathBuf::from));
        let contexts = match file(&env) {
            Some(path) => read(&path)?,
            None => Contexts::default(),
        };
        let named = said(globals.context.as_ref(), "FUSEBOX_CONTEXT");
        let context = match named.as_ref().or(contexts.current.as_ref()) {
            Some(name) => contexts.contexts.get(name).cloned().ok_or_else(|| no_context(name, &contexts))?,
            None => Context::default(),
        };
        let Context { address, ca, cert, key, token, token_command, namespace } = context;
        let given = said(globals.address.as_ref(), "FUSEBOX_ADDRESS");
        let elsewhere = given.as_ref().is_some_and(|given| Some(given) != address.as_ref());
        let own = |path: Option<PathBuf>| path.filter(|_| !elsewhere);
        let token = match globals.token.clone().or_else(|| env("FUSEBOX_TOKEN").map(TokenText::from)) {
            // Said to be none: a certificate is to be shown instead.
            Some(TokenText(text)) if text.is_empty() => None,
            Some(text) => Some(TokenSource::Text(text)),
            None if elsewhere => None,
            None => token.map(TokenSource::Text).or_else(|| token_command.map(TokenSource::Command)),
        };
        Ok(Self {
            address: given.or(address).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
            ca: path(globals.ca.as_ref(), "FUSEBOX_CA").or(own(ca)),
            cert: path(globals.cert.as_ref(), "FUSEBOX_CERT").or(own(cert)),
            key: path(globals.key.as_ref(), "FUSEBOX_KEY").or(own(key)),
            token,
            plaintext_token: globals.plaintext_token,
            namespace: said(globals.namespace.as_ref(), "FUSEBOX_NAMESPACE").or(namespace),
        })
    }
}

/// The file of contexts; `None` where there is no home.
fn file(env: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let base = env("XDG_CONFIG_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let base = base.or_else(|| env("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("fusebox/config.toml"))
}

fn read(path: &Path) -> Result<Contexts, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound || error.kind() == std::io::ErrorKind::NotADirectory =>
        {
            return Ok(Contexts::default());
        }
        Err(error) => {
            return Err(Failure::new(Class::Usage, format!("cannot read {}: {error}", path.display())));
        }
    };
    let contexts: Contexts = toml::from_str(&text).map_err(|error| {
        // toml's own text shows the line, which may hold a token.
        let place = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Failure::new(Class::Usage, format!("{} line {place}: {}", path.display(), error.message()))
    })?;
    let secret = contexts.contexts.values().any(|context| context.token.is_some());
    if secret && is_shared(path) {
        output::say(&format!("warning: {} holds a token and others may read it: chmod 600 it", path.display()));
    }
    Ok(contexts)
}

#[cfg(unix)]
fn is_shared(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_shared(_path: &Path) -> bool {
    false
}

/// Replaces the file in one step, readable by its owner alone.
fn write(path: &Path, contexts: &Contexts) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Class::Failed, format!("cannot write {}: {error}", path.display()))
    };
    let text = toml::to_string(contexts).map_err(|error| failed(&error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    // Made with mode 0600.
    let mut fresh = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed(&error))?;
    fresh.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
    fresh.persist(path).map_err(|error| failed(&error))?;
    Ok(())
}

fn no_context(name: &str, contexts: &Contexts) -> Failure {
    let failure = Failure::new(Class::NotFound, format!("there is no context \"{name}\""));
    match crate::nearest::nearest(name, contexts.contexts.keys().map(String::as_str)) {
        Some(near) => failure.fix(format!("did you mean \"{near}\"?")),
        None => failure.fix("`fusebox context set` makes one"),
    }
}

/// Runs `context`. Needs no server.
pub(super) fn context(globals: &GlobalArgs, command: ContextCommand) -> Result<(), Failure> {
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let path = file(&env).ok_or_else(|| {
        Failure::new(Class::Usage, "there is no home folder for the file of contexts").fix("set XDG_CONFIG_HOME")
    })?;
    let mut contexts = read(&path)?;
    match command {
        ContextCommand::List(output) => {
            let rows: Vec<Vec<String>> = contexts
                .contexts
                .iter()
                .map(|(name, context)| {
                    let mark = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                    let token = match (&context.token, &context.token_command) {
                        (Some(_), _) => "in the file",
                        (None, Some(_)) => "by command",
                        (None, None) => "-",
                    };
                    let dash = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
                    vec![
                        mark.to_owned(),
                        name.clone(),
                        dash(context.address.as_ref()),
                        dash(context.namespace.as_ref()),
                        token.to_owned(),
                    ]
                })
                .collect();
            if rows.is_empty() && matches!(output.format, Format::Table | Format::Wide) {
                output::say("there are no contexts; `fusebox context set` makes one");
                return Ok(());
            }
            let header = output.header(&["", "NAME", "ADDRESS", "NAMESPACE", "TOKEN"]);
            let text = output::columns(header, &rows, &[]).0;
            let value = |(name, context): (&String, &Context)| {
                json!({
                    "name": name,
                    "current": contexts.current.as_ref() == Some(name),
                    "address": context.address,
                    "namespace": context.namespace,
                    "ca": context.ca,
                    "cert": context.cert,
                    "token": context.token.is_some() || context.token_command.is_some(),
                })
            };
            let ids: Vec<_> = contexts.contexts.keys().cloned().collect();
            let references: Vec<_> = ids.iter().map(|name| format!("context/{name}")).collect();
            output.print(&output::list(contexts.contexts.iter().map(value).collect()), &text, &ids, &references)
        }
        ContextCommand::Current => match &contexts.current {
            Some(name) => output::print(name),
            None => {
                Err(Failure::new(Class::NotFound, "no context is in use").fix("`fusebox context use NAME` takes one"))
            }
        },
        ContextCommand::Use(NameArgs { name }) => {
            if !contexts.contexts.contains_key(&name) {
                return Err(no_context(&name, &contexts));
            }
            contexts.current = Some(name.clone());
            write(&path, &contexts)?;
            output::say(&format!("context \"{name}\" is in use"));
            Ok(())
        }
        ContextCommand::Set(SetArgs { name, token_command }) => {
            let GlobalArgs { address, ca, cert, key, token, namespace, context: _, plaintext_token: _, verbose: _ } =
                globals.clone();
            let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
            let context = contexts.contexts.entry(name.clone()).or_default();
            context.address = address.or(context.address.take());
            context.ca = ca.map(absolute).or(context.ca.take());
            context.cert = cert.map(absolute).or(context.cert.take());
            context.key = key.map(absolute).or(context.key.take());
            context.namespace = namespace.or(context.namespace.take());
            if token.is_some() || token_command.is_some() {
                (context.token, context.token_command) = (token, token_command);
            }
            contexts.current.get_or_insert_with(|| name.clone());
            write(&path, &contexts)?;
            output::say(&format!("context \"{name}\" set in {}", path.display()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &str, flags: impl FnOnce(&mut GlobalArgs), env: &[(&str, &str)]) -> Result<Settings, Failure> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("fusebox")).unwrap();
        fs::write(folder.path().join("fusebox/config.toml"), config).unwrap();
        let mut globals = GlobalArgs::default();
        flags(&mut globals);
        let home = folder.path().to_str().unwrap().to_owned();
        let env: BTreeMap<_, _> = env.iter().copied().chain([("XDG_CONFIG_HOME", home.as_str())]).collect();
        Settings::new(&globals, |name| env.get(name).map(|value| (*value).to_owned()))
    }

    const CONFIG: &str = "current = \"a\"\n[contexts.a]\naddress = \"https://a\"\nca = \"/ca\"\ntoken = \"ta\"\nnamespace = \"na\"\n\
                          [contexts.b]\naddress = \"https://b\"\ntoken-command = \"echo tb\"\n";

    fn token(settings: &Settings) -> Option<&str> {
        match settings.token.as_ref()? {
            TokenSource::Text(text) => Some(text.reveal()),
            TokenSource::Command(command) => Some(command),
        }
    }

    #[test]
    fn a_flag_comes_before_the_environment_before_the_context_before_the_default() {
        let plain = settings("", |_| {}, &[]).unwrap();
        assert_eq!((plain.address.as_str(), token(&plain), plain.namespace.as_deref()), (DEFAULT_ADDRESS, None, None));
        let context = settings(CONFIG, |_| {}, &[]).unwrap();
        assert_eq!((context.address.as_str(), token(&context)), ("https://a", Some("ta")));
        assert_eq!((context.ca, context.namespace.as_deref()), (Some("/ca".into()), Some("na")));
        let other = settings(CONFIG, |_| {}, &[("FUSEBOX_CONTEXT", "b"), ("FUSEBOX_NAMESPACE", "ne")]).unwrap();
        assert_eq!((other.address.as_str(), token(&other)), ("https://b", Some("echo tb")));
        assert_eq!(other.namespace.as_deref(), Some("ne"));
        let flags = |globals: &mut GlobalArgs| {
            globals.context = Some("b".to_owned());
            globals.token = Some("tf".to_owned().into());
            globals.namespace = Some("nf".to_owned());
        };
        let env = [("FUSEBOX_CONTEXT", "a"), ("FUSEBOX_TOKEN", "te"), ("FUSEBOX_NAMESPACE", "ne")];
        let flags = settings(CONFIG, flags, &env).unwrap();
        assert_eq!(
            (flags.address.as_str(), token(&flags), flags.namespace.as_deref()),
            ("https://b", Some("tf"), Some("nf"))
        );
    }

    #[test]
    fn a_context_s_credentials_go_to_its_own_address_only() {
        let env = [("FUSEBOX_ADDRESS", "https://elsewhere")];
        let elsewhere = settings(CONFIG, |_| {}, &env).unwrap();
        assert_eq!(
            (elsewhere.address.as_str(), token(&elsewhere), elsewhere.ca.as_ref()),
            ("https://elsewhere", None, None)
        );
        let same = settings(CONFIG, |globals| globals.address = Some("https://a".to_owned()), &[]).unwrap();
        assert_eq!(token(&same), Some("ta"));
        let none = settings(CONFIG, |globals| globals.token = Some(String::new().into()), &[]).unwrap();
        assert_eq!(token(&none), None, "an empty one is none");
    }

    #[test]
    fn a_bad_file_is_told_by_line_and_without_its_content() {
        let failure = settings("[contexts.a]\ntokn = \"fbx_secret\"\n", |_| {}, &[]).unwrap_err();
        let told = failure.report(true);
        assert!(told.contains("line 2") && told.contains("tokn") && !told.contains("fbx_secret"), "{told}");
        assert_eq!(settings("current = \"c\"", |_| {}, &[]).unwrap_err().class, Class::NotFound);
    }
}
