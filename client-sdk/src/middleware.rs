//! A target's policy as a middleware of `reqwest-middleware`.
