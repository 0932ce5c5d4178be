//! `token`, `whoami` and `can-i`: who may use the control plane.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use fusebox_proto::{duration, v1};
use serde_json::json;

use super::{
    Session, connect,
    failure::{Class, Failure},
    fetch,
    output::{self, Format, OutputArgs},
    render, span,
};
use crate::{
    access::tokens::{CreateError, Request, Tokens},
    caller::Caller,
    store::{StoreError, sqlite::SqliteStore},
};

/// What can be done with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; it can't be printed again
    #[command(after_help = "Example:\n  fusebox token create --name alice --role operator --for 30d\n  \
                            fusebox token create --name bob --role operator --namespace shop\n  \
                            fusebox token create --name cart --role agent --service cart\n  \
                            fusebox token create --name first --role admin --data-dir ./fusebox-data")]
    Create(CreateArgs),
    /// List tokens, without what is secret
    #[command(after_help = "Example:\n  fusebox token list --all")]
    List(ListArgs),
    /// End a token, and every stream that was opened with it
    #[command(after_help = "Example:\n  fusebox token revoke alice --reason 'laptop was lost'")]
    Revoke(RevokeArgs),
}

/// Options of `token create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// What to call it, and whoever uses it; with a namespace, records say "shop/bob"
    #[arg(long)]
    name: String,
    /// What it allows: in the namespace that was asked for (-n, FUSEBOX_NAMESPACE or the context's) and nowhere else, or without one
    /// everywhere
    #[arg(long, value_enum)]
    role: RoleName,
    /// For all namespaces and the server as a whole, whatever the context says; not for agents
    #[arg(short = 'A', long, conflicts_with = "service")]
    all_namespaces: bool,
    /// The service of an agent; its namespace is that of --namespace, or "default"
    #[arg(long, required_if_eq("role", "agent"))]
    service: Option<String>,
    /// How long it counts. Default: 30d, for an agent 90d; at most 90d, for an agent 365d
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    life: Option<Duration>,
    /// Write it into the database in this folder, which no server may have open: for the first one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Form of the output: table (the token alone), json or yaml
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true, value_name = "FORM")]
    output: Format,
}

/// Options of `token list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Also those that have expired or were revoked
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `token revoke`.
#[derive(Clone, Debug, Args)]
pub struct RevokeArgs {
    /// Its name or its id; a name that several namespaces have, as records say it: shop/bob
    #[arg(value_name = "TOKEN")]
    which: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Options of `whoami`.
#[derive(Clone, Debug, Args)]
pub struct WhoAmIArgs {
    /// Form of the output: table, json or yaml
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true, value_name = "FORM")]
    output: Format,
}

/// Options of `can-i`.
#[derive(Clone, Debug, Args)]
pub struct CanIArgs {
    /// What to do: get, list, watch, apply, delete, force, ...
    verb: String,
    /// To what kind of thing: policies, breakers, instances, tokens, ...
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Say nothing: the exit code tells
    #[arg(short, long)]
    quiet: bool,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Read everything but tokens.
    Viewer,
    /// Change policies and force breakers too.
    Operator,
    /// Make and end tokens, and recover the store, too.
    Admin,
    /// Be a replica of one service.
    Agent,
}

impl RoleName {
    const fn wire(self) -> v1::Role {
        match self {
            Self::Viewer => v1::Role::Viewer,
            Self::Operator => v1::Role::Operator,
            Self::Admin => v1::Role::Admin,
            Self::Agent => v1::Role::Agent,
        }
    }
}

/// Runs `token`.
pub(super) async fn token(session: &Session, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(session, args).await,
        TokenCommand::List(args) => list(session, args).await,
        TokenCommand::Revoke(args) => revoke(session, args).await,
    }
}

async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let CreateArgs { name, role, all_namespaces, service, life, data_dir, output } = args;
    let (namespace, service) = match role {
        RoleName::Agent => (session.namespace().to_owned(), service.unwrap_or_default()),
        // The server says what is wrong with a service here.
        RoleName::Viewer | RoleName::Operator | RoleName::Admin => {
            let given = session.given_namespace().filter(|_| !all_namespaces).unwrap_or_default();
            (given.to_owned(), service.unwrap_or_default())
        }
    };
    let (made, secret) = match data_dir {
        Some(folder) => {
            let request = Request::try_new(&name, role.wire(), (&namespace, &service), life)
                .map_err(|invalid| Failure::new(Class::Invalid, format!("cannot make the token: {invalid}")))?;
            offline(folder, request).await?
        }
        None => {
            let token =
                v1::Token { display_name: name, role: role.wire().into(), namespace, service, ..v1::Token::default() };
            let request = v1::CreateTokenRequest {
                token: Some(token),
                life: life.map(duration::to_wire),
                request_id: connect::request_id(),
                validate_only: false,
            };
            let server = session.server().await?;
            let answer = connect::write(async || server.admin().create_token(request.clone()).await).await;
            let v1::CreateTokenResponse { token, secret } = answer.map_err(Failure::to("make the token"))?.into_inner();
            let made = token.unwrap_or_default();
            if secret.is_empty() {
                let name = &made.display_name;
                let lost = format!("the token {name} was made, and the answer with its secret was lost on the way");
                let fix = format!("fusebox token revoke {name} --reason 'its secret was lost', then make it again");
                return Err(Failure::new(Class::Unavailable, lost).fix(fix));
            }
            (made, secret)
        }
    };
    let value = || json!({ "token": render::token(&made), "secret": secret });
    match output {
        Format::Json => output::print(&output::pretty(&value()))?,
        Format::Jsonl => output::print(&value().to_string())?,
        Format::Yaml => output::print(&output::yaml(&value())?)?,
        Format::Table | Format::Wide | Format::Name => output::print(&secret)?,
    }
    let until = span::point(made.expire_time.as_ref())
        .map_or_else(String::new, |time| format!(" until {}", humantime::format_rfc3339_seconds(time)));
    output::say(&format!(
        "token/{} ({}) created as {}: it counts{until} and is shown this once",
        made.display_name,
        render::role(&made),
        made.name
    ));
    Ok(())
}

