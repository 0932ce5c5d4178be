//! Pages and filters of lists: what is asked for, checked once for all of them.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use sha2::{Digest, Sha256};
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

/// Bytes of a token that say which list it goes on with.
const BOUND: usize = 8;

/// What is listed. A token belongs to it: with another one it would go on in the middle of something else.
pub(super) struct Query([u8; BOUND]);

impl Query {
    /// `request` is without its page: whoever asks for larger pages lists the same.
    pub(super) fn of(method: &str, request: &impl Message) -> Self {
        let digest =
            Sha256::new().chain_update(method).chain_update([0]).chain_update(request.encode_to_vec()).finalize();
        let mut bound = [0; BOUND];
        bound.iter_mut().zip(digest).for_each(|(own, byte)| *own = byte);
        Self(bound)
    }

    /// The token of a place in the list.
    pub(super) fn token(&self, place: &str) -> String {
        BASE64URL_NOPAD.encode(&[self.0.as_slice(), place.as_bytes()].concat())
    }

    /// The place of a token; `None` at the beginning.
    pub(super) fn place(&self, token: &str) -> Result<Option<String>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| foreign())?;
        let (bound, place) = bytes.split_at_checked(BOUND).ok_or_else(foreign)?;
        if bound != self.0 {
            return Err(foreign());
        }
        String::from_utf8(place.to_vec()).map(Some).map_err(|_| foreign())
    }

    /// The place of a token, where places are numbers.
    pub(super) fn number(&self, token: &str) -> Result<Option<u64>, Status> {
        self.place(token)?.map(|place| place.parse().map_err(|_| foreign())).transpose()
    }
}

/// The refusal of a token of another list.
pub(super) fn foreign() -> Status {
    status::invalid_field("page_token", "is not one of this list: send it with all other fields as they were")
}

/// Reads the filter of things of one kind.
pub(super) fn filter<T: Fields>(text: &str) -> Result<Filter, Status> {
    Filter::parse::<T>(text).map_err(|error| status::filter(&error))
}

/// Reads the filter of a watch of things of one kind, some fields of which grow with time alone.
pub(super) fn watch_filter<T: Fields>(text: &str, growing: &[&str]) -> Result<Filter, Status> {
    Filter::parse_watch::<T>(text, growing).map_err(|error| status::filter(&error))
}

/// A part of what is live, ordered by name.
pub(super) struct Named {
    size: usize,
    query: Query,
    /// The last name of the page before.
    after: String,
}

impl Named {
    pub(super) fn new(page_size: i32, page_token: &str, query: Query) -> Result<Self, Status> {
        Ok(Self { size: size(page_size)?, after: query.place(page_token)?.unwrap_or_default(), query })
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
        let next = if rest.peek().is_some() { self.query.token(last) } else { String::new() };
        (page, next)
    }
}
