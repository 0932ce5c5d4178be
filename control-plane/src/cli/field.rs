//! `explain policy.spec...`: what a field of a manifest means, from the schema that editors use.

use fusebox_proto::manifest;
use serde_json::Value;

use super::failure::{Class, Failure};
use crate::nearest::nearest;

/// Whether a word names a field of manifests.
pub(super) fn is_field(word: &str) -> bool {
    matches!(word.split('.').next(), Some("policy" | "spec" | "metadata" | "status" | "apiVersion" | "kind"))
        && !word.contains('/')
}

/// What a field means, in words.
///
/// # Errors
/// There is no such field.
pub(super) fn explain(path: &str) -> Result<String, Failure> {
    let schema = manifest::schema();
    let mut at = &schema;
    let mut walked = vec!["policy"];
    for word in path.split('.').filter(|word| !word.is_empty()) {
        if word == "policy" && walked.len() == 1 {
            continue;
        }
        let name = word.split('[').next().unwrap_or(word);
        let fields = fields(at);
        let through = || pipeline(&fields).filter(|inner| inner.contains_key(name));
        at = match fields.get(name) {
            Some(found) => found,
            // `policy.spec.retry` leaves out that strategies stand in a pipeline.
            None => match through().and_then(|inner| inner.get(name).copied()) {
                Some(found) => {
                    walked.push("pipeline[]");
                    found
                }
                None => return Err(unknown(&walked, name, &fields)),
            },
        };
        walked.push(word);
    }
    Ok(render(&walked.join("."), at))
}

/// The fields of a value, whichever of its forms has them. An array stands for its elements.
fn fields(at: &Value) -> Named<'_> {
    let mut found = Named::new();
    for form in forms(at) {
        let own = form.get("properties").and_then(Value::as_object);
        found.extend(own.into_iter().flatten().map(|(name, field)| (name.as_str(), field)));
    }
    found
}

type Named<'a> = std::collections::BTreeMap<&'a str, &'a Value>;

fn pipeline<'a>(fields: &Named<'a>) -> Option<Named<'a>> {
    fields.get("pipeline").map(|pipeline| self::fields(pipeline))
}

fn forms(at: &Value) -> Vec<&Value> {
    let mut found = vec![at];
    for key in ["anyOf", "oneOf"] {
        found.extend(at.get(key).and_then(Value::as_array).into_iter().flatten().flat_map(forms));
    }
    found.extend(at.get("items").into_iter().flat_map(forms));
    found
}

fn unknown(walked: &[&str], name: &str, fields: &Named<'_>) -> Failure {
    let failure = Failure::new(Class::NotFound, format!("{} has no field \"{name}\"", walked.join(".")));
    let mut known: Vec<&str> = fields.keys().copied().collect();
    known.extend(pipeline(fields).into_iter().flat_map(std::collections::BTreeMap::into_keys));
    match (nearest(name, known.iter().copied()), known.is_empty()) {
        (Some(near), _) => failure.fix(format!("did you mean \"{near}\"?")),
        (None, true) => failure.fix("it is a plain value"),
        (None, false) => failure.fix(format!("its fields are {}", known.join(", "))),
    }
}

fn render(path: &str, at: &Value) -> String {
    let mut text = format!("FIELD: {path} <{}>\n", kind(at));
    if let Some(description) = at.get("description").and_then(Value::as_str) {
        text.push_str(&format!("\n{description}\n"));
    }
    for form in forms(at) {
        for (word, key) in [("Values", "enum"), ("Examples", "examples")] {
            if let Some(values) = form.get(key).and_then(Value::as_array) {
                let values: Vec<_> = values.iter().map(plain).collect();
                text.push_str(&format!("\n{word}: {}\n", values.join(", ")));
            }
        }
    }
    let fields = fields(at);
    if !fields.is_empty() {
        let required: Vec<_> = forms(at)
            .iter()
            .filter_map(|form| form.get("required")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        text.push_str("\nFIELDS:\n");
        for (name, field) in fields {
            let needed = if required.contains(&name) { ", required" } else { "" };
            let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
            text.push_str(&format!("  {name} <{}{needed}>\n      {description}\n", kind(field)));
        }
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The type in one word.
fn kind(at: &Value) -> String {
    if let Some(of) = at.get("items") {
        return format!("[]{}", kind(of));
    }
    let own = at.get("type").and_then(Value::as_str);
    let is_time = at.get("pattern").and_then(Value::as_str).is_some_and(|pattern| pattern.starts_with("^[0-9]"));
    match own {
        Some("string") if is_time => "duration".to_owned(),
        Some(own) => own.to_owned(),
        None if at.get("enum").is_some() => "string".to_owned(),
        None => {
            let mut kinds: Vec<String> =
                ["anyOf", "oneOf"].iter().filter_map(|key| at.get(*key)?.as_array()).flatten().map(kind).collect();
            kinds.dedup();
            if kinds.is_empty() { "any".to_owned() } else { kinds.join(" or ") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_schema_can_be_explained() {
        fn walk(path: &str, at: &Value, seen: &mut usize) {
            for (name, field) in fields(at) {
                let inner = format!("{path}.{name}");
                let text = explain(&inner).unwrap_or_else(|failure| panic!("{inner}: {}", failure.report(false)));
                assert!(text.starts_with(&format!("FIELD: {inner} <")), "{inner}: {text}");
                *seen += 1;
                walk(&inner, field, seen);
            }
        }
        let mut seen = 0;
        walk("policy", &manifest::schema(), &mut seen);
        assert!(seen > 100, "only {seen} fields were looked at");
    }

    #[test]
    fn the_pipeline_may_be_left_out_and_a_slip_is_told_the_right_name() {
        let text = explain("policy.spec.retry.maxAttempts").unwrap();
        assert!(text.starts_with("FIELD: policy.spec.pipeline[].retry.maxAttempts <integer>"), "{text}");
        assert!(text.contains("Default: 3"), "{text}");
        assert_eq!(explain("spec.pipeline[1].retry.maxAttempts").unwrap().lines().nth(2), text.lines().nth(2));
        let failure = explain("policy.spec.retry.maxAttemps").unwrap_err();
        assert_eq!((failure.class, failure.fix.as_deref()), (Class::NotFound, Some("did you mean \"maxAttempts\"?")));
        assert!(explain("policy.spec.retri").unwrap_err().fix.unwrap().contains("\"retry\""));
        assert_eq!(explain("policy.kind.x").unwrap_err().fix.as_deref(), Some("it is a plain value"));
    }

    #[test]
    fn breakers_are_no_fields() {
        assert!(is_field("policy.spec.retry") && is_field("policy") && is_field("spec.match"));
        assert!(!is_field("breaker") && !is_field("breaker/service-b") && !is_field("policy/service-b"));
    }
}
