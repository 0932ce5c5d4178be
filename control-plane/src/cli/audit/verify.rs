//! `audit verify`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use clap::Args;
use fusebox_proto::v1;

use super::{
    PAGE,
    export::{chain, record},
    file, pages,
};
use crate::{
    cli::{
        Session,
        failure::{Class, Failure},
        output,
    },
    store::audit::{AuditChain, AuditRecord, Broken, Hash, Link, Walk},
};

/// Options of `audit verify`.
#[derive(Clone, Debug, Args)]
pub struct AuditVerifyArgs {
    /// Check a file that `fusebox audit export` wrote, and ask no server
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// A link that was told earlier and must still be in the log: one who made the whole log anew can't have it. May be given more than once
    #[arg(long = "link", value_parser = parse_link, value_name = "ID:HASH")]
    links: Vec<Link>,
}

fn parse_link(text: &str) -> Result<Link, String> {
    let wrong = || "write ID:HASH, as `fusebox audit verify` tells it".to_owned();
    let (id, hash) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Link { id: id.parse().map_err(|_| wrong())?, hash: hash.parse().map_err(|_| wrong())? })
}

/// Runs `audit verify`.
pub(super) async fn verify(session: &Session, args: AuditVerifyArgs) -> Result<(), Failure> {
    let mut check = Check::new(&args.links);
    if let Some(path) = &args.file {
        check_file(path, &mut check)?;
    } else {
        check_server(session, &mut check).await?;
    }
    let Link { id, hash } = check.end()?;
    output::print(&format!("the audit log is whole: {} records, the last link is {id}:{hash}", check.records))?;
    if args.links.is_empty() {
        output::say(&format!(
            "keep the link where nobody who can write the database gets: `fusebox audit verify --link {id}:{hash}` holds the log to it"
        ));
    }
    Ok(())
}

async fn check_server(session: &Session, check: &mut Check) -> Result<(), Failure> {
    let server = session.server().await?;
    let request = v1::ListAuditEventsRequest { page_size: PAGE, oldest_first: true, ..Default::default() };
    pages(&server, request, |page| {
        // The last page's word counts: the log grows meanwhile.
        check.ends(chain(page.chain)?);
        page.events.into_iter().try_for_each(|event| check.step(&record(event)?))?;
        Ok(true)
    })
    .await
}

fn check_file(path: &Path, check: &mut Check) -> Result<(), Failure> {
    let failed = |error| Failure::new(Class::Failed, format!("cannot read {}: {error}", path.display()));
    let mut lines = BufReader::new(File::open(path).map_err(failed)?).lines();
    let head = lines.next().transpose().map_err(failed)?.unwrap_or_default();
    check.ends(file::read_head(&head)?.1);
    for (index, line) in lines.enumerate() {
        check.step(&file::read_line(index + 2, &line.map_err(failed)?)?)?;
    }
    Ok(())
}

/// A walk, with the links that must come by.
struct Check {
    walk: Option<Walk>,
    ends: AuditChain,
    records: u64,
    wanted: BTreeMap<u64, Hash>,
}

impl Check {
    fn new(links: &[Link]) -> Self {
        let wanted = links.iter().map(|link| (link.id, link.hash)).collect();
        Self { walk: None, ends: AuditChain::default(), records: 0, wanted }
    }

    fn ends(&mut self, chain: AuditChain) {
        self.ends = chain;
    }

    fn step(&mut self, record: &AuditRecord) -> Result<(), Failure> {
        self.walk().step(record).map_err(|broken| found(&broken))?;
        self.records += 1;
        match self.wanted.remove(&record.id) {
            Some(hash) if hash != record.hash => Err(Failure::new(
                Class::Failed,
                format!("the audit log is another one: record {} is not the one of the link", record.id),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn walk(&mut self) -> &mut Walk {
        self.walk.get_or_insert(Walk::from(self.ends.dropped))
    }

    fn end(&mut self) -> Result<Link, Failure> {
        let (dropped, last) = (self.ends.dropped, self.ends.last);
        let walk = self.walk();
        walk.end(last).map_err(|broken| found(&broken))?;
        let at = walk.at();
        // The newest of what was dropped is known too; what was before that can't be told any more.
        self.wanted.retain(|id, hash| *id > dropped.id || (*id == dropped.id && *hash != dropped.hash));
        match self.wanted.first_key_value() {
            Some((id, _)) if *id > at.id => Err(found(&Broken::Ends { expected: *id, found: at.id })),
            Some((id, _)) => Err(Failure::new(
                Class::Failed,
                format!("the audit log is another one: record {id} is not the one of the link"),
            )),
            None => Ok(at),
        }
    }
}

fn found(broken: &Broken) -> Failure {
    Failure::new(Class::Failed, format!("the audit log is BROKEN: {broken}"))
        .fix("somebody changed the database by hand, or it is damaged: compare with an export or a backup")
}
