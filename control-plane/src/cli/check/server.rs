//! What `check` makes of what the server tells of itself.

use std::time::{Duration, SystemTime};

use fusebox_proto::v1;

use super::{Item, certificate, failed, ok, warning};
use crate::cli::{recover, span};

/// How far clocks may be apart: overrides end by the server's.
const CLOCKS: Duration = Duration::from_secs(5);
/// Below so many bytes, or on a small disk below one part in so many, it is as good as full: the next burst of changes does not fit.
const NEARLY_FULL: (u64, u64) = (100 << 20, 20);
/// Below these it is time to make room.
const LITTLE_ROOM: (u64, u64) = (1 << 30, 10);

/// Everything that the server tells of itself.
pub(super) fn items(info: &v1::ServerInfo, asked: SystemTime) -> Vec<Item> {
    let own = env!("CARGO_PKG_VERSION");
    let mut items = Vec::new();
    items.push(if info.version == own {
        ok("version", format!("both are {own}"))
    } else {
        let detail = format!("this program is {own}, the server {}", info.version);
        warning("version", detail, "use the program of the server's version")
    });
    if let Some(time) = span::point(info.time.as_ref()) {
        let apart = time.duration_since(asked).unwrap_or_else(|behind| behind.duration());
        items.push(if apart <= CLOCKS {
            ok("clocks", format!("{} apart", span::short(apart)))
        } else {
            let detail = format!("the server's clock is {} away from the one here", span::short(apart));
            warning("clocks", detail, "synchronise both: overrides and tokens end by the server's clock")
        });
    }
    items.push(match recover::regression(info) {
        None => ok("store", format!("{} at rev {}, term {}", info.store_id, info.revision, info.term)),
        Some(told) => failed("store", told, "`fusebox recover` tells what to do"),
    });
    if info.alarms.is_empty() {
        items.push(ok("database", "no alarm".to_owned()));
    }
    for alarm in &info.alarms {
        let detail = format!("{}, for {}", alarm.message, span::ago(alarm.since.as_ref()));
        items.push(failed("database", detail, "control-plane/docs/operate.md tells what to do"));
    }
    if let Some(condition) = &info.condition {
        items.extend(span::point(condition.certificate_expire_time.as_ref()).map(|expires| {
            let fix = "renew the files of --tls-cert and --tls-key: the server reads them again by itself";
            certificate("certificate", expires, fix)
        }));
        items.push(backups(condition.backups.as_ref()));
        items.extend(condition.disk.as_ref().map(disk));
        items.push(audit(condition));
    }
    items
}

fn backups(told: Option<&v1::ScheduledBackups>) -> Item {
    const NAME: &str = "backups";
    let Some(v1::ScheduledBackups { every, newest_time, failing_since, failure }) = told else {
        return warning(
            NAME,
            "none are made by itself".to_owned(),
            "serve with --backup-dir, or run `fusebox backup` from a timer",
        );
    };
    let newest = match newest_time {
        Some(_) => format!("the newest is {} old", span::ago(newest_time.as_ref())),
        None => "there is none".to_owned(),
    };
    if failing_since.is_some() {
        let detail = format!("fail since {}: {failure}; {newest}", span::ago(failing_since.as_ref()));
        return failed(NAME, detail, "see to the folder of --backup-dir: it must be there, writable, and have room");
    }
    let every = every.and_then(|every| Duration::try_from(every).ok()).unwrap_or_default();
    let age = span::point(newest_time.as_ref()).and_then(|time| SystemTime::now().duration_since(time).ok());
    match (newest_time, age) {
        // The first one is being made.
        (None, _) => warning(NAME, newest, "wait for the first, then ask again"),
        (Some(_), Some(age)) if age > every * 2 => {
            let detail = format!("{newest}, and one is due every {}", span::short(every));
            warning(NAME, detail, "look into the server's log for backup.failed")
        }
        (Some(_), _) => ok(NAME, format!("{newest}, one is made every {}", span::short(every))),
    }
}

