//! `audit export`.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use fusebox_proto::v1;

use super::{PAGE, file, pages};
use crate::{
    cli::{
        Session,
        atomic::{Atomic, Readers},
        failure::{Class, Failure},
        output, recover,
    },
    store::audit::{AuditChain, AuditRecord},
};

/// Options of `audit export`.
#[derive(Clone, Debug, Args)]
pub struct AuditExportArgs {
    /// File to write; - for stdout
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

/// Runs `audit export`.
pub(super) async fn export(session: &Session, args: AuditExportArgs) -> Result<(), Failure> {
    let server = session.server().await?;
    let store_id = recover::info(&server).await?.store_id;
    let is_stdout = args.output.as_os_str() == "-";
    let mut target = if is_stdout { None } else { Some(Atomic::create(&args.output, args.force, Readers::Owner)?) };
    let mut put = |text: &str| match &mut target {
        Some(file) => writeln!(file, "{text}").map_err(|error| file.failed(&error)),
        None => output::print(text),
    };
    let mut ends: Option<AuditChain> = None;
    let mut written = 0_u64;
    let request = v1::ListAuditEventsRequest { page_size: PAGE, oldest_first: true, ..Default::default() };
    pages(&server, request, |page| {
        // What is written after the first page was read is left for the next export: the file ends where its head says.
        let last = match &ends {
            Some(chain) => chain.last,
            None => {
                let chain = chain(page.chain)?;
                put(&file::head(&store_id, &chain)?)?;
                ends.insert(chain).last
            }
        };
        for event in page.events {
            if event.id > last.id {
                return Ok(false);
            }
            put(&file::line(&record(event)?)?)?;
            written += 1;
        }
        Ok(true)
    })
    .await?;
    if let Some(file) = target {
        file.finish()?;
    }
    output::say(&format!("{written} records written; check them with `fusebox audit verify -f FILE`"));
    Ok(())
}

/// An event as the log holds it.
pub(super) fn record(event: v1::AuditEvent) -> Result<AuditRecord, Failure> {
    let id = event.id;
    AuditRecord::try_from(event)
        .map_err(|invalid| Failure::new(Class::Failed, format!("record {id} can't be read: {invalid}")))
}

/// The ends of the log.
pub(super) fn chain(wire: Option<v1::AuditChain>) -> Result<AuditChain, Failure> {
    let Some(wire) = wire else {
        let what = "this credential reads the records of one namespace: only the whole log can be checked";
        let fix = "do it with a role for all namespaces (`fusebox whoami`); `fusebox audit` lists what you may read";
        return Err(Failure::new(Class::Denied, what).fix(fix));
    };
    AuditChain::try_from(wire)
        .map_err(|invalid| Failure::new(Class::Failed, format!("the ends of the audit log can't be read: {invalid}")))
}
