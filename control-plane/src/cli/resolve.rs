//! `resolve`: which policy is for a call, and why.

use std::collections::BTreeMap;

use clap::Args;
use fusebox_proto::{manifest, v1};
use serde_json::{Value, json};

use super::{
    Session,
    failure::{Class, Failure},
    output::{self, OutputArgs},
    render,
};

/// Options of `resolve`.
#[derive(Clone, Debug, Args)]
pub struct ResolveArgs {
    /// The calling service
    #[arg(long, value_name = "CALLER")]
    service: String,
    /// The service that is called
    #[arg(long)]
    target: String,
    /// The route: "GET /path" for HTTP, package.Service/Method for gRPC; /package.Service/Method is understood too
    #[arg(long, value_name = "ROUTE", default_value = "", hide_default_value = true)]
    method: String,
    /// A header of the request as NAME=VALUE; may be repeated. idempotency-key makes any method repeatable
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `resolve`.
pub(super) async fn resolve(session: &Session, args: ResolveArgs) -> Result<(), Failure> {
    let mut headers = BTreeMap::new();
    for header in &args.headers {
        let (name, value) = header.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Failure::new(Class::Usage, format!("\"{header}\" is not a header")).fix("write --header NAME=VALUE")
        })?;
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    // The path of a gRPC call is its route with a slash before it.
    let is_grpc_path = args.method.starts_with('/') && args.method.matches('/').count() == 2;
    let route = if is_grpc_path { args.method[1..].to_owned() } else { args.method };
    let request = v1::ResolvePolicyRequest {
        parent: format!("namespaces/{}", session.namespace()),
        service: args.service.clone(),
        target: args.target.clone(),
        route,
        headers,
    };
    let server = session.server().await?;
    let answer = server.policies().resolve_policy(request).await;
    let answer = answer.map_err(Failure::to("find the policy of this call"))?.into_inner();
    let value = value(&answer)?;
    let text = prose(&args.service, &args.target, &answer, args.output)?;
    let chosen: Vec<_> = answer.policy.iter().collect();
    let ids: Vec<_> = chosen.iter().map(|policy| render::id(&policy.name).to_owned()).collect();
    let references: Vec<_> = chosen.iter().map(|policy| render::label(&policy.name)).collect();
    args.output.print(&value, &text, &ids, &references)?;
    if answer.policy.is_some() {
        return Ok(());
    }
    Err(Failure::new(Class::NotFound, format!("no policy is for calls from {} to {}", args.service, args.target))
        .fix("a replica runs what is built in there, else the call passes through"))
}

fn value(answer: &v1::ResolvePolicyResponse) -> Result<Value, Failure> {
    let policy = answer.policy.as_ref().map(render::Row::value).transpose()?;
    let candidates = answer.candidates.iter().map(|one| {
        json!({
            "name": render::id(&one.name),
            "revision": one.revision,
            "matches": one.matches,
            "route": one.route,
            "reason": one.reason,
        })
    });
    let strategies = answer.strategies.iter().map(|one| {
        let breakers = one.breakers.iter().map(|own| {
            json!({
                "name": own.name,
                "fleet": render::fleet_word(own.fleet_state),
                "reason": own.reason,
                "override": own.r#override.as_ref().map(|own| own.id),
            })
        });
        json!({
            "name": one.name,
            "kind": one.kind,
            "breakers": breakers.collect::<Vec<_>>(),
            "notes": one.notes,
        })
    });
    Ok(json!({
        "policy": policy,
        "candidates": candidates.collect::<Vec<_>>(),
        "strategies": strategies.collect::<Vec<_>>(),
        "instances": answer.instances,
        "instances_current": answer.instances_current,
        "worst_case_attempts": (answer.worst_case_attempts != u64::MAX).then_some(answer.worst_case_attempts),
    }))
}

fn prose(
    service: &str,
    target: &str,
    answer: &v1::ResolvePolicyResponse,
    output: OutputArgs,
) -> Result<String, Failure> {
    let mut text = match &answer.policy {
        Some(policy) => {
            let attempts = match answer.worst_case_attempts {
                u64::MAX => "without limit but time".to_owned(),
                1 => "1".to_owned(),
                many => format!("at most {many}"),
            };
            format!(
                "Calls from {service} to {target}: {} (rev {}), run by {} of {} connected replicas; attempts of one call: {attempts}",
                render::label(&policy.name),
                policy.revision,
                answer.instances_current,
                answer.instances
            )
        }
        None => format!("Calls from {service} to {target}: no policy"),
    };
    if !answer.candidates.is_empty() {
        let rows: Vec<_> = answer
            .candidates
            .iter()
            .enumerate()
            .map(|(place, one)| {
                let verdict = match (place, one.matches) {
                    (0, true) => "chosen",
                    (_, true) => "matches",
                    (_, false) => "-",
                };
                vec![
                    verdict.to_owned(),
                    render::id(&one.name).to_owned(),
                    one.revision.to_string(),
                    render::or_dash(&one.route),
                    one.reason.clone(),
                ]
            })
            .collect();
        text.push_str("\n\n");
        text.push_str(&output::columns(output.header(&["VERDICT", "POLICY", "REV", "ROUTE", "WHY"]), &rows, &[]).0);
    }
    if !answer.strategies.is_empty() {
        let rows: Vec<_> = answer.strategies.iter().map(strategy).collect();
        text.push_str("\n\n");
        text.push_str(&output::columns(output.header(&["STRATEGY", "KIND", "FLEET", "NOTES"]), &rows, &[]).0);
    }
    if let Some(policy) = &answer.policy {
        text.push_str("\n\n");
        text.push_str(&manifest::to_yaml(&render::domain(policy)?));
    }
    Ok(text)
}

fn strategy(one: &v1::ResolvedStrategy) -> Vec<String> {
    let fleet: Vec<_> = one
        .breakers
        .iter()
        .map(|own| match own.name.rsplit('/').next() {
            Some(zone) if zone != "-" => format!("{} in {zone}", render::fleet_word(own.fleet_state)),
            Some(_) | None => render::fleet_word(own.fleet_state).to_owned(),
        })
        .collect();
    vec![one.name.clone(), one.kind.clone(), render::or_dash(&fleet.join(", ")), render::or_dash(&one.notes.join("; "))]
}
