//! Tokens, without what is secret.

use fusebox_proto::v1::{Role, Token};
use serde_json::{Value, json};

use super::{Row, or_dash, or_null};
use crate::cli::{failure::Failure, span};

impl Row for Token {
    const COLUMNS: &'static [&'static str] = &["NAME", "ROLE", "ID", "EXPIRES", "AGE", "CREATOR"];
    const WIDE: &'static [&'static str] = &["REVOKED", "BY", "WHY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.display_name.clone(),
            role(self),
            self.name.trim_start_matches("tokens/").to_owned(),
            match &self.revoke_time {
                Some(_) => "revoked".to_owned(),
                None => until(self),
            },
            span::ago(self.create_time.as_ref()),
            or_dash(&self.creator),
        ]
    }

    fn wide_cells(&self) -> Vec<String> {
        vec![span::ago(self.revoke_time.as_ref()), or_dash(&self.revoker), or_dash(&self.revoke_reason)]
    }

    fn id(&self) -> String {
        self.display_name.clone()
    }

    fn reference(&self) -> String {
        format!("token/{}", self.display_name)
    }

    fn value(&self) -> Result<Value, Failure> {
        Ok(token(self))
    }
}

fn until(token: &Token) -> String {
    let Some(expires) = span::point(token.expire_time.as_ref()) else { return or_dash("") };
    match expires.duration_since(std::time::SystemTime::now()) {
        Ok(left) => format!("in {}", span::short(left)),
        Err(_) => "expired".to_owned(),
    }
}

/// Its role, with the namespace that it goes over if it does not go over all; an agent's with its service.
pub(crate) fn role(token: &Token) -> String {
    role_word(token.role(), &token.namespace, &token.service)
}

/// The same for anybody.
pub(crate) fn role_word(role: Role, namespace: &str, service: &str) -> String {
    let word = match role {
        Role::Agent => return format!("agent of {namespace}/{service}"),
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
        Role::Unspecified => return or_dash(""),
    };
    if namespace.is_empty() { word.to_owned() } else { format!("{word} of {namespace}") }
}

/// Its JSON form.
pub(crate) fn token(token: &Token) -> Value {
    json!({
        "name": token.name,
        "displayName": token.display_name,
        "role": token.role().as_str_name().trim_start_matches("ROLE_").to_lowercase(),
        "namespace": or_null(&token.namespace),
        "service": or_null(&token.service),
        "createTime": span::stamp(token.create_time.as_ref()),
        "creator": token.creator,
        "expireTime": span::stamp(token.expire_time.as_ref()),
        "revokeTime": span::stamp(token.revoke_time.as_ref()),
        "revoker": or_null(&token.revoker),
        "revokeReason": or_null(&token.revoke_reason),
    })
}
