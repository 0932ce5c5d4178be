//! `delete`: policies, after a question.

use std::io::{self, Write as _};

use clap::Args;
use fusebox_proto::v1;

use super::{
    Session,
    apply::in_namespace,
    connect::{self, Server},
    failure::{Class, Failure},
    fetch, output, render,
    resource::{Kind, Wanted},
};

/// Options of `delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// policy NAME..., or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Only if the stored policy still has this etag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Check only, delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Succeed when there is no such policy
    #[arg(long)]
    ignore_not_found: bool,
}

/// Runs `delete`.
pub(super) async fn delete(session: &Session, args: DeleteArgs) -> Result<(), Failure> {
    let Wanted { kind, names } = Wanted::parse(&args.what)?;
    if kind != Kind::Policies {
        return Err(Failure::new(Class::Usage, format!("a {} cannot be deleted", kind.singular()))
            .fix("policies can; a breaker's override ends with `fusebox breaker release`"));
    }
    if names.is_empty() {
        return Err(Failure::new(Class::Usage, "the name of the policy is missing")
            .fix("`fusebox get policies` lists them; there is no way to delete all at once"));
    }
    if args.if_match.is_some() && names.len() > 1 {
        return Err(Failure::new(Class::Usage, "--if-match is for one policy"));
    }
    if !args.yes && !args.dry_run {
        if !output::is_interactive() {
            return Err(Failure::new(Class::Usage, "nobody is here to confirm the deletion")
                .fix("give --yes to delete without a question"));
        }
        if !confirmed(&names)? {
            return Err(Failure::new(Class::Failed, "nothing was deleted"));
        }
    }
    let server = session.server().await?;
    for name in &names {
        delete_one(session, &server, &args, name).await?;
    }
    Ok(())
}

async fn delete_one(session: &Session, server: &Server, args: &DeleteArgs, typed: &str) -> Result<(), Failure> {
    let name = fetch::policy_name(session.namespace(), typed);
    let request = v1::DeletePolicyRequest {
        name: name.clone(),
        etag: args.if_match.clone().unwrap_or_default(),
        // Asked for here, not of the server: the answer tells whether there was one.
        allow_missing: false,
        validate_only: args.dry_run,
        message: args.message.clone(),
        request_id: connect::request_id(),
    };
    let label = render::label(&name);
    let answer = connect::write(async || server.policies().delete_policy(request.clone()).await).await;
    match answer.map_err(Failure::to(format!("delete {label}"))) {
        Ok(_) if args.dry_run => output::print(&format!("{label} would be deleted")),
        Ok(_) => {
            output::print(&format!("{label} deleted"))?;
            output::say(&format!("to have it back: fusebox undo {label}{}", in_namespace(&name)));
            Ok(())
        }
        Err(failure) if failure.class == Class::NotFound => {
            let failure = fetch::no_policy(server, session.namespace(), typed).await;
            if args.ignore_not_found { output::print(&format!("{label} not found")) } else { Err(failure) }
        }
        Err(failure) => Err(failure),
    }
}

fn confirmed(names: &[String]) -> Result<bool, Failure> {
    let mut stderr = io::stderr();
    write!(stderr, "delete {}? Replicas fall back to what they have built in. [y/N] ", names.join(", "))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Class::Failed, format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
