//! `simulate`: what a policy would do to calls, in virtual time, without a server.

use std::{str::FromStr, time::Duration};

use clap::Args;
use fusebox_policy::{
    Outcome, Policy,
    outcome::{ErrorKind, GrpcCode},
};
use serde_json::{Value, json};

use super::{
    Session,
    failure::{Class, Failure},
    manifests::{FileArgs, Manifests},
    output::{self, OutputArgs},
};
use crate::simulation::{Latency, Percentiles, Scenario, Simulated, simulate};

/// Calls of one simulation: a minute of work for this program, and more than any figure needs.
const MOST_CALLS: f64 = 5e6;

/// Options of `simulate`.
#[derive(Clone, Debug, Args)]
pub struct SimulateArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Share of attempts that fail, from 0 to 1
    #[arg(long, default_value = "0", value_parser = share, value_name = "SHARE")]
    failure_rate: f64,
    /// What a failed attempt ends in: an HTTP status, a gRPC code like UNAVAILABLE, or connect, reset, timeout, other
    #[arg(long, default_value = "503", value_parser = failure, value_name = "OUTCOME")]
    failure: Outcome,
    /// How long attempts take: one time, or percentiles like p50=20ms,p99=2s
    #[arg(long, default_value = "20ms", value_parser = Latency::from_str, value_name = "TIMES")]
    latency: Latency,
    /// A time in which every attempt fails, like 2m..3m
    #[arg(long, value_parser = outage, value_name = "FROM..TO")]
    outage: Option<(Duration, Duration)>,
    /// Calls of all replicas together, like 50/s or 600/m
    #[arg(long, default_value = "50/s", value_parser = rate, value_name = "RATE")]
    rate: f64,
    /// Replicas of the calling service; each decides for itself, as without a control plane
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    replicas: u32,
    /// How long calls go on to begin
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "TIME")]
    duration: Duration,
    /// Calls that may not be made twice, like POST
    #[arg(long)]
    not_idempotent: bool,
    /// What everything random comes from: the same seed gives the same figures
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    output: OutputArgs,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be from 0 to 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let (count, unit) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write 50/s, 600/m or 1000/h".to_owned()),
    };
    let count = count.parse::<f64>().ok().filter(|count| count.is_finite() && *count > 0.0);
    count.map(|count| count / seconds).ok_or_else(|| "write 50/s, 600/m or 1000/h".to_owned())
}

fn failure(text: &str) -> Result<Outcome, String> {
    if let Ok(status) = text.parse::<u16>() {
        return if (100..=599).contains(&status) {
            Ok(Outcome::status(status))
        } else {
            Err("an HTTP status is from 100 to 599".to_owned())
        };
    }
    let error = match text {
        "connect" => Some(ErrorKind::Connect),
        "reset" => Some(ErrorKind::Reset),
        "timeout" => Some(ErrorKind::Timeout),
        "other" => Some(ErrorKind::Other),
        _ => None,
    };
    let grpc = || GrpcCode::from_name(&text.to_ascii_uppercase()).map(Outcome::grpc);
    error.map(Outcome::Error).or_else(grpc).ok_or_else(|| {
        "must be an HTTP status, a gRPC code like UNAVAILABLE, or connect, reset, timeout, other".to_owned()
    })
}

fn outage(text: &str) -> Result<(Duration, Duration), String> {
    let read = |text: &str| humantime::parse_duration(text.trim()).ok();
    let both = text.split_once("..").and_then(|(from, to)| Some((read(from)?, read(to)?)));
    both.filter(|(from, to)| from < to).ok_or_else(|| "write two rising times like 2m..3m".to_owned())
}

/// Runs `simulate`.
pub(super) async fn run(session: &Session, args: SimulateArgs) -> Result<(), Failure> {
    let manifests = Manifests::read(&args.files, session.given_namespace())?;
    let scenario = Scenario {
        failure_rate: args.failure_rate,
        failure: args.failure,
        outage: args.outage,
        latency: args.latency,
        rate: args.rate,
        replicas: args.replicas,
        duration: args.duration,
        idempotent: !args.not_idempotent,
        seed: args.seed,
    };
    let calls = scenario.rate * scenario.duration.as_secs_f64();
    if !(1.0..=MOST_CALLS).contains(&calls) {
        return Err(Failure::new(Class::Usage, format!("--rate and --duration make {calls:.0} calls"))
            .fix("choose them so that there are from 1 to 5000000"));
    }
    let policies: Vec<Policy> = manifests.written.into_iter().map(|written| written.policy).collect();
    // Work without a pause: not for the threads that serve I/O.
    let results = tokio::task::spawn_blocking(move || {
        policies.into_iter().map(|policy| (policy.name.to_string(), simulate(&policy, &scenario))).collect::<Vec<_>>()
    });
    let results = results.await.map_err(|_| Failure::new(Class::Failed, "the simulation broke off: this is a bug"))?;
    let values = results.iter().map(|(name, result)| value(name, result)).collect();
    let text = results.iter().map(|(name, result)| prose(name, result)).collect::<Vec<_>>().join("\n\n");
    let ids: Vec<_> = results.iter().map(|(name, _)| name.clone()).collect();
    let references: Vec<_> = ids.iter().map(|name| format!("policy/{name}")).collect();
    args.output.print(&output::list(values), &text, &ids, &references)
}

