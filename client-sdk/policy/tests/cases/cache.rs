//! Caches: what is asked again, and what is not worth keeping.

use fusebox_policy::{
    cache::{CacheInput, CacheSpec},
    pipeline::{Event, Finish, StrategySpec},
};

use crate::driver::{FAILED, OK, Process, does, ms, retry};

fn cache() -> StrategySpec {
    StrategySpec::Cache(CacheSpec::try_new(CacheInput { ttl: ms(1000), ..CacheInput::default() }).unwrap())
}

#[test]
fn a_cache_around_a_retry_keeps_what_the_retry_has_won() {
    let mut process = Process::new(vec![cache(), retry(3, 0)]);
    assert_eq!(process.call(|attempt| does(if attempt < 3 { FAILED } else { OK })), Finish::Value);
    assert_eq!(process.executed, 3);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!(process.executed, 3, "the second call is answered from memory");
    let hits = process.count_events(|event| matches!(event, Event::CacheAsked { hit: true, .. }));
    let misses = process.count_events(|event| matches!(event, Event::CacheAsked { hit: false, .. }));
    assert_eq!((hits, misses), (1, 1));
}

#[test]
fn a_failure_is_not_kept() {
    let mut process = Process::new(vec![cache()]);
    process.call(|_| does(FAILED));
    process.call(|_| does(OK));
    assert_eq!(process.executed, 2);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let valid = CacheInput { ttl: ms(1), ..CacheInput::default() };
    assert!(CacheSpec::try_new(CacheInput::default()).is_err());
    assert!(CacheSpec::try_new(CacheInput { max_entries: 0, ..valid.clone() }).is_err());
    assert!(CacheSpec::try_new(CacheInput { max_body_bytes: 0, ..valid.clone() }).is_err());
    assert!(CacheSpec::try_new(valid).is_ok());
}
