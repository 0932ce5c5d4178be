//! Which calls a policy is for.

use std::fmt;

use crate::{CallerName, Invalid, TargetName, invalid::Faults};

/// Which calls a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    caller: Option<CallerName>,
    target: TargetName,
    routes: Vec<RoutePattern>,
}

/// A method and path template, or a full gRPC method; a trailing `*` matches any rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoutePattern {
    /// `None` for gRPC and for `*`.
    method: Option<String>,
    path: String,
    prefix: bool,
}

/// How closely a selector describes a call; the greatest wins. Compared field by field, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Specificity {
    caller: bool,
    exact_route: bool,
    route_length: usize,
    method: bool,
}

impl RoutePattern {
    /// Reads `GET /path`, `* /path/*`, `package.Service/Method` or `package.Service/*`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |why: &str| {
            Err(Invalid::new(
                "",
                format!("{text:?} {why}: write \"GET /path\", \"* /path/*\" or \"package.Service/Method\""),
            ))
        };
        let (method, path) = match text.split_once(' ') {
            Some((method, path)) => {
                if !path.starts_with('/') {
                    return wrong("has a path that does not begin with '/'");
                }
                if method != "*" && (method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase())) {
                    return wrong("has no method in capitals");
                }
                ((method != "*").then(|| method.to_owned()), path)
            }
            None if text.contains('/') && !text.starts_with('/') => (None, text),
            None => return wrong("is not a route"),
        };
        let (path, prefix) = path.strip_suffix('*').map_or((path, false), |rest| (rest, true));
        if path.contains('*') || path.contains(char::is_whitespace) {
            return wrong("has '*' or spaces inside");
        }
        Ok(Self { method, path: path.to_owned(), prefix })
    }

    /// Whether the route of a call matches: `GET /orders/42`, `package.Service/Method`.
    #[must_use]
    pub fn matches(&self, route: &str) -> bool {
        let (method, path) = route.split_once(' ').map_or((None, route), |(method, path)| (Some(method), path));
        // A gRPC pattern never matches an HTTP route and the other way round: only HTTP paths begin with a slash.
        if let Some(wanted) = &self.method
            && method != Some(wanted)
        {
            return false;
        }
        if self.prefix { path.starts_with(&self.path) } else { path == self.path }
    }
}

impl RoutePattern {
    /// The HTTP method, if one is named.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.starts_with('/') {
            write!(f, "{} ", self.method.as_deref().unwrap_or("*"))?;
        }
        f.write_str(&self.path)?;
        if self.prefix { f.write_str("*") } else { Ok(()) }
    }
}

/// What a selector makes of a call, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// It describes the call so closely.
    Matches {
        /// How closely.
        specificity: Specificity,
        /// The route that matched; `None` if the selector names none.
        route: Option<&'a RoutePattern>,
    },
    /// It is for another target.
    OtherTarget,
    /// It is for another caller.
    OtherCaller,
    /// It names routes, and the call has none.
    NeedsRoute,
    /// It names routes, and the call's is none of them.
    OtherRoutes,
}

/// Most routes of one selector.
const MAX_ROUTES: usize = 64;

impl Specificity {
    /// In which way it is closer than another, in words; `None` if it is not.
    #[must_use]
    pub const fn closer_than(&self, other: &Self) -> Option<&'static str> {
        match (self.caller, other.caller) {
            (true, false) => return Some("it names the caller"),
            (false, true) => return None,
            (_, _) => {}
        }
        if self.exact_route != other.exact_route {
            return if self.exact_route { Some("its route is exact") } else { None };
        }
        if self.route_length != other.route_length {
            let closer = self.route_length > other.route_length;
            return match (closer, other.route_length) {
                (false, _) => None,
                (true, 0) => Some("it names a route"),
                (true, _) => Some("its route is longer"),
            };
        }
        if self.method && !other.method { Some("it names the method") } else { None }
    }
}

