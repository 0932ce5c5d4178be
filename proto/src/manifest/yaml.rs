//! JSON values as YAML text.

use std::fmt::Write as _;

use serde_json::Value;

/// Block style for maps and for lists of maps, flow style for lists of scalars. Strings that could be read as something else are in
/// double quotes, whose escapes JSON and YAML share.
pub(super) fn yaml(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let _ = write!(text, "{indent}{}:", plain_or_quoted(key));
                nested(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                yaml(&mut inner, item, depth + 1);
                let rest = inner.get(indent.len() + 2..).unwrap_or_default();
                let _ = write!(text, "{indent}- {rest}");
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _ = writeln!(text, "{indent}{}", flow(value));
        }
    }
}

fn nested(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            text.push('\n');
            yaml(text, value, depth + 1);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            text.push('\n');
            yaml(text, value, depth + 1);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let _ = writeln!(text, " {}", flow(value));
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(string) => plain_or_quoted(string),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn plain_or_quoted(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let word = text.chars().all(safe) && text.starts_with(|c: char| c.is_ascii_alphabetic());
    let other = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    let duration = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with("xx")
        && text.chars().all(|c| c.is_ascii_alphanumeric())
        && !text.contains('e');
    if (word && !other) || duration { text.to_owned() } else { quoted(text) }
}

/// In double quotes.
fn quoted(text: &str) -> String {
    printable(&Value::String(text.to_owned()).to_string())
}

/// JSON that is valid YAML too: what JSON may leave as it is but YAML does not print, or reads as the end of a line, is escaped. Such
/// characters stand in strings only.
#[must_use]
pub fn printable(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(printable, "\\u{:04x}", u32::from(character));
            }
            other => printable.push(other),
        }
    }
    printable
}
