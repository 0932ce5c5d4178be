//! `create`: a policy from a template, as a beginning.

use clap::{Args, ValueEnum};
use fusebox_policy::{Namespace, Policy, PolicyName, TargetName};
use fusebox_proto::{manifest, v1};

use super::{
    Session,
    apply::in_namespace,
    connect,
    failure::{Class, Failure},
    output::{self, Format, OutputArgs},
    render::{self, Row as _},
    resource::{Kind, Wanted},
};

/// What a policy can begin as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A timeout, retries with backoff inside a budget, a breaker that the fleet shares: for most calls over a network
    Standard,
    /// Short timeout, no retries, an early breaker and a fallback: where a late answer is worth nothing
    FailFast,
    /// More and longer retries, a patient breaker: for reads in the background that must come through
    Patient,
    /// A breaker and a timeout, never a second attempt: for writes that must not happen twice
    Write,
    /// A bulkhead and a rate limit that the fleet shares: for a target that takes only so much
    Limited,
    /// A hedge against slow answers: for reads with a long tail, where a little more load does no harm
    LowLatency,
}

impl Template {
    const fn pipeline(self) -> &'static str {
        match self {
            Self::Standard => {
                "    - timeout: 10s\n    - retry: { maxAttempts: 3, backoff: { exponential: { initial: 100ms, max: 2s } } }\n    \
                 - circuitBreaker: {}\n    - timeout: 3s\n"
            }
            Self::FailFast => {
                "    - fallback: { response: { status: 503, body: \"busy, try later\" } }\n    \
                 - circuitBreaker: { trip: { consecutiveFailures: 3 } }\n    - timeout: 300ms\n"
            }
            Self::Patient => {
                "    - timeout: 2m\n    - retry: { maxAttempts: 8, backoff: { exponential: { initial: 500ms, max: 20s } } }\n    \
                 - circuitBreaker: { trip: { consecutiveFailures: 10 } }\n    - timeout: 10s\n"
            }
            Self::Write => "    - circuitBreaker: {}\n    - timeout: 5s\n",
            Self::Limited => {
                "    - rateLimiter: { limit: 100, period: 1s, maxWait: 500ms, scope: fleet }\n    \
                 - bulkhead: { maxConcurrent: 20, maxWaiting: 20, maxWait: 500ms }\n    - timeout: 3s\n"
            }
            Self::LowLatency => {
                "    - timeout: 2s\n    - hedge: { delay: 50ms, maxHedges: 1 }\n    - circuitBreaker: {}\n"
            }
        }
    }
}

/// Options of `create`.
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// policy NAME, or policy/NAME
    #[arg(required = true, value_name = "policy NAME")]
    what: Vec<String>,
    /// What it begins as
    #[arg(long, value_enum, value_name = "TEMPLATE")]
    from: Template,
    /// The service that is called; without it, the policy's name
    #[arg(long)]
    target: Option<String>,
    /// Only calls from this service
    #[arg(long, value_name = "CALLER")]
    service: Option<String>,
    /// Create nothing; with -o yaml, print a manifest to begin from, without asking a server
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `create`.
pub(super) async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let (_, name) = Wanted::one(&args.what, &[Kind::Policies])?;
    let policy = policy(session.namespace(), &name, &args)?;
    if args.dry_run && args.output.format == Format::Yaml {
        return output::print(&manifest::to_yaml(&policy));
    }
    let request = v1::CreatePolicyRequest {
        parent: format!("namespaces/{}", policy.namespace),
        policy_id: policy.name.to_string(),
        policy: Some(v1::Policy::from(&policy)),
        validate_only: args.dry_run,
        message: args.message,
        request_id: connect::request_id(),
    };
    let server = session.server().await?;
    let created = connect::write(async || server.policies().create_policy(request.clone()).await)
        .await
        .map_err(Failure::to(format!("create policy/{name}")))?
        .into_inner();
    let label = render::label(&created.name);
    match args.output.format {
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => {
            output::print(&render::one(&created, args.output)?)
        }
        Format::Table | Format::Wide if args.output.quiet => output::print(&created.id()),
        Format::Table | Format::Wide if args.dry_run => output::print(&format!("{label} would be created")),
        Format::Table | Format::Wide => {
            output::print(&format!("{label} created (rev {})", created.revision))?;
            output::say(&format!("make it yours: fusebox edit {label}{}", in_namespace(&created.name)));
            Ok(())
        }
    }
}

fn policy(namespace: &str, name: &str, args: &CreateArgs) -> Result<Policy, Failure> {
    // Checked here, so that the text below holds nothing that could be read as more than a name.
    let wrong = |what: &str, why: &dyn std::fmt::Display| Failure::new(Class::Invalid, format!("{what}: {why}"));
    let namespace = Namespace::try_new(namespace).map_err(|why| wrong("namespace", &why))?;
    let name = PolicyName::try_new(name).map_err(|why| wrong("name", &why))?;
    let target = args.target.as_deref().unwrap_or(name.as_str());
    let target = TargetName::try_new(target).map_err(|why| wrong("--target", &why))?;
    let caller = args.service.as_deref().map(fusebox_policy::CallerName::try_new).transpose();
    let caller = caller.map_err(|why| wrong("--service", &why))?;
    let caller = caller.map(|caller| format!("    caller: \"{caller}\"\n")).unwrap_or_default();
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\nspec:\n  match:\n{caller}    \
         target: \"{target}\"\n  pipeline:\n{}",
        args.from.pipeline()
    );
    let documents = manifest::parse("template", &text).map_err(|error| wrong("template", &error))?;
    let document = documents.into_iter().next();
    document.map(|document| document.policy).ok_or_else(|| wrong("template", &"it holds no policy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_valid_policy_and_survives_its_manifest() {
        for template in Template::value_variants() {
            let args = CreateArgs {
                what: Vec::new(),
                from: *template,
                target: Some("service-b".to_owned()),
                service: Some("service-a".to_owned()),
                dry_run: true,
                message: String::new(),
                output: OutputArgs { format: Format::Yaml, ..OutputArgs::default() },
            };
            let own = policy("default", "p", &args).unwrap_or_else(|why| panic!("{template:?}: {}", why.report(false)));
            let again = manifest::parse("again", &manifest::to_yaml(&own)).unwrap().remove(0).policy;
            assert_eq!(again, own, "{template:?}");
        }
    }
}
