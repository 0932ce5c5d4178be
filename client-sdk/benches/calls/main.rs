//! What a call costs, over an operation that is ready at once: ours beside peers and floors, in one run.
//!
//! ```sh
//! cargo bench -p fusebox
//! ```
//!
//! Prints a table with times, ratios and allocations at the end. A filter of criterion's works too: `-- breaker`.

mod ours;
mod peers;
mod table;

use std::{
    alloc::System,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use criterion::Criterion;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures one way of doing it, and counts its allocations.
fn measure(criterion: &mut Criterion, table: &mut table::Table, name: &'static str, mut once: impl FnMut()) {
    // What is made at first use (threads' own memory, buckets) is not what a call costs.
    for _ in 0..1000 {
        once();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..1000 {
        once();
    }
    let change = region.change();
    table.allocations(name, change.allocations as f64 / 1000.0);
    criterion.bench_function(name, |bencher| bencher.iter(&mut once));
}

/// The same from two threads at once: nanoseconds of each call of each.
fn measure_two(criterion: &mut Criterion, name: &'static str, once: impl Fn() + Sync) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let started = std::sync::Barrier::new(2);
            let run = || {
                started.wait();
                let begun = Instant::now();
                for _ in 0..iterations {
                    once();
                }
                begun.elapsed()
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(run);
                let own = run();
                other.join().map_or(own, |other| own.max(other))
            })
        });
    });
}

fn floors(criterion: &mut Criterion, table: &mut table::Table) {
    measure(criterion, table, table::CLOCK, || {
        black_box(tokio::time::Instant::now());
    });
    let origin = tokio::time::Instant::now();
    measure(criterion, table, table::TIME, || {
        black_box(origin.elapsed());
    });
    let counter = AtomicU64::new(0);
    measure(criterion, table, "floor: atomic add", || {
        black_box(counter.fetch_add(1, Ordering::Relaxed));
    });
    measure(criterion, table, "floor: a ready future", || {
        black_box(ours::now!(std::future::ready(Ok::<u64, std::convert::Infallible>(1))));
    });
    measure(criterion, table, "floor: tokio timeout", || {
        black_box(ours::now!(tokio::time::timeout(Duration::from_secs(1), std::future::ready(1))));
    });
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .configure_from_args();
    let mut table = table::Table::default();
    floors(&mut criterion, &mut table);
    ours::bench(&mut criterion, &mut table);
    peers::bench(&mut criterion, &mut table);
    criterion.final_summary();
    table.print();
}
