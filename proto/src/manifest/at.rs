//! Looking for values in a tree, where what is not there or not well-formed is left out.

use std::collections::BTreeMap;

use super::{
    read::{read_date, read_duration, scalar},
    tree::{Node, Tree},
};
use crate::{duration, v1};

/// A place in the tree that may not be there.
#[derive(Clone, Copy)]
pub(super) struct At<'a>(pub(super) Option<&'a Tree>);

impl<'a> At<'a> {
    pub(super) fn at(self, key: &str) -> Self {
        At(self.0.and_then(|tree| tree.get(key)))
    }

    pub(super) fn has(self, key: &str) -> bool {
        self.at(key).0.is_some()
    }

    pub(super) fn value(self, key: &str) -> Option<&'a str> {
        self.at(key).0.and_then(scalar)
    }

    pub(super) fn text(self, key: &str) -> String {
        self.value(key).unwrap_or_default().to_owned()
    }

    pub(super) fn whole(self, key: &str) -> Option<u32> {
        self.value(key)?.parse().ok()
    }

    pub(super) fn number(self, key: &str) -> Option<f64> {
        self.value(key)?.parse().ok()
    }

    pub(super) fn flag(self, key: &str) -> Option<bool> {
        self.value(key)?.parse().ok()
    }

    pub(super) fn span(self, key: &str) -> Option<prost_types::Duration> {
        self.value(key).and_then(read_duration).map(duration::to_wire)
    }

    pub(super) fn date(self, key: &str) -> Option<prost_types::Timestamp> {
        self.value(key).and_then(read_date).map(|seconds| prost_types::Timestamp { seconds, nanos: 0 })
    }

    pub(super) fn list(self, key: &str) -> impl Iterator<Item = &'a Tree> + use<'a> {
        match self.at(key).0.map(|tree| &tree.node) {
            Some(Node::List(items)) => items.iter(),
            Some(Node::Scalar { .. } | Node::Map(_)) | None => [].iter(),
        }
    }

    pub(super) fn texts(self, key: &str) -> BTreeMap<String, String> {
        match self.at(key).0.map(|tree| &tree.node) {
            Some(Node::Map(entries)) => {
                entries.iter().filter_map(|entry| Some((entry.key.clone(), scalar(&entry.value)?.to_owned()))).collect()
            }
            Some(Node::Scalar { .. } | Node::List(_)) | None => BTreeMap::new(),
        }
    }

    pub(super) fn conditions(self, key: &str) -> Option<v1::Conditions> {
        let at = self.at(key);
        let words = |key: &str| at.list(key).filter_map(|item| scalar(item).map(ToOwned::to_owned)).collect::<Vec<_>>();
        self.has(key).then(|| v1::Conditions {
            statuses: words("statuses"),
            grpc_codes: words("grpcCodes"),
            errors: words("errors").iter().map(|word| error_kind(word).into()).collect(),
            headers: at
                .list("headers")
                .map(|item| v1::HeaderMatch { name: At(Some(item)).text("name"), value: At(Some(item)).text("value") })
                .collect(),
            slower_than: at.span("slowerThan"),
        })
    }
}

pub(super) fn error_kind(word: &str) -> v1::ErrorKind {
    v1::ErrorKind::from_str_name(&format!("ERROR_KIND_{}", word.to_uppercase())).unwrap_or(v1::ErrorKind::Unspecified)
}
