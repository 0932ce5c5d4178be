//! B fails for a while, and comes back.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    Broken, Teller,
    cast::Cast,
    load::Load,
    report::{Measured, Report, millis},
};

/// How long B fails. The same each time, so that both runs can be compared.
const OUTAGE: Duration = Duration::from_secs(6);
/// How soon every replica must have opened. The quiet one on its own needs five failures of its own.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// How soon all must have closed again: the longest open time, and the probes.
const CLOSE_WITHIN: Duration = Duration::from_secs(30);

/// Lets B fail, then recover, and measures both.
pub(super) async fn run(
    cast: &Cast,
    load: &Load,
    teller: Teller,
    report: &mut Report,
    mode: &str,
) -> Result<Measured, Broken> {
    teller.chapter(&format!("B starts failing ({mode}): every call gets 503"));
    let before = load.now();
    let (_, failed_before, _) = cast.stats().await?;
    let began = Instant::now();
    cast.faults(json!({ "errorRate": 1.0, "status": 503 })).await?;
    let mut first = None;
    let opened = cast
        .until(OPEN_WITHIN, |said| {
            let open = said.iter().filter(|said| said.admission == 0.0).count();
            if open > 0 && first.is_none() {
                first = Some(began.elapsed());
            }
            open == said.len()
        })
        .await?;
    report.step(&format!("every replica opens ({mode})"), opened.is_some(), opened.unwrap_or(OPEN_WITHIN));
    let last_open = began.elapsed();
    let (_, failed_then, _) = cast.stats().await?;
    teller.line(&format!(
        "first replica open after {} ms, the last after {} ms; {} failed calls had reached B",
        millis(first.unwrap_or_default()),
        millis(last_open),
        failed_then - failed_before,
    ));
    for (number, said) in cast.said().await?.iter().enumerate() {
        teller.line(&format!("  a-{}: own breaker {}, fleet {}", number + 1, said.local, said.fleet));
    }
    tokio::time::sleep_until(began + OUTAGE).await;
    let (_, failed_after, probes_before) = cast.stats().await?;
    let people = load.now().since(before);
    teller.line(&format!(
        "outage of {} s: people got {} fallbacks, {} answers of B, {} failures; {} failed calls reached B",
        OUTAGE.as_secs(),
        people.fallback,
        people.from_b,
        people.failed,
        failed_after - failed_before,
    ));
    report.step(&format!("people are answered during the outage ({mode})"), people.failed == 0, OUTAGE);

    teller.chapter(&format!("B recovers ({mode})"));
    let recovered = Instant::now();
    cast.faults(json!({})).await?;
    let closed = cast.until(CLOSE_WITHIN, |said| said.iter().all(|said| said.admission >= 1.0)).await?;
    report.step(&format!("every replica closes ({mode})"), closed.is_some(), closed.unwrap_or(CLOSE_WITHIN));
    let closed_after = recovered.elapsed();
    let (_, _, probes_after) = cast.stats().await?;
    let measured = Measured {
        failed_calls_reached_b: failed_after - failed_before,
        last_replica_open_ms: millis(last_open),
        probes_at_recovery: probes_after - probes_before,
        closed_ms: millis(closed_after),
    };
    teller.line(&format!(
        "{} probes reached B, and all had closed after {} ms",
        measured.probes_at_recovery, measured.closed_ms
    ));
    Ok(measured)
}