impl Selector {
    /// Calls from `caller` (any, if `None`) to `target` on one of `routes` (any, if empty).
    ///
    /// # Errors
    /// Too many routes, or the same route twice.
    pub fn try_new(caller: Option<CallerName>, target: TargetName, routes: Vec<RoutePattern>) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(routes.len() <= MAX_ROUTES, "routes", format!("must be at most {MAX_ROUTES}"));
        for (index, route) in routes.iter().enumerate() {
            if routes[..index].contains(route) {
                faults.push(format!("routes[{index}]"), format!("\"{route}\" is there twice"));
            }
        }
        faults.into_result(Some(Self { caller, target, routes }))
    }

    /// The caller, if one is named.
    #[must_use]
    pub const fn caller(&self) -> Option<&CallerName> {
        self.caller.as_ref()
    }

    /// The target.
    #[must_use]
    pub const fn target(&self) -> &TargetName {
        &self.target
    }

    /// The routes; empty means every route.
    #[must_use]
    pub fn routes(&self) -> &[RoutePattern] {
        &self.routes
    }

    /// Whether the policy concerns this caller at all.
    #[must_use]
    pub fn admits_caller(&self, caller: &CallerName) -> bool {
        self.caller.as_ref().is_none_or(|own| own == caller)
    }

    /// How closely it describes the call; `None` if it does not match. A call without a route matches only selectors
    /// without routes.
    #[must_use]
    pub fn matches(&self, caller: &CallerName, target: &str, route: Option<&str>) -> Option<Specificity> {
        if let Judgement::Matches { specificity, .. } = self.judge(caller, target, route) {
            return Some(specificity);
        }
        None
    }

    /// Whether it describes the call, and why.
    #[must_use]
    pub fn judge(&self, caller: &CallerName, target: &str, route: Option<&str>) -> Judgement<'_> {
        if self.target.as_str() != target {
            return Judgement::OtherTarget;
        }
        if !self.admits_caller(caller) {
            return Judgement::OtherCaller;
        }
        let caller = self.caller.is_some();
        if self.routes.is_empty() {
            let specificity = Specificity { caller, exact_route: false, route_length: 0, method: false };
            return Judgement::Matches { specificity, route: None };
        }
        let Some(route) = route else { return Judgement::NeedsRoute };
        let matching = self.routes.iter().filter(|pattern| pattern.matches(route));
        let ranked = matching.map(|pattern| (Self::rank(caller, pattern), pattern));
        ranked.max_by_key(|(specificity, _)| *specificity).map_or(Judgement::OtherRoutes, |(specificity, pattern)| {
            Judgement::Matches { specificity, route: Some(pattern) }
        })
    }

    fn rank(caller: bool, pattern: &RoutePattern) -> Specificity {
        Specificity {
            caller,
            exact_route: !pattern.prefix,
            // One more than the path, so that the pattern "/*" still ranks above no route at all.
            route_length: pattern.path.len() + 1,
            method: pattern.method.is_some(),
        }
    }

    /// A call that both selectors describe equally closely, in words; `None` if there is none. Such a pair is refused.
    #[must_use]
    pub fn tie(&self, other: &Self) -> Option<String> {
        if self.target != other.target || self.caller != other.caller {
            return None;
        }
        let who = self.caller.as_ref().map_or_else(|| "any caller".to_owned(), ToString::to_string);
        if self.routes.is_empty() && other.routes.is_empty() {
            return Some(format!("calls from {who} to {}", self.target));
        }
        // Two patterns of equal rank match a common route only if they are the same pattern: equal length prefixes that
        // both match are equal, and so are equal exact paths. Methods differ or are equal.
        self.routes
            .iter()
            .find(|route| other.routes.contains(route))
            .map(|route| format!("calls from {who} to {} on \"{route}\"", self.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> RoutePattern {
        RoutePattern::parse(text).unwrap()
    }

    #[test]
    fn routes_are_exact_or_prefixes() {
        assert!(route("GET /").matches("GET /"));
        assert!(!route("GET /").matches("GET /x"));
        assert!(!route("GET /").matches("POST /"));
        assert!(route("* /orders/*").matches("DELETE /orders/1"));
        assert!(route("grpc.Payments/*").matches("grpc.Payments/Charge"));
        assert!(!route("grpc.Payments/*").matches("GET /grpc.Payments/Charge"));
        for bad in ["", "/x", "get /x", "GET x", "a/*/b", "GET /a b"] {
            assert!(RoutePattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_reads_back_as_it_was_written() {
        for text in ["GET /", "* /a/*", "grpc.Payments/Charge", "grpc.Payments/*"] {
            assert_eq!(route(text).to_string(), text);
        }
    }

    #[test]
    fn a_selector_says_why_it_is_not_for_a_call() {
        let name = |text: &str| CallerName::try_new(text).unwrap();
        let routes = vec![route("GET /x/*"), route("GET /x/y")];
        let own = Selector::try_new(Some(name("a")), TargetName::try_new("b").unwrap(), routes).unwrap();
        assert_eq!(own.judge(&name("a"), "c", Some("GET /x/y")), Judgement::OtherTarget);
        assert_eq!(own.judge(&name("z"), "b", Some("GET /x/y")), Judgement::OtherCaller);
        assert_eq!(own.judge(&name("a"), "b", None), Judgement::NeedsRoute);
        assert_eq!(own.judge(&name("a"), "b", Some("POST /x/y")), Judgement::OtherRoutes);
        let Judgement::Matches { route: Some(matched), .. } = own.judge(&name("a"), "b", Some("GET /x/y")) else {
            panic!("it is for this call");
        };
        assert_eq!(matched.to_string(), "GET /x/y");
    }

    #[test]
    fn the_closest_selector_wins() {
        let caller = CallerName::try_new("a").unwrap();
        let target = TargetName::try_new("b").unwrap();
        let rank = |named: bool, routes: &[&str]| {
            Selector::try_new(
                named.then(|| caller.clone()),
                target.clone(),
                routes.iter().map(|text| route(text)).collect(),
            )
            .unwrap()
            .matches(&caller, "b", Some("GET /x/y"))
            .unwrap()
        };
        let order = [
            rank(false, &[]),
            rank(false, &["* /*"]),
            rank(false, &["GET /x/*"]),
            rank(false, &["GET /x/y"]),
            rank(true, &[]),
            rank(true, &["GET /x/y"]),
        ];
        assert!(order.is_sorted(), "{order:?}");
        for (less, more) in order.iter().zip(&order[1..]) {
            assert!(more.closer_than(less).is_some() && less.closer_than(more).is_none(), "{less:?} {more:?}");
        }
        assert_eq!(order[0].closer_than(&order[0]), None);
    }
}
