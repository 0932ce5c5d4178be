//! How fast a fleet opens: from the first replica that trips to the last one that keeps its calls back.
//!
//! ```sh
//! cargo bench -p fusebox-demo --bench spread
//! ```
//!
//! The server is a process of its own, as it is in production; the replicas are real SDK clients, each with its own connection over
//! loopback, all in this process. Every trip is about a target of which nobody knows anything. All replicas have seen four calls fail, of
//! which the server has not heard; a fifth trips the first of them, and the server must ask others before it may decide: a few where the
//! policy asks for twenty calls, a quarter of all where it asks for as many calls as there are replicas.
//!
//! On loopback the round trip is nothing and what each message costs both sides is all that there is, on the cores that both share. Over a
//! line, which takes its time with every byte, one sees how often messages must cross it. Times are printed and not judged: they are the
//! machine's.

#[path = "../../tests/faults/proxy.rs"]
#[expect(dead_code, reason = "this line has no faults but its length")]
mod line;
mod replicas;
mod round_trip;
#[path = "../../tests/process/mod.rs"]
mod server;
mod watch;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use line::{Proxy, Way};
use replicas::Replicas;
use server::Process;
use watch::Watch;

/// A caller may open ten breakers in ten seconds.
const APART: Duration = Duration::from_millis(1100);

fn print(text: &str) {
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

/// A fleet, what its policy asks for, and how far it is from the server.
struct Setting {
    size: usize,
    trips: usize,
    min_calls: usize,
    /// How long bytes are on their way, in each direction.
    away: Duration,
}

async fn fleet(setting: &Setting, watch: &Watch) {
    let &Setting { size, trips, min_calls, away } = setting;
    let plane =
        Process::start(&["fusebox", "serve", "--dev", "--listen", "127.0.0.1:0", "--streams-per-second", "2000"]);
    let line = Proxy::before(&plane.url).await;
    for direct in [Proxy::up, Proxy::down] {
        direct(&line, Way { delay: away, ..Way::default() });
    }
    let server = if away.is_zero() { &plane.url } else { &line.url };
    let replicas = Replicas::start(size, trips, min_calls, server).await;
    let mut pinger = round_trip::Pinger::connect(server).await;
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
    print(&format!(
        "\n{size} replicas {}, the policy asks for {min_calls} calls: {} trips ({early} left out: a heartbeat had told enough before)",
        if away.is_zero() { "on loopback".to_owned() } else { format!("{away:?} away") },
        last.len()
    ));
    for (what, times) in [
        ("bare TCP, there and back", &floor),
        ("heartbeat and its answer", &pings),
        ("first trip to each replica open", &each),
        ("first trip to the last open", &last),
    ] {
        let (median, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        print(&format!(
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
    let near = |size, trips, min_calls| Setting { size, trips, min_calls, away: Duration::ZERO };
    let far = |size, trips, min_calls| Setting { size, trips, min_calls, away: Duration::from_millis(5) };
    let settings = if long {
        vec![
            near(10, 30, 20),
            near(100, 30, 20),
            near(100, 30, 100),
            far(100, 30, 20),
            far(100, 30, 100),
            near(1000, 20, 20),
            near(1000, 20, 1000),
        ]
    } else {
        vec![near(10, 2, 20), far(10, 2, 20)]
    };
    for setting in settings.iter().filter(|setting| only.is_none_or(|only| only == setting.size)) {
        runtime.block_on(fleet(setting, &watch));
    }
}
