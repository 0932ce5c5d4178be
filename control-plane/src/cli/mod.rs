//! The operator's command line: verbs, their options, and where each is run.
//!
//! Most verbs speak gRPC to a control plane; some need none, like `validate`, `simulate` and `completion`. Two open a database, of a control
//! plane that does not run: `restore`, and `token create --data-dir` for the first token. None has a rule of its own about what a policy may
//! say. Data goes to stdout, words to a person go to stderr, and the exit code tells the class of a failure:
//! 0 done, 1 failed (or `diff` found differences), 2 wrong usage, 3 not found, 4 conflict, 5 invalid, 6 denied,
//! 7 server unavailable, 8 `wait` timed out, 130 interrupted.

mod apply;
mod atomic;
mod audit;
mod backup;
mod breaker;
mod check;
mod connect;
mod context;
mod create;
mod delete;
mod describe;
mod edit;
mod events;
mod explain;
mod export;
mod failure;
mod fetch;
mod field;
mod fleet;
mod get;
mod history;
mod local;
mod man;
mod manifests;
mod output;
mod recover;
mod render;
mod resolve;
mod resource;
mod restore;
mod rollout;
mod selection;
mod simulate;
mod span;
mod token;
mod wait;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

pub use self::{
    apply::{ApplyArgs, DiffArgs, ValidateArgs},
    audit::{AuditArgs, AuditCommand, AuditExportArgs, AuditVerifyArgs},
    backup::BackupArgs,
    breaker::{BreakerCommand, ForceArgs, ListArgs, ReleaseArgs},
    check::{CheckArgs, CheckFormat},
    context::{ContextCommand, TokenText},
    create::{CreateArgs, Template},
    delete::DeleteArgs,
    describe::{DescribeArgs, DescribeNamedArgs, InstanceCommand},
    edit::EditArgs,
    events::EventsArgs,
    explain::ExplainArgs,
    export::ExportArgs,
    fleet::{FleetArgs, TopArgs},
    get::GetArgs,
    history::{HistoryArgs, UndoArgs},
    local::{CompletionArgs, HealthArgs, SchemaArgs, SchemaKind, VersionArgs},
    man::ManArgs,
    manifests::FileArgs,
    output::{Format, OutputArgs},
    recover::RecoverArgs,
    resolve::ResolveArgs,
    restore::RestoreArgs,
    rollout::{AbortArgs, PaceArgs, PromoteArgs, RolloutCommand, RolloutListArgs, StartArgs, StatusArgs, SteerArgs},
    selection::SelectionArgs,
    simulate::SimulateArgs,
    token::{CanIArgs, RoleName, TokenCommand, WhoAmIArgs},
    wait::WaitArgs,
};
use self::{
    connect::Server,
    context::Settings,
    failure::{Class, Failure},
    resource::Kind,
};
use crate::config::ServeArgs;

