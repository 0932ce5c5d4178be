//! `edit`: a policy in the operator's own editor, checked, shown and asked about before it is written.

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
    process::Command,
};

use clap::Args;
use fusebox_policy::Policy;
use fusebox_proto::{manifest, v1};

use super::{
    Session,
    apply::in_namespace,
    connect,
    failure::{Class, Failure},
    fetch, output, render,
    resource::{Kind, Wanted},
};

/// Options of `edit`.
#[derive(Clone, Debug, Args)]
pub struct EditArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// Do not ask before it is written
    #[arg(short, long)]
    yes: bool,
    /// Why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
}

/// Runs `edit`.
pub(super) async fn edit(session: &Session, args: EditArgs) -> Result<(), Failure> {
    let (_, name) = Wanted::one(&args.what, &[Kind::Policies])?;
    if !args.yes && !output::is_interactive() {
        return Err(Failure::new(Class::Usage, "nobody is here to confirm the change")
            .fix("give --yes to write without a question, or use `fusebox apply -f`"));
    }
    let server = session.server().await?;
    let stored = fetch::policy(&server, session.namespace(), &name).await?;
    let before = manifest::to_yaml(&render::domain(&stored)?);
    let label = render::label(&stored.name);
    // Kept where the editor can be started on it again, until the change has been written.
    let file = tempfile::Builder::new().prefix("fusebox-edit-").suffix(".yaml").tempfile()?;
    fs::write(file.path(), &before)?;
    loop {
        open(file.path()).map_err(|failure| keep(failure, file.path()))?;
        let text = fs::read_to_string(file.path())?;
        if text == before {
            return output::print(&format!("{label} unchanged"));
        }
        match read(&text, &stored) {
            Ok(policy) => {
                let after = manifest::to_yaml(&policy);
                if after == before {
                    return output::print(&format!("{label} unchanged"));
                }
                let diff = render::unified(
                    Some(&before),
                    Some(&after),
                    &format!("{label} (live)"),
                    &format!("{label} (edited)"),
                );
                output::say(&render::coloured(&diff));
                if !args.yes && !asked(&format!("write this to {label}?"))? {
                    return Err(keep_file(Failure::new(Class::Failed, "nothing was changed"), file));
                }
                let request = v1::UpdatePolicyRequest {
                    // With the etag that was read: what somebody else changed meanwhile is not overwritten.
                    policy: Some(v1::Policy { etag: stored.etag.clone(), ..v1::Policy::from(&policy) }),
                    // What the file says no more is to go.
                    update_mask: Some(prost_types::FieldMask { paths: vec!["*".to_owned()] }),
                    message: args.message.clone(),
                    request_id: connect::request_id(),
                    ..v1::UpdatePolicyRequest::default()
                };
                let answer = connect::write(async || server.policies().update_policy(request.clone()).await).await;
                return match answer.map_err(Failure::to(format!("change {label}"))) {
                    Ok(answer) => {
                        let written = answer.into_inner();
                        output::print(&format!("{label} configured (rev {} → {})", stored.revision, written.revision))?;
                        let scope = in_namespace(&stored.name);
                        output::say(&format!("watch it land: fusebox wait {label} --for applied{scope}"));
                        Ok(())
                    }
                    Err(failure) => Err(keep_file(failure, file)),
                };
            }
            Err(failure) => {
                if args.yes || !output::is_interactive() {
                    return Err(keep_file(failure, file));
                }
                output::say(&failure.report(false));
                if !asked("go on editing?")? {
                    return Err(keep_file(Failure::new(Class::Failed, "nothing was changed"), file));
                }
            }
        }
    }
}

/// The edited policy, which must still be the same one.
fn read(text: &str, stored: &v1::Policy) -> Result<Policy, Failure> {
    let documents =
        manifest::parse("the edited policy", text).map_err(|error| Failure::new(Class::Invalid, error.to_string()))?;
    match documents.as_slice() {
        [only] if only.policy.resource_name() == stored.name => Ok(only.policy.clone()),
        [other] => Err(Failure::new(
            Class::Invalid,
            format!("this is {}, not {}: a policy cannot be renamed", other.policy.resource_name(), stored.name),
        )),
        _ => Err(Failure::new(Class::Invalid, format!("one policy is edited, here are {}", documents.len()))),
    }
}

/// Starts the editor and waits for its end.
fn open(path: &Path) -> Result<(), Failure> {
    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).unwrap_or_else(|_| "vi".to_owned());
    // Through a shell: the variable may hold options, like "code --wait".
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("editor").arg(path).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Class::Failed, format!("the editor \"{editor}\" ended with {status}"))
            .fix("set VISUAL or EDITOR to an editor that waits until the file is closed")),
        Err(error) => Err(Failure::new(Class::Failed, format!("cannot start the editor \"{editor}\": {error}"))),
    }
}

fn asked(question: &str) -> Result<bool, Failure> {
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(Class::Failed, format!("cannot read the answer: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn keep(failure: Failure, path: &Path) -> Failure {
    let own = failure.fix.clone().map(|fix| format!("{fix}; ")).unwrap_or_default();
    failure.fix(format!("{own}your text is in {0}: `fusebox apply -f {0}` writes it", path.display()))
}

/// Leaves the file behind, and says where.
fn keep_file(failure: Failure, file: tempfile::NamedTempFile) -> Failure {
    match file.keep() {
        Ok((_, path)) => keep(failure, &path),
        Err(error) => failure.fix(format!("your text is lost: {}", error.error)),
    }
}
