//! Pages and filters of lists: what is asked for, checked once for all of them.

use std::collections::BTreeMap;

use tonic::Status;

use super::status;
use crate::filter::{Fields, Filter};

/// A page has this many when nothing is said.
const USUAL: i32 = 100;
/// And never more than this.
pub(super) const MOST: i32 = 1000;

/// How many a page may have.
pub(super) fn size(asked: i32) -> Result<usize, Status> {
    let size = match asked {
        0 => USUAL,
        1.. => asked.min(MOST),
        _ => return Err(status::invalid_field("page_size", "must not be negative")),
    };
    Ok(usize::try_from(size).unwrap_or_default())
}

/// A token that is a number.
pub(super) fn number(token: &str) -> Result<Option<u64>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    token.parse().map(Some).map_err(|_| foreign())
}

/// The refusal of a token of another method.
pub(super) fn foreign() -> Status {
    status::invalid_field("page_token", "is not one of this method")
}

/// Reads the filter of things of one kind.
pub(super) fn filter<T: Fields>(text: &str) -> Result<Filter, Status> {
    Filter::parse::<T>(text).map_err(|error| status::filter(&error))
}

/// A part of what is live, ordered by name.
pub(super) struct Named {
    size: usize,
    /// The last name of the page before.
    after: String,
}

impl Named {
    /// `collection` is what the names begin with: a token of another method is refused.
    pub(super) fn new(page_size: i32, page_token: String, collection: &str) -> Result<Self, Status> {
        if !page_token.is_empty() && !page_token.starts_with(collection) {
            return Err(foreign());
        }
        Ok(Self { size: size(page_size)?, after: page_token })
    }

    /// The page, and the token of the next one.
    pub(super) fn of<T: Fields + Clone>(
        &self,
        all: &BTreeMap<String, T>,
        admits: impl Fn(&T) -> bool,
    ) -> (Vec<T>, String) {
        let later = (std::ops::Bound::Excluded(self.after.clone()), std::ops::Bound::Unbounded);
        let mut rest = all.range(later).filter(|(_, thing)| admits(thing)).peekable();
        let mut page = Vec::new();
        let mut last = "";
        while let Some((name, thing)) = rest.next_if(|_| page.len() < self.size) {
            page.push(thing.clone());
            last = name;
        }
        let next = if rest.peek().is_some() { last.to_owned() } else { String::new() };
        (page, next)
    }
}
