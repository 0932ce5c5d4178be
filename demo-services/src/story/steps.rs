//! The other steps of the story.

use std::time::Duration;

use fusebox_proto::v1;
use tokio::time::Instant;

use super::{
    Broken, Teller,
    cast::{Cast, REPLICAS},
    load::{Load, RATES},
    report::{Report, millis},
};

/// How soon a policy must run everywhere.
const LAND_WITHIN: Duration = Duration::from_secs(5);
/// How long traffic is watched where nothing should happen to it.
const WATCH: Duration = Duration::from_secs(3);
/// How soon replicas must have found a control plane that is back.
const RETURN_WITHIN: Duration = Duration::from_secs(20);

/// The policy lands, and calls pass.
pub(super) async fn all_well(cast: &mut Cast, load: &Load, teller: Teller, report: &mut Report) -> Result<(), Broken> {
    report.replicas = REPLICAS;
    teller.chapter("All is well");
    let revision = cast.apply(Cast::policy()?, "the article's policy").await?;
    let landed = lands(cast, revision).await?;
    report.step("the policy lands on every replica", landed.is_some(), landed.unwrap_or(LAND_WITHIN));
    teller.line(&format!(
        "service-b.yaml applied as revision {revision}; it runs in all {REPLICAS} replicas after {} ms",
        millis(landed.unwrap_or(LAND_WITHIN))
    ));
    let before = load.now();
    tokio::time::sleep(WATCH).await;
    let people = load.now().since(before);
    teller.line(&format!(
        "traffic of {RATES:?} requests a second: {} answers of B, {} fallbacks, {} failures in {} s",
        people.from_b,
        people.fallback,
        people.failed,
        WATCH.as_secs()
    ));
    let ok = people.from_b > 0 && people.fallback == 0 && people.failed == 0;
    report.step("all is well", ok, WATCH);
    Ok(())
}

async fn lands(cast: &Cast, revision: u64) -> Result<Option<Duration>, Broken> {
    cast.until(LAND_WITHIN, |said| said.iter().all(|said| said.revision == revision && said.source == "stream")).await
}

/// Changes the first timeout of a policy.
fn with_timeout(mut policy: v1::Policy, timeout: Duration) -> v1::Policy {
    for strategy in policy.spec.iter_mut().flat_map(|spec| spec.pipeline.iter_mut()) {
        if let Some(v1::strategy::Kind::Timeout(own)) = &mut strategy.kind {
            own.duration = Some(fusebox_proto::duration::to_wire(timeout));
        }
    }
    policy
}

/// A change while traffic flows.
pub(super) async fn operator_changes_timeout(
    cast: &Cast,
    load: &Load,
    teller: Teller,
    report: &mut Report,
) -> Result<(), Broken> {
    teller.chapter("An operator changes the timeout while traffic flows");
    let before = load.now();
    let changed = with_timeout(Cast::policy()?, Duration::from_millis(800));
    let began = Instant::now();
    let revision = cast.apply(changed, "B answers faster these days").await?;
    let landed = lands(cast, revision).await?;
    let took = began.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let people = load.now().since(before);
    teller.line(&format!(
        "timeout 1s -> 800ms, revision {revision}: it runs everywhere {} ms after the operator asked; {} answers, {} failures meanwhile",
        millis(took),
        people.from_b + people.fallback,
        people.failed
    ));
    report.step("a changed timeout lands while traffic flows", landed.is_some() && people.failed == 0, took);
    Ok(())
}

/// kill -9, and nobody notices.
pub(super) async fn control_plane_dies_and_returns(
    cast: &mut Cast,
    load: &Load,
    teller: Teller,
    report: &mut Report,
) -> Result<(), Broken> {
    teller.chapter("The control plane is killed (kill -9), and traffic goes on");
    let revision = cast.said().await?.iter().map(|said| said.revision).max().unwrap_or_default();
    let before = load.now();
    cast.kill_control_plane().await?;
    let noticed = cast.until(RETURN_WITHIN, |said| said.iter().all(|said| !said.connected)).await?;
    tokio::time::sleep(WATCH).await;
    let people = load.now().since(before);
    let ok = noticed.is_some() && people.failed == 0 && people.fallback == 0 && people.from_b > 0;
    teller.line(&format!(
        "all replicas know after {} ms that it is gone; people got {} answers of B, {} fallbacks, {} failures",
        millis(noticed.unwrap_or(RETURN_WITHIN)),
        people.from_b,
        people.fallback,
        people.failed
    ));
    report.step("traffic goes on without the control plane", ok, WATCH);

    teller.chapter("The control plane returns, and the fleet agrees again");
    let began = Instant::now();
    cast.restart_control_plane().await?;
    let up = began.elapsed();
    let agreed = cast
        .until(RETURN_WITHIN, |said| {
            said.iter().all(|said| {
                said.connected && said.revision == revision && said.fleet == "released" && said.local == "closed"
            })
        })
        .await?;
    teller.line(&format!(
        "it listened after {} ms; all replicas are back, on revision {revision}, {} ms later",
        millis(up),
        millis(agreed.unwrap_or(RETURN_WITHIN))
    ));
    report.step("the fleet agrees again", agreed.is_some(), began.elapsed());
    Ok(())
}

/// The same policy without the fleet.
pub(super) async fn every_replica_for_itself(cast: &Cast, teller: Teller, report: &mut Report) -> Result<(), Broken> {
    teller.chapter("The same once more with `mode: local`: every replica for itself");
    let mut policy = Cast::policy()?;
    if let Some(spec) = &mut policy.spec {
        spec.coordination = Some(v1::Coordination {
            mode: v1::CoordinationMode::Local.into(),
            scope: v1::CoordinationScope::Fleet.into(),
            ..v1::Coordination::default()
        });
    }
    let revision = cast.apply(policy, "for comparison").await?;
    let landed = lands(cast, revision).await?;
    report.step("mode local lands", landed.is_some(), landed.unwrap_or(LAND_WITHIN));
    teller.line(&format!("revision {revision} runs everywhere"));
    Ok(())
}
