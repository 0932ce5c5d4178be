//! `version`, `completion` and `schema`: what needs no server, or nearly none.

use std::io::Write as _;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;
use fusebox_proto::{manifest, v1};
use serde_json::{Value, json};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::{
    Cli, Session,
    failure::{Class, Failure},
    output::{self, Format},
    recover,
};

/// Options of `version`.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Ask the server for its version too
    #[arg(long)]
    server: bool,
    /// Form of the output: table, json or yaml
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true, value_name = "FORM")]
    output: Format,
}

/// Options of `completion`.
#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Options of `schema`.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(long, value_enum, default_value_t)]
    kind: SchemaKind,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum SchemaKind {
    /// Manifests of policies.
    #[default]
    Policy,
}

/// Options of `health`.
#[derive(Clone, Debug, Args)]
pub struct HealthArgs {
    /// One service, like fusebox.v1.PolicyService; without it, the server as a whole
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    service: String,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `health`.
pub(super) async fn health(session: &Session, args: HealthArgs) -> Result<(), Failure> {
    let request = HealthCheckRequest { service: args.service.clone() };
    let answer = session.server().await?.health().check(request).await;
    let status = answer.map_err(Failure::to("ask for the server's health"))?.into_inner().status();
    if status == ServingStatus::Serving {
        return if args.quiet { Ok(()) } else { output::print("serving") };
    }
    Err(Failure::new(Class::Unavailable, format!("the server does not serve: {}", status.as_str_name()))
        .fix("it is starting or shutting down: ask again in a moment"))
}

/// Runs `version`.
pub(super) async fn version(session: &Session, args: VersionArgs) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let mut text = format!("fusebox {own}");
    let mut value = json!({ "client": { "version": own } });
    if args.server {
        let server = session.server().await?;
        let answer = server.fleet().get_server_info(v1::GetServerInfoRequest {}).await;
        let info = answer.map_err(Failure::to("ask for the server's version"))?.into_inner();
        text.push_str(&format!(
            "\nserver {} (store {}, term {}, rev {})",
            info.version, info.store_id, info.term, info.revision
        ));
        if let Some(told) = recover::regression(&info) {
            text.push_str(&format!("\n{told}"));
        }
        value["server"] = json!({
            "version": info.version,
            "store_id": info.store_id,
            "term": info.term,
            "revision": info.revision,
            "regressed": info.regressed,
            "seen_revision": info.seen_revision,
        });
    }
    output::print_value(args.output, &value, &text)
}

/// Runs `completion`.
pub(super) fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fusebox", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(())
}

/// Runs `schema`.
pub(super) fn schema(args: &SchemaArgs) -> Result<(), Failure> {
    let schema: Value = match args.kind {
        SchemaKind::Policy => manifest::schema(),
    };
    output::print(&output::pretty(&schema))
}
