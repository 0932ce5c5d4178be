//! The policies of a text: each document is one, or a list of them as `get policies -o json` prints it.

use super::{
    read::{Wrong, scalar},
    tree::{Malformed, Node, Tree},
};

/// What a list may say besides its items.
const NEXT_PAGE: &str = "nextPageToken";
const ITEMS: &str = "items";

/// One tree for each policy, in the order of the text, and what is wrong with the lists around them.
pub(super) fn documents(text: &str) -> Result<(Vec<Tree>, Vec<Wrong>), Malformed> {
    let (mut policies, mut wrong) = (Vec::new(), Vec::new());
    for tree in Tree::parse(text)? {
        if is_list(&tree) { unfold(tree, &mut policies, &mut wrong) } else { policies.push(tree) }
    }
    Ok((policies, wrong))
}

/// A policy has no items; a map with items and with any part of a policy is a policy with an unknown field.
fn is_list(tree: &Tree) -> bool {
    let has = |key| tree.get(key).is_some();
    has(ITEMS) && !["apiVersion", "kind", "metadata", "spec"].into_iter().any(has)
}

fn unfold(tree: Tree, policies: &mut Vec<Tree>, wrong: &mut Vec<Wrong>) {
    let Node::Map(entries) = tree.node else { return };
    for entry in entries {
        let mut fault = |reason: &str| {
            let (path, reason) = (entry.key.clone(), reason.to_owned());
            wrong.push(Wrong { line: entry.line, column: entry.column, path, reason });
        };
        match (entry.key.as_str(), entry.value) {
            (ITEMS, Tree { node: Node::List(items), .. }) => policies.extend(items),
            (ITEMS, _) => fault("must be a list of policies"),
            (NEXT_PAGE, value) if value.is_null() || scalar(&value) == Some("") => {}
            // Whoever takes a part for the whole could prune the rest.
            (NEXT_PAGE, _) => fault("must be empty: this is a part of a list, get it whole"),
            (_, _) => fault("unknown field: a list has items and nextPageToken"),
        }
    }
}