fn disk(told: &v1::DiskRoom) -> Item {
    const NAME: &str = "disk";
    let v1::DiskRoom { free_bytes: free, total_bytes: total, database_bytes: used } = *told;
    let detail = format!("{} of {} are free, the database takes {}", bytes(free), bytes(total), bytes(used));
    let below = |(most, part): (u64, u64)| free < most.min(total / part);
    if below(NEARLY_FULL) {
        failed(NAME, detail, "make room: without it no change is taken, and replicas keep what they have")
    } else if below(LITTLE_ROOM) || free < used.saturating_mul(2) {
        warning(NAME, detail, "make room: a backup alone needs as much as the database takes")
    } else {
        ok(NAME, detail)
    }
}

fn audit(told: &v1::ServerCondition) -> Item {
    const NAME: &str = "audit";
    let (Some(chain), check) = (&told.audit, told.store_check.as_ref()) else {
        return failed(NAME, "the audit log can't be read".to_owned(), "look into the server's log");
    };
    let kept = format!("{} records, the last is {}", chain.last_id.saturating_sub(chain.dropped_id), chain.last_id);
    match check {
        None => ok(NAME, format!("{kept}; its chain has not been checked yet")),
        Some(check) if check.findings > 0 => {
            let detail = format!("{kept}; {} stored things are not as they were written", check.findings);
            failed(NAME, detail, "`fusebox audit verify` tells whether the chain holds; then restore a backup")
        }
        Some(check) => ok(NAME, format!("{kept}; its chain was whole {} ago", span::ago(check.time.as_ref()))),
    }
}

/// As people read it.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Verdict;

    fn stamp(time: SystemTime) -> Option<prost_types::Timestamp> {
        Some(time.into())
    }

    #[test]
    fn a_certificate_is_warned_about_two_weeks_before_its_end_and_fails_on_its_last_day() {
        let day = Duration::from_secs(24 * 3600);
        let now = SystemTime::now();
        let verdict = |expires| certificate("certificate", expires, "renew it").verdict;
        assert_eq!(verdict(now + day * 15), Verdict::Ok);
        assert_eq!(verdict(now + day * 13), Verdict::Warning);
        assert_eq!(verdict(now + day / 2), Verdict::Failed);
        assert_eq!(verdict(now - day), Verdict::Failed);
    }

    #[test]
    fn backups_that_fail_or_are_old_are_told_apart() {
        let now = SystemTime::now();
        let every = prost_types::Duration { seconds: 3600, nanos: 0 };
        let told = |age: Option<u64>, failing: bool| v1::ScheduledBackups {
            every: Some(every),
            newest_time: age.and_then(|age| stamp(now - Duration::from_secs(age))),
            failing_since: failing.then(|| stamp(now)).flatten(),
            failure: if failing { "no room".to_owned() } else { String::new() },
        };
        assert_eq!(backups(None).verdict, Verdict::Warning);
        assert_eq!(backups(Some(&told(Some(60), false))).verdict, Verdict::Ok);
        assert_eq!(backups(Some(&told(Some(8000), false))).verdict, Verdict::Warning);
        let failing = backups(Some(&told(Some(8000), true)));
        assert_eq!(failing.verdict, Verdict::Failed);
        assert!(failing.detail.contains("no room") && failing.detail.contains("2h"), "{}", failing.detail);
    }

    #[test]
    fn a_disk_needs_room_for_a_backup() {
        let told = |free, used| v1::DiskRoom { free_bytes: free, total_bytes: 100 << 30, database_bytes: used };
        assert_eq!(disk(&told(50 << 30, 1 << 20)).verdict, Verdict::Ok);
        assert_eq!(disk(&told(2 << 30, 2 << 30)).verdict, Verdict::Warning);
        assert_eq!(disk(&told(500 << 20, 1 << 20)).verdict, Verdict::Warning);
        assert_eq!(disk(&told(1 << 20, 1 << 20)).verdict, Verdict::Failed);
        let small = v1::DiskRoom { free_bytes: 6 << 20, total_bytes: 8 << 20, database_bytes: 1 << 20 };
        assert_eq!(disk(&small).verdict, Verdict::Ok);
    }
}