/// One place to say how services may fail, and a fleet that obeys.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "fusebox",
    version,
    about,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed or differences found, 2 usage, 3 not found, 4 conflict, 5 invalid, \
                  6 denied, 7 server unavailable, 8 wait timed out, 130 interrupted.\n\n\
                  Example:\n  fusebox serve &\n  fusebox apply -f policy.yaml\n  fusebox get breakers -w"
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: GlobalArgs,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every verb. The environment and the context of the user stand in for those that are left out: see `context`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Address of the control plane [env: FUSEBOX_ADDRESS] [default: http://127.0.0.1:7443]
    #[arg(long, global = true, value_name = "URL")]
    pub address: Option<String>,
    /// Who signs the control plane's certificate, PEM; without it the system's CAs count [env: FUSEBOX_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show, PEM [env: FUSEBOX_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Key of that certificate, PEM [env: FUSEBOX_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Token to show, "" for none; others on this machine can see what is on a command line [env: FUSEBOX_TOKEN]
    #[arg(long, global = true)]
    pub token: Option<TokenText>,
    /// Send the token in plain text to an http:// address that is not of this machine
    #[arg(long, global = true)]
    pub plaintext_token: bool,
    /// Context to take what is left out from [env: FUSEBOX_CONTEXT] [default: the one of `fusebox context use`]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace; without it, policies are those of "default", and breakers, instances and events those of all [env: FUSEBOX_NAMESPACE]
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Tell more about errors
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    #[command(after_help = "Example:\n  fusebox serve --data-dir ./fusebox-data\n  fusebox serve --dev")]
    Serve(Box<ServeArgs>),
    /// Create or change policies from manifests, all or none
    #[command(after_help = "Example:\n  fusebox apply -f policy.yaml -m 'longer timeout'\n  \
                            fusebox apply -f policies/ -R --dry-run\n  cat policy.yaml | fusebox apply -f - --wait\n  \
                            fusebox apply -f policy.yaml --stage instance=a-1 --stage 25% --wait -m 'longer timeout'")]
    Apply(ApplyArgs),
    /// Show what apply would change: exit code 0 nothing, 1 something, 2 and above an error
    #[command(after_help = "Example:\n  fusebox diff -f policy.yaml")]
    Diff(DiffArgs),
    /// Check manifests and change nothing
    #[command(
        after_help = "Example:\n  fusebox validate -f policies/ --offline\n  fusebox validate -f policies/ --diff"
    )]
    Validate(ValidateArgs),
    /// Tell what policies would do to calls: attempts, load, time open, success, in virtual time and without a server
    #[command(
        after_help = "Example:\n  fusebox simulate -f policy.yaml --failure-rate 0.3 --latency p50=20ms,p99=2s\n  \
                            fusebox simulate -f policy.yaml --outage 2m..3m --rate 500/s --replicas 12 -o json"
    )]
    Simulate(SimulateArgs),
    /// List policies, breakers, instances, services or rollouts
    #[command(after_help = "Example:\n  fusebox get policies\n  fusebox get policy service-b -o yaml\n  \
                            fusebox get breakers -o json\n  fusebox get instances -w\n  fusebox get policies -l team=payments\n  \
                            fusebox get breakers --filter 'state = OPEN AND since > 5m'\n  fusebox get rollouts -w")]
    Get(GetArgs),
    /// Show everything about one policy, breaker, instance or service
    #[command(after_help = "Example:\n  fusebox describe policy service-b\n  fusebox describe breaker/service-b")]
    Describe(DescribeArgs),
    /// Tell what a field of a manifest means; or why the fleet decided what it did about a breaker
    #[command(
        after_help = "Example:\n  fusebox explain\n  fusebox explain policy.spec.retry.maxAttempts\n  fusebox explain breaker service-b\n  \
                            fusebox explain breaker/service-b --service service-a -o json"
    )]
    Explain(ExplainArgs),
    /// Create a policy from a template
    #[command(after_help = "Example:\n  fusebox create policy service-b --from standard\n  \
                            fusebox create policy service-b --from fail-fast --dry-run -o yaml > policy.yaml")]
    Create(CreateArgs),
    /// Change a policy in $EDITOR: it is checked, shown as a diff, and written only if nobody changed it meanwhile
    #[command(after_help = "Example:\n  fusebox edit policy service-b -m 'longer timeout'")]
    Edit(EditArgs),
    /// Show the replicas by service: what they run, how far behind they are, what they refused
    #[command(after_help = "Example:\n  fusebox fleet\n  fusebox fleet service-a --filter 'behind = true'")]
    Fleet(FleetArgs),
    /// Show everything about one replica
    #[command(subcommand, after_help = "Example:\n  fusebox instance describe a-1")]
    Instance(InstanceCommand),
    /// Show services and breakers, the restricted first, again and again; once where the output is no terminal
    #[command(after_help = "Example:\n  fusebox top\n  fusebox top --once --limit 5\n  fusebox top -o json")]
    Top(TopArgs),
    /// Tell which policy is for a call, and why
    #[command(after_help = "Example:\n  fusebox resolve --service service-a --target service-b --method 'GET /'\n  \
                            fusebox resolve --service a --target b --method 'POST /pay' --header idempotency-key=1 -o json")]
    Resolve(ResolveArgs),
    /// Delete policies; their history stays
    #[command(after_help = "Example:\n  fusebox delete policy service-b --yes -m 'not used any more'")]
    Delete(DeleteArgs),
    /// List the revisions of a policy
    #[command(after_help = "Example:\n  fusebox history policy service-b --patch")]
    History(HistoryArgs),
    /// Write an older revision of a policy as a new one
    #[command(after_help = "Example:\n  fusebox undo policy service-b\n  fusebox undo policy service-b --to 41")]
    Undo(UndoArgs),
    /// Bring a new revision of a policy to some replicas first, then further, or back
    #[command(
        subcommand,
        after_help = "Example:\n  fusebox rollout start -f policy.yaml --to-percent 10 -m 'longer timeout'\n  \
                      fusebox rollout status policy/service-b -w\n  fusebox rollout promote policy/service-b"
    )]
    Rollout(RolloutCommand),
    /// Force breakers open or closed, disable them, release them, list them
    #[command(
        subcommand,
        after_help = "Example:\n  fusebox breaker force-open service-b --for 15m --reason 'maintenance of B'"
    )]
    Breaker(BreakerCommand),
    /// Show transitions of breakers
    #[command(after_help = "Example:\n  fusebox events --since 1h\n  fusebox events -f --target service-b -o json")]
    Events(EventsArgs),
    /// Write every policy to a file of its own, of all namespaces or of the one of -n
    #[command(after_help = "Example:\n  fusebox export -o policies\n  fusebox apply -f policies -R")]
    Export(ExportArgs),
    /// Copy everything that a control plane stores to a file, while it goes on
    #[command(after_help = "Example:\n  fusebox backup monday.db\n  fusebox restore monday.db --dry-run")]
    Backup(BackupArgs),
    /// Put a backup in place of the data of a control plane that does not run
    #[command(after_help = "Example:\n  fusebox restore monday.db --data-dir ./fusebox-data\n  \
                            fusebox restore monday.db --dry-run")]
    Restore(RestoreArgs),
    /// Tell whether the server serves, for whoever watches its process: exit code 0 yes, 7 no
    #[command(after_help = "Example:\n  fusebox health\n  fusebox health -q --service fusebox.v1.PolicyService")]
    Health(HealthArgs),
    /// Tell whether everything is as it should be: the way to the server, certificates, clocks, versions, its database, backups, disk, audit log, replicas
    #[command(after_help = "Example:\n  fusebox check\n  fusebox check -o short")]
    Check(CheckArgs),
    /// Show who changed what, when, from where and why
    #[command(
        after_help = "Example:\n  fusebox audit --since 24h\n  fusebox audit --object policy/service-b -o json\n  \
                            fusebox audit verify"
    )]
    Audit(AuditArgs),
    /// Wait until a policy is applied or a breaker is in a state
    #[command(after_help = "Example:\n  fusebox wait policy/service-b --for applied --timeout 30s\n  \
                            fusebox wait breaker/service-b --for closed")]
    Wait(WaitArgs),
    /// Put restored policies in force after the database came back from an older backup; without options, tell whether it did
    #[command(
        after_help = "Example:\n  fusebox recover\n  fusebox recover --adopt-present --reason 'restored from monday'"
    )]
    Recover(RecoverArgs),
    /// Make, list and end tokens
    #[command(subcommand, after_help = "Example:\n  fusebox token create --name alice --role operator")]
    Token(TokenCommand),
    /// Tell whom the server takes the caller for
    #[command(name = "whoami", after_help = "Example:\n  fusebox whoami -o json")]
    WhoAmI(WhoAmIArgs),
    /// Tell whether something is allowed: exit code 0 yes, 6 no
    #[command(name = "can-i", after_help = "Example:\n  fusebox can-i apply policies")]
    CanI(CanIArgs),
    /// Keep control planes under short names
    #[command(
        subcommand,
        after_help = "Example:\n  fusebox context set production --address https://fusebox.example.org:7443 --ca ca.pem"
    )]
    Context(ContextCommand),
    /// Print the JSON schema of manifests
    #[command(after_help = "Example:\n  fusebox schema > policy.schema.json\n  fusebox schema --kind policy")]
    Schema(SchemaArgs),
    /// Write man pages to a folder, or print the whole reference as Markdown
    #[command(after_help = "Example:\n  fusebox man ~/.local/share/man/man1\n  fusebox man --markdown")]
    Man(ManArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  fusebox completion bash > /etc/bash_completion.d/fusebox")]
    Completion(CompletionArgs),
    /// Print the version
    #[command(after_help = "Example:\n  fusebox version --server")]
    Version(VersionArgs),
}

