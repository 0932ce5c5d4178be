//! How a client acts on its share of a limit, and what it falls back to.

use std::time::Duration;

use fusebox::{Client, LimitStatus};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::fake::{Fake, LEASE, Session, key, policy, shown};

const WHOLE: u32 = 1_000_000;
/// Ten calls each 100 ms at most, shared by the fleet.
const SHARED: &str = "    - rateLimiter: { limit: 100, burst: 10, scope: fleet }\n";

fn limit_key() -> v1::BreakerKey {
    v1::BreakerKey { strategy: "rate-limiter".to_owned(), ..key() }
}

/// A client with the policy, and the number of a heartbeat that has reported its limit.
async fn connected(fake: &mut Fake) -> (Client, Session, u64) {
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(5).await;
    session.snapshot(1, vec![policy(1, SHARED)]).await;
    let seq = reported(&mut session).await.0;
    (client, session, seq)
}

/// The next heartbeat, and what it says of the limit.
async fn reported(session: &mut Session) -> (u64, sync::LimitReport) {
    session
        .until("a report", |message| {
            let Up::Heartbeat(heartbeat) = message else { return None };
            let report = heartbeat.limits.into_iter().next()?;
            assert_eq!(report.key, Some(limit_key()));
            Some((heartbeat.seq, report))
        })
        .await
}

fn share(rev: u64, ppm: u32, members: u32, anchor_seq: u64) -> Down {
    Down::RateShare(sync::RateShare {
        key: Some(limit_key()),
        term: 5,
        rev,
        ppm,
        members,
        lease: Some(to_wire(LEASE)),
        anchor_seq,
    })
}

async fn answer(session: &mut Session, seq: u64, rev: u64) {
    let lease = Some(to_wire(LEASE));
    session.say(Down::HeartbeatAck(sync::HeartbeatAck { seq, term: 5, rev, lease })).await;
}

/// How many of so many calls pass at once.
async fn passed(client: &Client, calls: usize) -> usize {
    let target = client.target("service-b");
    let mut passed = 0;
    for _ in 0..calls {
        passed += usize::from(target.call(|| async { Ok::<_, std::io::Error>(()) }).await.is_ok());
    }
    passed
}

fn limit(client: &Client) -> LimitStatus {
    client.status().limits.remove(0)
}

