//! Text to a checked tree.

use super::{
    Comparison, Field, FilterError, Kind, LONGEST, Node, Operator,
    literal::{self, Literal},
};
use crate::nearest::nearest;

/// Deepest nesting: a filter is written by hand, and the parser calls itself.
const DEEPEST: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Letters, digits and `_ - . / * + @`.
    Bare(String),
    Quoted(String),
    Operator(&'static str),
    Open,
    Close,
}

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    depth: usize,
    fields: &'a [Field],
    /// Those that can't be watched.
    growing: &'a [&'a str],
}

pub(super) fn parse(text: &str, fields: &[Field], growing: &[&str]) -> Result<Node, FilterError> {
    if text.len() > LONGEST {
        return Err(FilterError { position: LONGEST, reason: format!("a filter is at most {LONGEST} bytes") });
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, next: 0, end: text.chars().count() + 1, depth: 0, fields, growing };
    let node = parser.all()?;
    match parser.peek() {
        None => Ok(node),
        Some(Token::Close) => Err(parser.wrong("this parenthesis closes nothing")),
        Some(_) => Err(parser.unjoined()),
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let is_bare = |c: char| c.is_alphanumeric() || "_-./*+@".contains(c);
    let mut found = Vec::new();
    let mut letters = text.chars().enumerate().peekable();
    while let Some((index, letter)) = letters.next() {
        let position = index + 1;
        let token = match letter {
            _ if letter.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            '=' => {
                // `==` is what programmers type.
                letters.next_if(|(_, next)| *next == '=');
                Token::Operator("=")
            }
            ':' => Token::Operator(":"),
            '!' if letters.next_if(|(_, next)| *next == '=').is_some() => Token::Operator("!="),
            '<' => Token::Operator(if letters.next_if(|(_, next)| *next == '=').is_some() { "<=" } else { "<" }),
            '>' => Token::Operator(if letters.next_if(|(_, next)| *next == '=').is_some() { ">=" } else { ">" }),
            '"' | '\'' => {
                let mut content = String::new();
                loop {
                    match letters.next() {
                        Some((_, '\\')) => content.extend(letters.next().map(|(_, escaped)| escaped)),
                        Some((_, next)) if next == letter => break,
                        Some((_, next)) => content.push(next),
                        None => return Err(FilterError { position, reason: "this quote is not closed".to_owned() }),
                    }
                }
                Token::Quoted(content)
            }
            _ if is_bare(letter) => {
                let mut word = String::from(letter);
                while let Some((_, next)) = letters.next_if(|(_, next)| is_bare(*next)) {
                    word.push(next);
                }
                Token::Bare(word)
            }
            other => return Err(FilterError { position, reason: format!("{other:?} has no meaning here") }),
        };
        found.push((position, token));
    }
    Ok(found)
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(position, _)| *position)
    }

    fn wrong(&self, reason: impl Into<String>) -> FilterError {
        FilterError { position: self.position(), reason: reason.into() }
    }

    fn unjoined(&self) -> FilterError {
        match self.peek() {
            Some(Token::Bare(word)) if matches!(word.to_ascii_uppercase().as_str(), "AND" | "OR" | "NOT") => {
                self.wrong(format!("write {} in capitals", word.to_ascii_uppercase()))
            }
            _ => self.wrong("two conditions are joined by AND or OR"),
        }
    }

    fn takes(&mut self, word: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Bare(found)) if found == word);
        self.next += usize::from(is);
        is
    }

    fn all(&mut self) -> Result<Node, FilterError> {
        let mut parts = vec![self.any()?];
        while self.takes("AND") {
            parts.push(self.any()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::All(parts) })
    }

    fn any(&mut self) -> Result<Node, FilterError> {
        let mut parts = vec![self.term()?];
        while self.takes("OR") {
            parts.push(self.term()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Node::Any(parts) })
    }

    fn term(&mut self) -> Result<Node, FilterError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong(format!("a filter is nested at most {DEEPEST} deep")));
        }
        let node = if self.takes("NOT") {
            Node::Not(Box::new(self.term()?))
        } else if self.peek() == Some(&Token::Open) {
            let opened = self.position();
            self.next += 1;
            let node = self.all()?;
            match self.peek() {
                Some(Token::Close) => self.next += 1,
                Some(_) => return Err(self.unjoined()),
                None => {
                    return Err(FilterError { position: opened, reason: "this parenthesis is not closed".to_owned() });
                }
            }
            node
        } else {
            Node::Compare(self.comparison()?)
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Comparison, FilterError> {
        let Some(Token::Bare(name)) = self.peek().cloned() else {
            return Err(self.wrong("a condition begins with the name of a field"));
        };
        let (field, mut key) = self.field(&name)?;
        self.next += 1;
        let Some(Token::Operator(sign)) = self.peek().cloned() else {
            return Err(self.wrong(format!("{name} is compared with one of = != < <= > >= :")));
        };
        let operator = self.operator(sign, field)?;
        self.next += 1;
        let (text, quoted) = match self.peek().cloned() {
            Some(Token::Bare(text)) => (text, false),
            Some(Token::Quoted(text)) => (text, true),
            Some(Token::Operator(_) | Token::Open | Token::Close) | None => {
                return Err(self.wrong(format!("{name} {sign} must be followed by a value")));
            }
        };
        let literal = match (field.kind, operator) {
            (_, Operator::Has) if text == "*" && !quoted => Literal::Present,
            // `labels:team` asks for the key.
            (Kind::Labels, Operator::Has) if key.is_none() => {
                key = Some(text);
                Literal::Present
            }
            (Kind::Labels, _) if key.is_none() => {
                return Err(self.wrong(format!("say which: {name}.KEY {sign} {text}")));
            }
            _ => literal::read(field.kind, &text).map_err(|reason| self.wrong(reason))?,
        };
        self.next += 1;
        Ok(Comparison { field: field.name, key, operator, literal })
    }

    fn field(&self, name: &str) -> Result<(Field, Option<String>), FilterError> {
        let found = |name: &str| self.fields.iter().find(|field| field.name == name).copied();
        if self.growing.contains(&name) {
            let reason =
                format!("{name} grows by itself: a watch, which looks when something changes, can't wait for it");
            return Err(self.wrong(reason));
        }
        if let Some(field) = found(name) {
            return Ok((field, None));
        }
        if let Some((head, key)) = name.split_once('.')
            && let Some(field) = found(head).filter(|field| matches!(field.kind, Kind::Labels))
        {
            return Ok((field, Some(key.to_owned())));
        }
        let names = self.fields.iter().map(|field| field.name);
        let fix = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the fields are {}", names.collect::<Vec<_>>().join(", ")),
        };
        Err(self.wrong(format!("there is no field {name}: {fix}")))
    }

    fn operator(&self, sign: &str, field: Field) -> Result<Operator, FilterError> {
        let operator = match sign {
            "=" => Operator::Equal,
            "!=" => Operator::Unequal,
            "<" => Operator::Less,
            "<=" => Operator::AtMost,
            ">" => Operator::Greater,
            ">=" => Operator::AtLeast,
            _ => Operator::Has,
        };
        let is_ordered = matches!(operator, Operator::Less | Operator::AtMost | Operator::Greater | Operator::AtLeast);
        if is_ordered && matches!(field.kind, Kind::Word(_) | Kind::Flag | Kind::Texts | Kind::Labels | Kind::Text) {
            return Err(self.wrong(format!("{} has no order: use =, != or :", field.name)));
        }
        Ok(operator)
    }
}
