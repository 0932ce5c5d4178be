//! `recover`: what to do after the database was restored from an older backup.

use clap::Args;
use fusebox_proto::v1;

use super::{
    Session,
    connect::{self, Server},
    failure::{Class, Failure},
    output,
};

/// Options of `recover`.
#[derive(Clone, Debug, Args)]
pub struct RecoverArgs {
    /// Put the restored policies in force, as a revision above every one that replicas run
    #[arg(long, requires = "reason")]
    adopt_present: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Runs `recover`.
pub(super) async fn recover(session: &Session, args: RecoverArgs) -> Result<(), Failure> {
    let server = session.server().await?;
    if !args.adopt_present {
        let info = info(&server).await?;
        return match regression(&info) {
            None => output::print(&format!("nothing to recover: no replica runs a later revision than {}", info.revision)),
            Some(told) => Err(Failure::new(Class::Conflict, told).fix(
                "`fusebox get policies` shows what was restored; `fusebox recover --adopt-present --reason '...'` puts it in force",
            )),
        };
    }
    let request = v1::AdoptPresentRequest {
        reason: args.reason.unwrap_or_default(),
        request_id: connect::request_id(),
        validate_only: false,
    };
    let answer = connect::write(async || server.policies().adopt_present(request.clone()).await)
        .await
        .map_err(Failure::to("adopt the restored policies"))?;
    let v1::AdoptPresentResponse { revision, restored_revision, seen_revision, policies } = answer.into_inner();
    output::print(&format!(
        "{policies} policies of rev {restored_revision} are in force as rev {revision}; replicas ran up to rev {seen_revision}"
    ))?;
    output::say("watch it land: fusebox get instances -w");
    Ok(())
}

/// Says on stderr that the store is regressed, where it is. Beside a list that people look at.
pub(super) async fn warn_of_regression(server: &Server) -> Result<(), Failure> {
    if let Some(told) = regression(&info(server).await?) {
        output::say(&format!("warning: {told}; see `fusebox recover`"));
    }
    Ok(())
}

pub(super) async fn info(server: &Server) -> Result<v1::ServerInfo, Failure> {
    let answer = server.fleet().get_server_info(v1::GetServerInfoRequest {}).await;
    Ok(answer.map_err(Failure::to("ask for the server's state"))?.into_inner())
}

/// What a regressed store means, in words.
pub(super) fn regression(info: &v1::ServerInfo) -> Option<String> {
    info.regressed.then(|| {
        format!(
            "the control plane is REGRESSED: replicas run rev {}, its database was restored at rev {}; changes of policies are refused and \
             replicas keep what they run",
            info.seen_revision, info.revision
        )
    })
}