/// Runs a verb of the operator. [`Command::Serve`] is not one: the program runs it itself.
pub async fn run(cli: Cli) -> ExitCode {
    // A task of its own: a verb may be held up in a blocking read of stdin.
    let interrupt = tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    let verbose = cli.globals.verbose;
    let is_diff =
        matches!(&cli.command, Command::Diff(_)) || matches!(&cli.command, Command::Validate(args) if args.is_diff());
    let outcome = if let Command::Context(command) = &cli.command {
        context::context(&cli.globals, command.clone())
    } else {
        match Settings::new(&cli.globals, |name| std::env::var(name).ok()) {
            Ok(settings) => Box::pin(dispatch(&Session { settings }, cli.command)).await,
            Err(failure) => Err(failure),
        }
    };
    interrupt.abort();
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if !matches!(failure.class, Class::Differs | Class::PipeClosed) {
        output::say(&failure.report(verbose));
    }
    // For `diff`, 1 means "different" and nothing else.
    let class = if is_diff && failure.class == Class::Failed { Class::Usage } else { failure.class };
    ExitCode::from(class.exit_code())
}

async fn dispatch(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(_) => Err(Failure::new(Class::Usage, "`serve` is not a verb of the operator")),
        Command::Apply(args) => apply::apply(session, args).await,
        Command::Diff(args) => apply::diff(session, args).await,
        Command::Validate(args) => apply::validate(session, args).await,
        Command::Simulate(args) => simulate::run(session, args).await,
        Command::Get(args) => get::get(session, args).await,
        Command::Describe(args) => describe::describe(session, args).await,
        Command::Explain(args) => explain::explain(session, args).await,
        Command::Create(args) => create::create(session, args).await,
        Command::Edit(args) => edit::edit(session, args).await,
        Command::Fleet(args) => fleet::fleet(session, args).await,
        Command::Top(args) => fleet::top(session, args).await,
        Command::Resolve(args) => resolve::resolve(session, args).await,
        Command::Delete(args) => delete::delete(session, args).await,
        Command::History(args) => history::history(session, args).await,
        Command::Undo(args) => history::undo(session, args).await,
        Command::Rollout(command) => rollout::rollout(session, command).await,
        Command::Breaker(command) => breaker::breaker(session, command).await,
        Command::Events(args) => events::events(session, args).await,
        Command::Export(args) => export::export(session, args).await,
        Command::Backup(args) => backup::backup(session, args).await,
        Command::Restore(args) => restore::restore(args).await,
        Command::Check(args) => check::check(session, args).await,
        Command::Audit(args) => audit::audit(session, args).await,
        Command::Wait(args) => wait::wait(session, args).await,
        Command::Recover(args) => recover::recover(session, args).await,
        Command::Token(command) => token::token(session, command).await,
        Command::WhoAmI(args) => token::whoami(session, args).await,
        Command::CanI(args) => token::can_i(session, args).await,
        Command::Context(_) => Err(Failure::new(Class::Usage, "`context` needs no session")),
        Command::Man(args) => man::man(&args),
        Command::Schema(args) => local::schema(&args),
        Command::Health(args) => local::health(session, args).await,
        Command::Instance(InstanceCommand::Describe(args)) => describe::named(session, Kind::Instances, args).await,
        Command::Completion(args) => local::completion(&args),
        Command::Version(args) => local::version(session, args).await,
    }
}