async fn acts_on(client: &Client, ppm: u32) -> LimitStatus {
    shown(client, "the share", |status| status.limits[0].share_ppm == ppm).await.limits.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_share_bounds_the_calls_and_is_confirmed_at_once() {
    let mut fake = Fake::start();
    let (client, mut session, seq) = connected(&mut fake).await;
    assert_eq!((limit(&client).share_ppm, limit(&client).members, limit(&client).leased), (WHOLE, 0, false));
    assert_eq!(passed(&client, 20).await, 10, "nobody has told a share: the whole burst");

    session.say(share(1, 200_000, 4, seq)).await;
    let (confirmed_by, report) = reported(&mut session).await;
    assert_eq!((report.held_term, report.held_rev, report.held_ppm), (5, 1, 200_000));
    assert_eq!(report.wanted, 20, "refused calls are demand, too");
    let over = report.over.unwrap();
    assert!(over.seconds == 0 && over.nanos < 900_000_000, "it does not wait for the next regular heartbeat: {over:?}");
    let shown = limit(&client);
    assert_eq!((shown.policy.as_str(), shown.strategy.as_str()), ("service-b", "rate-limiter"));
    assert_eq!((shown.share_ppm, shown.members, shown.leased), (200_000, 4, true));

    answer(&mut session, confirmed_by, 1).await;
    let (_, report) = reported(&mut session).await;
    assert_eq!((report.wanted, report.held_rev), (0, 1));
    assert_eq!(passed(&client, 20).await, 2, "a fifth of the burst, after a rest");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_lease_leaves_at_most_an_equal_part_and_later_an_equal_part() {
    for (ppm, at_first) in [(800_000, 250_000), (10_000, 10_000)] {
        let mut fake = Fake::start();
        let (client, mut session, seq) = connected(&mut fake).await;
        let began = tokio::time::Instant::now();
        session.say(share(1, ppm, 4, seq)).await;
        acts_on(&client, ppm).await;
        fake.up.store(false, std::sync::atomic::Ordering::Relaxed);
        drop(session);
        shown(&client, "the loss", |status| !status.connected).await;
        assert_eq!(limit(&client).share_ppm, ppm, "a lost stream changes nothing");
        shown(&client, "the end of the lease", |status| !status.limits[0].leased).await;
        assert!(began.elapsed() <= LEASE + Duration::from_millis(50), "the lease counts from the heartbeat");
        assert_eq!(limit(&client).share_ppm, at_first);
        let ended = tokio::time::Instant::now();
        tokio::time::sleep_until(ended + LEASE / 2).await;
        assert_eq!(limit(&client).share_ppm, at_first);
        tokio::time::sleep_until(ended + LEASE * 2).await;
        assert_eq!(limit(&client).share_ppm, WHOLE / 4);
        assert_eq!(passed(&client, 20).await, 2, "a fourth of the burst of ten");
    }
}

#[tokio::test(start_paused = true)]
async fn answered_heartbeats_renew_a_share_and_a_lapsed_one_is_told_again() {
    let mut fake = Fake::start();
    let (client, mut session, seq) = connected(&mut fake).await;
    session.say(share(3, 800_000, 4, seq)).await;
    for _ in 0..10 {
        let (seq, report) = reported(&mut session).await;
        assert_eq!(report.held_rev, 3);
        answer(&mut session, seq, 3).await;
    }
    assert_eq!(limit(&client).share_ppm, 800_000);
    // The answers know only an older share: the lease of the present one runs out, while the stream is alive.
    let (seq, gone) = loop {
        let (seq, report) = reported(&mut session).await;
        answer(&mut session, seq, 2).await;
        if report.held_rev == 0 {
            break (seq, report);
        }
    };
    assert_eq!((gone.held_term, gone.held_ppm), (0, 0));
    assert_eq!(limit(&client).share_ppm, 250_000);
    answer(&mut session, seq, 3).await;
    let (seq, report) = reported(&mut session).await;
    assert_eq!(report.held_rev, 0, "an answer does not bring it back");
    session.say(share(3, 800_000, 4, seq)).await;
    acts_on(&client, 800_000).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_older_wrong_or_about_another_limit_changes_nothing() {
    let mut fake = Fake::start();
    let (client, mut session, seq) = connected(&mut fake).await;
    session.say(share(3, 300_000, 3, seq)).await;
    acts_on(&client, 300_000).await;
    let Down::RateShare(good) = share(4, 1, 3, seq) else { unreachable!() };
    let elsewhere = v1::BreakerKey { policy: "elsewhere".to_owned(), ..limit_key() };
    for wrong in [
        sync::RateShare { rev: 2, ..good.clone() },
        sync::RateShare { term: 4, ..good.clone() },
        sync::RateShare { key: Some(elsewhere), ..good.clone() },
        sync::RateShare { key: None, ..good.clone() },
        sync::RateShare { ppm: WHOLE + 1, ..good.clone() },
        sync::RateShare { members: 0, ..good.clone() },
        sync::RateShare { anchor_seq: 999, ..good.clone() },
        sync::RateShare { lease: None, ..good.clone() },
    ] {
        session.say(Down::RateShare(wrong)).await;
    }
    // Whatever follows has been read after them.
    session.say(share(4, 400_000, 3, seq)).await;
    assert_eq!(acts_on(&client, 400_000).await.members, 3);
    let (_, report) = reported(&mut session).await;
    assert_eq!((report.held_rev, report.held_ppm), (4, 400_000));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_for_whom_nothing_is_free_takes_an_equal_part() {
    let mut fake = Fake::start();
    let (client, mut session, seq) = connected(&mut fake).await;
    session.say(share(1, 0, 5, seq)).await;
    let shown = acts_on(&client, 200_000).await;
    assert_eq!((shown.members, shown.leased), (5, true));
    let (_, report) = reported(&mut session).await;
    assert_eq!((report.held_rev, report.held_ppm), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_share_outlives_a_changed_policy_also_one_that_resets() {
    let mut fake = Fake::start();
    let (client, mut session, seq) = connected(&mut fake).await;
    session.say(share(1, 300_000, 3, seq)).await;
    acts_on(&client, 300_000).await;
    let larger = "    - rateLimiter: { limit: 1000, burst: 100, scope: fleet }\n";
    session.snapshot(2, vec![policy(2, larger)]).await;
    assert_eq!(limit(&client).share_ppm, 300_000);
    let mut reset = policy(3, SHARED);
    reset.spec.as_mut().unwrap().on_change = v1::OnChange::Reset.into();
    session.snapshot(3, vec![reset]).await;
    assert_eq!((limit(&client).share_ppm, limit(&client).leased), (300_000, true));
    assert_eq!(passed(&client, 20).await, 3, "of the burst of ten");

    let own = "    - rateLimiter: { limit: 100, burst: 10 }\n";
    session.snapshot(4, vec![policy(4, own)]).await;
    assert!(client.status().limits.is_empty(), "the replica has the limit for itself");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(passed(&client, 20).await, 10);
}
