//! `history` and `undo`: the revisions of a policy, and the way back to one.

use clap::Args;
use fusebox_proto::{manifest, v1};

use super::{
    Session,
    apply::in_namespace,
    connect,
    failure::{Class, Failure},
    fetch,
    output::{self, Format, OutputArgs},
    render,
    resource::{Kind, Wanted},
    span,
};

/// Options of `history`.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// policy NAME, or policy/NAME; it may be deleted by now
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Show what each revision changed
    #[arg(short, long)]
    patch: bool,
    /// Only revisions from this one on; with --patch and --to, one diff from the content of the one to that of the other
    #[arg(long, value_name = "REV")]
    from: Option<u64>,
    /// Only revisions up to this one
    #[arg(long, value_name = "REV")]
    to: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Options of `undo`.
#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// policy NAME, or policy/NAME; it may be deleted by now
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// The revision to go back to; without it, the one before the present one
    #[arg(long, value_name = "REV", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,
    /// Only if the stored policy still has this etag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Check only, change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `history`.
pub(super) async fn history(session: &Session, args: HistoryArgs) -> Result<(), Failure> {
    let (_, name) = Wanted::one(&args.what, &[Kind::Policies])?;
    let server = session.server().await?;
    let all = fetch::revisions(&server, session.namespace(), &name).await?;
    let known = |wanted: Option<u64>| match wanted {
        Some(wanted) if !all.iter().any(|own| own.revision == wanted) => {
            Err(Failure::new(Class::NotFound, format!("policy \"{name}\" has no revision {wanted}"))
                .fix(format!("`fusebox history policy {name}` lists them")))
        }
        Some(_) | None => Ok(()),
    };
    known(args.from)?;
    known(args.to)?;
    if let (true, Some(from), Some(to)) = (args.patch, args.from, args.to)
        && from != to
    {
        let one = |wanted: u64| all.iter().find(|own| own.revision == wanted);
        let (old, new) = (one(from).map(content).transpose()?.flatten(), one(to).map(content).transpose()?.flatten());
        let diff = render::unified(old.as_deref(), new.as_deref(), &format!("rev {from}"), &format!("rev {to}"));
        return output::print(&render::coloured(&diff));
    }
    let within = |own: &&v1::PolicyRevision| {
        args.from.is_none_or(|from| own.revision >= from) && args.to.is_none_or(|to| own.revision <= to)
    };
    let revisions: Vec<_> = all.iter().filter(within).cloned().collect();
    if args.patch && matches!(args.output.format, Format::Table | Format::Wide) {
        for (index, revision) in revisions.iter().enumerate() {
            let before = revisions.get(index + 1).or_else(|| all.iter().find(|own| own.revision < revision.revision));
            output::print(&patch(revision, before)?)?;
        }
        return Ok(());
    }
    output::print(&render::many(&revisions, args.output)?)
}

/// The manifest as of a revision; a deletion carries the policy as it was before, and afterwards there is none.
fn content(revision: &v1::PolicyRevision) -> Result<Option<String>, Failure> {
    match (&revision.snapshot, revision.action()) {
        (Some(snapshot), action) if action != v1::policy_revision::Action::Delete => {
            Ok(Some(manifest::to_yaml(&render::domain(snapshot)?)))
        }
        _ => Ok(None),
    }
}

/// One revision with what it changed against the one before.
fn patch(revision: &v1::PolicyRevision, before: Option<&v1::PolicyRevision>) -> Result<String, Failure> {
    let old = before.map(content).transpose()?.flatten();
    let new = content(revision)?;
    let mut head = format!("rev {}: {}", revision.revision, render::revision_action(revision));
    for (word, value) in [(" by ", &revision.author), (": ", &revision.message)] {
        if !value.is_empty() {
            head.push_str(word);
            head.push_str(value);
        }
    }
    head.push_str(&format!(" ({} ago)", span::ago(revision.create_time.as_ref())));
    let old_name = format!("rev {}", before.map_or(0, |before| before.revision));
    let diff = render::unified(old.as_deref(), new.as_deref(), &old_name, &format!("rev {}", revision.revision));
    Ok(format!("{head}\n{}", render::coloured(&diff)))
}

/// Runs `undo`.
pub(super) async fn undo(session: &Session, args: UndoArgs) -> Result<(), Failure> {
    let (_, typed) = Wanted::one(&args.what, &[Kind::Policies])?;
    let server = session.server().await?;
    let revisions = fetch::revisions(&server, session.namespace(), &typed).await?;
    let name = fetch::policy_name(session.namespace(), &typed);
    let label = render::label(&name);
    if let Some(to) = args.to
        && !revisions.iter().any(|revision| revision.revision == to)
    {
        return Err(Failure::new(Class::NotFound, format!("{label} has no revision {to}"))
            .fix(format!("`fusebox history {label}{}` lists them", in_namespace(&name))));
    }
    let request = v1::RollbackPolicyRequest {
        name: name.clone(),
        revision: args.to.unwrap_or(0),
        etag: args.if_match.unwrap_or_default(),
        message: args.message,
        request_id: connect::request_id(),
        validate_only: args.dry_run,
    };
    let policy = connect::write(async || server.policies().rollback_policy(request.clone()).await)
        .await
        .map_err(Failure::to(format!("undo the last change of {label}")))?
        .into_inner();
    let before = revisions.first().map_or(0, |revision| revision.revision);
    let content = args.to.map_or_else(|| "the one before".to_owned(), |to| format!("rev {to}"));
    if args.dry_run {
        return output::print(&format!("{label} would be rolled back (now rev {before}, content of {content})"));
    }
    output::print(&format!("{label} rolled back (rev {before} → {}, content of {content})", policy.revision))?;
    output::say(&format!("watch it land: fusebox wait {label} --for applied{}", in_namespace(&name)));
    Ok(())
}