fn value(name: &str, result: &Simulated) -> Value {
    let times = |own: &Percentiles| {
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        json!({ "p50_ms": ms(own.p50), "p90_ms": ms(own.p90), "p99_ms": ms(own.p99), "max_ms": ms(own.max) })
    };
    let attempts: serde_json::Map<_, _> =
        result.attempts_per_call.iter().map(|(attempts, calls)| (attempts.to_string(), json!(calls))).collect();
    json!({
        "policy": name,
        "calls": result.calls,
        "attempts": result.attempts,
        "attempts_per_call": attempts,
        "load_amplification": result.amplification(),
        "succeeded": result.succeeded,
        "success_rate": result.success_rate(),
        "fallbacks": result.fallbacks,
        "failed": result.failed,
        "rejections": result.rejections,
        "breaker_openings": result.openings,
        "breaker_open_share": result.open_share,
        "latency": times(&result.latency),
        "without_policy": { "success_rate": result.bare_success, "latency": times(&result.bare_latency) },
    })
}

/// Three digits are enough to compare.
fn time(own: Duration) -> String {
    let ms = own.as_secs_f64() * 1e3;
    match ms {
        10_000.0.. => format!("{:.1}s", ms / 1e3),
        1000.0.. => format!("{:.2}s", ms / 1e3),
        10.0.. => format!("{ms:.0}ms"),
        _ => format!("{ms:.1}ms"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn prose(name: &str, result: &Simulated) -> String {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let of_calls = |count: u64| format!("{count} ({})", percent(count as f64 / result.calls.max(1) as f64));
    let times = |own: &Percentiles| {
        let [p50, p90, p99, max] = [own.p50, own.p90, own.p99, own.max].map(time);
        format!("p50 {p50}, p90 {p90}, p99 {p99}, max {max}")
    };
    let per_call: Vec<_> =
        result.attempts_per_call.iter().map(|(attempts, calls)| format!("{attempts}: {calls}")).collect();
    let rejections: Vec<_> = result.rejections.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let rows = [
        ("Calls", result.calls.to_string()),
        ("Succeeded", format!("{}, without policy {}", of_calls(result.succeeded), percent(result.bare_success))),
        ("Fallbacks", of_calls(result.fallbacks)),
        ("Failed", of_calls(result.failed)),
        ("Attempts", format!("{}, load x{:.2}", result.attempts, result.amplification())),
        ("Attempts per call", per_call.join(", ")),
        (
            "Breakers",
            format!("opened {} times, not closed {} of the time", result.openings, percent(result.open_share)),
        ),
        ("Refusals", if rejections.is_empty() { "none".to_owned() } else { rejections.join(", ") }),
        ("Latency", times(&result.latency)),
        ("Without policy", times(&result.bare_latency)),
    ];
    let rows: Vec<_> = rows.into_iter().map(|(fact, value)| vec![format!("{fact}:"), value]).collect();
    format!("policy/{name}\n{}", output::columns(None, &rows, &[]).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_people_write_them() {
        assert_eq!((rate("50/s"), rate("600/m"), rate("2")), (Ok(50.0), Ok(10.0), Ok(2.0)));
        assert_eq!(failure("503"), Ok(Outcome::status(503)));
        assert_eq!(failure("unavailable"), Ok(Outcome::grpc(GrpcCode::Unavailable)));
        assert_eq!(failure("connect"), Ok(Outcome::Error(ErrorKind::Connect)));
        assert_eq!(outage("2m..3m"), Ok((Duration::from_secs(120), Duration::from_secs(180))));
        for bad in ["0/s", "-1/s", "x/s", "1/d", "NaN"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert!(failure("broken").is_err() && failure("99").is_err());
        assert!(outage("3m..2m").is_err() && share("1.1").is_err() && share("NaN").is_err());
    }
}
