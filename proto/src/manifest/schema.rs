//! The JSON schema of a manifest, draft 07: what editors' YAML language servers support.

use serde_json::{Value, json};

use super::shape::{Field, Kind, MANIFEST};

/// The schema, made from the same description that the reader checks against.
#[must_use]
pub fn schema() -> Value {
    let mut root = of(MANIFEST);
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("Fusebox policy");
    root
}

fn of(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Exactly(text) => json!({ "const": text }),
        Kind::Duration => json!({ "type": "string", "pattern": "^[0-9].*[a-z]$", "examples": ["100ms", "1m30s"] }),
        Kind::Date => json!({ "type": "string", "format": "date-time" }),
        Kind::Whole => json!({ "type": "integer", "minimum": 0 }),
        Kind::Number => json!({ "type": "number" }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Status => json!({ "type": ["string", "integer"] }),
        Kind::Jitter => json!({ "anyOf": [{ "enum": ["none", "full", "equal"] }, { "type": "number" }] }),
        Kind::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::List(inner) => json!({ "type": "array", "items": of(*inner) }),
        Kind::Map(fields) => map(&[fields]),
        Kind::OneOf(fields) => one_of(map(&[fields]), fields),
        Kind::Choosing(shared, kinds) => {
            let mut object = map(&[shared, kinds]);
            let mut choices: Vec<Value> = kinds.iter().map(|field| json!({ "required": [field.name] })).collect();
            choices.push(json!({ "not": { "anyOf": choices } }));
            object["oneOf"] = json!(choices);
            object
        }
        Kind::Element(shared, kinds) => one_of(map(&[shared, kinds]), kinds),
        Kind::Either(scalar, other) => json!({ "anyOf": [of(*scalar), of(*other)] }),
        Kind::Output(inner) => {
            let mut value = of(*inner);
            value["readOnly"] = json!(true);
            value
        }
    }
}

fn map(parts: &[&[Field]]) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for field in parts.iter().copied().flatten() {
        let mut property = of(field.kind);
        property["description"] = json!(field.doc);
        properties.insert(field.name.to_owned(), property);
        if field.required {
            required.push(field.name);
        }
    }
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn one_of(mut object: Value, kinds: &[Field]) -> Value {
    let choices: Vec<Value> = kinds.iter().map(|field| json!({ "required": [field.name] })).collect();
    object["oneOf"] = json!(choices);
    object
}