/// Without a server, on the database itself.
async fn offline(folder: PathBuf, request: Request) -> Result<(v1::Token, String), Failure> {
    let failed = |error: StoreError| {
        let class = if let StoreError::TokenExists(_) = error { Class::Conflict } else { Class::Failed };
        let failure = Failure::new(class, format!("cannot write into {}: {error}", folder.display()));
        if let StoreError::InUse(_) = error {
            return failure.fix("while it serves, leave --data-dir out: the server makes tokens for admins");
        }
        failure
    };
    let store = Arc::new(SqliteStore::open(&folder).await.map_err(failed)?);
    let tokens = Tokens::load(store).await.map_err(failed)?;
    let who = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "local".to_owned());
    match tokens.create(request, Caller::local(who), None).await {
        Ok((made, secret)) => Ok((crate::grpc::admin::wire(made), secret.reveal().to_owned())),
        Err(CreateError::Store(error)) => Err(failed(error)),
        Err(error @ CreateError::Random(_)) => Err(Failure::new(Class::Failed, error.to_string())),
    }
}

async fn list(session: &Session, args: ListArgs) -> Result<(), Failure> {
    let tokens = fetch::tokens(&session.server().await?, args.all).await?;
    if tokens.is_empty() {
        output::say("there are no tokens");
    }
    output::print(&render::many(&tokens, args.output)?)
}

async fn revoke(session: &Session, args: RevokeArgs) -> Result<(), Failure> {
    let RevokeArgs { which, reason } = args;
    let server = session.server().await?;
    let known = fetch::tokens(&server, false).await?;
    let is_it = |one: &&v1::Token| {
        let in_records = || format!("{}/{}", one.namespace, one.display_name);
        one.display_name == which
            || one.name == which
            || one.name.strip_prefix("tokens/") == Some(&which)
            || in_records() == which
    };
    let found: Vec<_> = known.iter().filter(is_it).collect();
    let name = match found.as_slice() {
        // What has ended already is found by its id; the server says so.
        [] => format!("tokens/{which}"),
        [only] => only.name.clone(),
        several => {
            let ids: Vec<_> = several
                .iter()
                .map(|one| format!("{} ({})", one.name.trim_start_matches("tokens/"), render::role(one)))
                .collect();
            let what = format!("several tokens are called \"{which}\"");
            return Err(Failure::new(Class::Usage, what).fix(format!("give the id: {}", ids.join(", "))));
        }
    };
    let request = v1::RevokeTokenRequest { name, reason, request_id: connect::request_id(), validate_only: false };
    let answer = connect::write(async || server.admin().revoke_token(request.clone()).await)
        .await
        .map_err(Failure::to(format!("revoke \"{which}\"")))?;
    let ended = answer.into_inner();
    output::print(&format!("token/{} revoked", ended.display_name))
}

/// Runs `whoami`.
pub(super) async fn whoami(session: &Session, args: WhoAmIArgs) -> Result<(), Failure> {
    let answer = session.server().await?.admin().who_am_i(v1::WhoAmIRequest {}).await;
    let who = answer.map_err(Failure::to("ask who this is"))?.into_inner();
    let role = render::role_word(who.role(), &who.namespace, &who.service);
    let value = json!({
        "name": who.name,
        "role": who.role().as_str_name().trim_start_matches("ROLE_").to_lowercase(),
        "namespace": render::or_null(&who.namespace),
        "service": render::or_null(&who.service),
        "method": who.method,
        "expireTime": span::stamp(who.expire_time.as_ref()),
    });
    match args.output {
        Format::Json => output::print(&output::pretty(&value)),
        Format::Jsonl => output::print(&value.to_string()),
        Format::Yaml => output::print(&output::yaml(&value)?),
        Format::Table | Format::Wide | Format::Name if who.method == "none" => {
            output::print(&format!("{} ({role}): this server asks nobody who they are", who.name))
        }
        Format::Table | Format::Wide | Format::Name => {
            output::print(&format!("{} ({role}), known by {}", who.name, who.method))
        }
    }
}

/// Runs `can-i`.
pub(super) async fn can_i(session: &Session, args: CanIArgs) -> Result<(), Failure> {
    let CanIArgs { verb, kind, quiet } = args;
    let request = v1::CheckAccessRequest { verb, r#type: kind };
    let answer = session.server().await?.admin().check_access(request).await;
    let v1::CheckAccessResponse { allowed, reason } = answer.map_err(Failure::to("ask what is allowed"))?.into_inner();
    if !quiet {
        output::print(if allowed { "yes" } else { "no" })?;
    }
    if allowed { Ok(()) } else { Err(Failure::new(Class::Denied, reason)) }
}
