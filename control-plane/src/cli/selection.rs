//! `-l` and `--filter`: which things of a list are wanted. The server reads and applies the filter.

use clap::Args;

use super::{
    failure::{Class, Failure},
    resource::Kind,
};

/// Options of verbs that list.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// Only those with these labels: KEY=VALUE, KEY!=VALUE, KEY or !KEY, joined by commas
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Only those that this filter admits, like 'service = "a" AND state = OPEN'; an unknown field is answered with the known ones
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
}

impl SelectionArgs {
    /// Whether anything was said.
    pub(crate) const fn is_empty(&self) -> bool {
        self.selector.is_none() && self.filter.is_none()
    }

    /// Both as one filter.
    ///
    /// # Errors
    /// Labels that can't be read, or of what has none.
    pub(crate) fn filter(&self, kind: Kind) -> Result<String, Failure> {
        let labels = match &self.selector {
            Some(_) if !kind.has_labels() => {
                return Err(Failure::new(Class::Usage, format!("{} have no labels", kind.plural()))
                    .fix("-l is for policies and instances; --filter compares other fields"));
            }
            Some(selector) => labels(selector)?,
            None => Vec::new(),
        };
        let own = self.filter.as_deref().map(str::trim).filter(|filter| !filter.is_empty());
        Ok(match (labels.is_empty(), own) {
            (true, own) => own.unwrap_or_default().to_owned(),
            (false, None) => labels.join(" AND "),
            (false, Some(own)) => format!("{} AND ({own})", labels.join(" AND ")),
        })
    }
}

fn labels(selector: &str) -> Result<Vec<String>, Failure> {
    selector.split(',').map(str::trim).map(label).collect()
}

fn label(part: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::new(Class::Usage, format!("\"{part}\" is not a selector of labels"))
            .fix("write -l team=payments, -l team!=payments, -l team or -l '!team', joined by commas")
    };
    // What labels may consist of; nothing of it needs a quote.
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '*'))
    };
    let parts = match part.split_once('=') {
        Some((key, value)) => {
            let value = value.strip_prefix('=').unwrap_or(value);
            match key.strip_suffix('!') {
                Some(key) => (key, Some(("!=", value))),
                None => (key, Some(("=", value))),
            }
        }
        None => (part, None),
    };
    match parts {
        (key, Some((sign, value))) if is_name(key.trim()) && (value.is_empty() || is_name(value.trim())) => {
            Ok(format!("labels.{} {sign} \"{}\"", key.trim(), value.trim()))
        }
        (key, None) if is_name(key.trim_start_matches('!')) => match key.strip_prefix('!') {
            Some(key) => Ok(format!("NOT labels:{key}")),
            None => Ok(format!("labels:{key}")),
        },
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(selector: Option<&str>, filter: Option<&str>) -> Result<String, Failure> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        SelectionArgs { selector: own(selector), filter: own(filter) }.filter(Kind::Policies)
    }

    #[test]
    fn labels_become_conditions() {
        for (selector, wanted) in [
            ("team=payments", "labels.team = \"payments\""),
            ("team==payments", "labels.team = \"payments\""),
            ("team!=payments", "labels.team != \"payments\""),
            ("team,!old", "labels:team AND NOT labels:old"),
            ("a=b, c=", "labels.a = \"b\" AND labels.c = \"\""),
        ] {
            assert_eq!(filter(Some(selector), None).unwrap(), wanted, "{selector}");
        }
        let both = filter(Some("a=b"), Some("target = x OR target = y")).unwrap();
        assert_eq!(both, "labels.a = \"b\" AND (target = x OR target = y)");
        assert_eq!(filter(None, Some(" ")).unwrap(), "");
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in ["", "=a", "a b", "a=\"b\"", "!", "a=b,,c"] {
            assert_eq!(filter(Some(bad), None).unwrap_err().class, Class::Usage, "{bad}");
        }
        let labels = SelectionArgs { selector: Some("a=b".to_owned()), filter: None };
        assert_eq!(labels.filter(Kind::Breakers).unwrap_err().class, Class::Usage);
    }
}
