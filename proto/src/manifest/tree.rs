//! A YAML text as a tree that knows where everything stands. JSON is YAML.

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// A node and its place.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// From 1.
    pub(super) line: usize,
    /// From 1.
    pub(super) column: usize,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    /// A plain or quoted scalar. Only plain ones can be numbers, booleans or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) value: Tree,
}

/// What is wrong with the text itself.
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) reason: String,
}

/// Deeper than any manifest; a bound on recursion.
const MAX_DEPTH: usize = 32;

impl Tree {
    /// All documents of a text that are not empty.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, Malformed> {
        let mut events = Events { parser: Parser::new_from_str(text) };
        let mut documents = Vec::new();
        while let Some((event, span)) = events.next()? {
            if !event.is_node() {
                continue;
            }
            let tree = events.tree(event, span, 0)?;
            if !tree.is_null() {
                documents.push(tree);
            }
        }
        Ok(documents)
    }

    /// A plain `null`, `~` or nothing at all.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.node, Node::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.node {
            Node::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            Node::Scalar { .. } | Node::List(_) => None,
        }
    }

    /// What kind of thing it is, in words.
    pub(super) const fn kind(&self) -> &'static str {
        match &self.node {
            Node::Scalar { .. } => "a value",
            Node::List(_) => "a list",
            Node::Map(_) => "a map",
        }
    }

    /// The place of a path, or of its nearest part that is there. A field's place is that of its value; one that is missing has the
    /// place of the map that it is missing from.
    pub(super) fn locate(&self, path: &str) -> (usize, usize) {
        self.walk(path).0
    }

    /// The place of a path that is there in full.
    pub(super) fn find(&self, path: &str) -> Option<(usize, usize)> {
        let (place, whole) = self.walk(path);
        whole.then_some(place)
    }

    fn walk(&self, path: &str) -> ((usize, usize), bool) {
        let mut here = self;
        let mut place = (self.line, self.column);
        for part in path.replace('[', ".[").split('.').filter(|part| !part.is_empty()) {
            let index = part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let next = match (&here.node, index) {
                (Node::List(items), Some(index)) => index.parse().ok().and_then(|index: usize| items.get(index)),
                (Node::Map(entries), None) => entries.iter().find(|entry| entry.key == part).map(|entry| {
                    place = (entry.line, entry.column);
                    &entry.value
                }),
                (Node::Scalar { .. } | Node::List(_) | Node::Map(_), _) => None,
            };
            let Some(next) = next else {
                return (place, false);
            };
            here = next;
            // A map's own place is the first of its keys; the key that leads to it says more.
            if matches!(here.node, Node::Scalar { .. }) || index.is_some() {
                place = (here.line, here.column);
            }
        }
        (place, true)
    }
}

struct Events<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Malformed> {
        loop {
            match self.parser.next_event() {
                None => return Ok(None),
                Some(Err(error)) => {
                    let marker = error.marker();
                    return Err(Malformed {
                        line: marker.line(),
                        column: marker.col() + 1,
                        reason: format!("is not YAML: {}", error.info()),
                    });
                }
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
            }
        }
    }

    fn expect(&mut self) -> Result<(Event<'a>, Span), Malformed> {
        self.next()?.ok_or_else(|| Malformed { line: 1, column: 1, reason: "ends too early".to_owned() })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser's events are not ours to list")]
    fn tree(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Tree, Malformed> {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        let wrong = |reason: &str| Malformed { line, column, reason: reason.to_owned() };
        if depth > MAX_DEPTH {
            return Err(wrong("is nested too deeply"));
        }
        let node = match event {
            Event::Scalar(text, style, ..) => {
                Node::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.expect()?;
                    if matches!(event, Event::SequenceEnd) {
                        break Node::List(items);
                    }
                    items.push(self.tree(event, span, depth + 1)?);
                }
            }
            Event::MappingStart(..) => {
                let mut entries: Vec<Entry> = Vec::new();
                loop {
                    let (event, span) = self.expect()?;
                    if matches!(event, Event::MappingEnd) {
                        break Node::Map(entries);
                    }
                    let key = self.tree(event, span, depth + 1)?;
                    let (line, column) = (key.line, key.column);
                    let Node::Scalar { text: key, .. } = key.node else {
                        return Err(Malformed { line, column, reason: "a key must be a plain name".to_owned() });
                    };
                    if entries.iter().any(|entry| entry.key == key) {
                        return Err(Malformed { line, column, reason: format!("\"{key}\" is there twice") });
                    }
                    let (event, span) = self.expect()?;
                    let value = self.tree(event, span, depth + 1)?;
                    entries.push(Entry { key, line, column, value });
                }
            }
            // Aliases could make a small text huge, and a reader of a policy should see what it says.
            _ => return Err(wrong("anchors and aliases are not allowed: write it out")),
        };
        Ok(Tree { line, column, node })
    }
}