/// What the global options mean for a verb.
#[derive(Debug)]
struct Session {
    settings: Settings,
}

impl Session {
    /// The control plane, once it has been reached.
    async fn server(&self) -> Result<Server, Failure> {
        Server::connect(&self.settings).await
    }

    /// The namespace that was asked for, if any.
    fn given_namespace(&self) -> Option<&str> {
        self.settings.namespace.as_deref()
    }

    /// The namespace of policies.
    fn namespace(&self) -> &str {
        self.given_namespace().unwrap_or("default")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The words of one command line, as a shell takes them apart; what comes after a redirection, a pipe or `&` is not of it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
        for letter in line.chars() {
            match letter {
                '\'' => (quoted, begun) = (!quoted, true),
                ' ' if !quoted => {
                    words.extend(begun.then(|| std::mem::take(&mut word)));
                    begun = false;
                }
                _ => {
                    word.push(letter);
                    begun = true;
                }
            }
        }
        words.extend(begun.then_some(word));
        let end = words.iter().position(|word| matches!(word.as_str(), ">" | "|" | "&" | "&&")).unwrap_or(words.len());
        words.truncate(end);
        words
    }

    #[test]
    fn every_example_is_a_command_line() {
        fn check(command: &clap::Command, seen: &mut usize) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once("Example:\n").unwrap_or_default();
            for line in examples.lines() {
                let own = line.find("fusebox ").map(|begin| &line[begin..]);
                let own = own.unwrap_or_else(|| panic!("{line}: no command"));
                if let Err(error) = Cli::try_parse_from(words(own)) {
                    panic!("{own}: {error}");
                }
                *seen += 1;
            }
            // Others may show what goes before or comes after.
            let is_own = |line: &str| words(line).iter().any(|word| word == command.get_name());
            assert!(examples.lines().any(is_own), "no example of {} is of it", command.get_name());
            command.get_subcommands().for_each(|verb| check(verb, seen));
        }
        let mut seen = 0;
        check(&Cli::command(), &mut seen);
        assert!(seen > 80, "only {seen} examples were looked at");
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands() {
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example:\n  fusebox "), "{} has no example", verb.get_name());
                check(verb);
            }
        }
        check(&Cli::command());
    }
}
