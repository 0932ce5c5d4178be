//! How fast a fleet opens: from the first replica that trips to the last one that keeps its calls back.
//!
//! ```sh
//! cargo bench -p fusebox-demo --bench spread
//! ```
//!
//! The server is a process of its own, as it is in production; the replicas are real SDK clients, each with its own connection over
//! loopback, all in this process. Every trip is about a target of which nobody knows anything. All replicas have seen four calls fail, of
//! which the server has not heard; a fifth trips the first of them. The policy asks for as many calls as there are replicas, so that the
//! server must ask them all, and hear a quarter of them, before it may decide. Times are printed and not judged: they are the machine's.

mod replicas;
mod round_trip;
#[path = "../../tests/process/mod.rs"]
mod server;
mod watch;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use replicas::Replicas;
use server::Process;
use watch::Watch;

/// A caller may open ten breakers in ten seconds.
const APART: Duration = Duration::from_millis(1100);

fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// The share of the sorted times that is not above.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    times
}

async fn fleet(size: usize, trips: usize, watch: &Watch) {
    let plane =
        Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0", "--streams-per-second", "2000"]);
    let replicas = Replicas::start(size, trips, &plane.url).await;
    let mut pinger = round_trip::Pinger::connect(&plane.url).await;
    let floor = sorted(round_trip::bare(500).await);
    let mut pings = pinger.times(200).await;
    let (mut each, mut last, mut early) = (Vec::new(), Vec::new(), 0);
    for trip in 0..trips {
        tokio::time::sleep(APART).await;
        pings.extend(pinger.times(10).await);
        let seen = watch.look_at(&replicas::target(trip));
        replicas.fail_four_times(trip).await;
        if seen.opened() > 0 {
            early += 1;
            continue;
        }
        replicas.trip_first(trip).await;
        let times = sorted(seen.all(size).await);
        replicas.all_obey(trip);
        last.extend(times.last().copied());
        each.extend(times);
    }
    let (pings, each, last) = (sorted(pings), sorted(each), sorted(last));
    let ping = quantile(&pings, 0.5);
    let ratio = |time: Duration| time.as_secs_f64() / ping.as_secs_f64();
    line(&format!("\n{size} replicas, {} trips ({early} left out: a heartbeat had told enough before)", last.len()));
    for (what, times) in [
        ("bare TCP, there and back", &floor),
        ("heartbeat and its answer", &pings),
        ("first trip to each replica open", &each),
        ("first trip to the last open", &last),
    ] {
        let (median, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        line(&format!(
            "  {what:<32} median {median:>10.1?} ({:>6.1} round trips)   p99 {p99:>10.1?} ({:>6.1} round trips)",
            ratio(median),
            ratio(p99)
        ));
    }
}

fn main() {
    let watch = Watch::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // Without cargo's word this is a test: only whether it works at all.
    let long = std::env::args().any(|arg| arg == "--bench");
    let only = std::env::var("SPREAD_SIZE").ok().and_then(|text| text.parse::<usize>().ok());
    let fleets: &[(usize, usize)] = if long { &[(10, 30), (100, 30), (1000, 20)] } else { &[(10, 2)] };
    for (size, trips) in fleets.iter().filter(|(size, _)| only.is_none_or(|only| only == *size)) {
        runtime.block_on(fleet(*size, *trips, &watch));
    }
}
