//! Behaviour of the strategies, through the crate's public door. Each test's name is the behaviour.

#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

mod breaker_closed;
mod breaker_half_open;
mod breaker_modes;
mod breaker_open;
mod bulkhead;
mod cache;
mod change;
mod chaos;
mod composition;
mod concurrency_limit;
mod driver;
mod fallback;
mod fleet_canvass;
mod fleet_coordinator;
mod fleet_disabled;
mod fleet_driver;
mod fleet_gate;
mod fleet_guards;
mod fleet_invariants;
mod fleet_learning;
mod fleet_ramp;
mod fleet_records;
mod fleet_restarts;
mod fleet_room;
mod fleet_rule;
mod fleet_shadow;
mod fleet_shared;
mod fleet_shares;
mod fleet_term;
mod fleet_veto;
mod fleet_world;
mod fleet_zones;
mod hedge;
mod properties;
mod rate_limiter;
mod retry;
mod retry_recovering;
mod scenarios;
mod throttle;
mod timeout;
