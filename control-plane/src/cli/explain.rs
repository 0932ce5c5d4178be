//! `explain`: what a field means, or why the fleet decided what it did about a breaker, and what it did not do.

use clap::Args;
use fusebox_proto::v1::{self, BreakerDecision, ExplainBreakerResponse};
use serde_json::{Value, json};

use super::{
    Session,
    failure::{Class, Failure},
    fetch, field,
    output::{self, Format, OutputArgs},
    render::{self, Row as _},
    resource::{Kind, Wanted},
    span,
};

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// A field like policy.spec.retry.maxAttempts; or breaker, then its target or whole name; or breaker/NAME. Without it, the whole manifest
    #[arg(default_value = "policy", hide_default_value = true, value_name = "FIELD|breaker TARGET")]
    what: Vec<String>,
    /// Only breakers of this calling service
    #[arg(long, value_name = "CALLER")]
    service: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `explain`.
pub(super) async fn explain(session: &Session, args: ExplainArgs) -> Result<(), Failure> {
    if let [path] = args.what.as_slice()
        && field::is_field(path)
    {
        return output::print(&field::explain(path)?);
    }
    let (_, name) = Wanted::one(&args.what, &[Kind::Breakers])?;
    let server = session.server().await?;
    let mut all = fetch::breakers_and_gone(&server, session.given_namespace()).await?;
    let caller = |breaker: &v1::Breaker| breaker.key.as_ref().map(|key| key.caller.clone()).unwrap_or_default();
    all.retain(|one| args.service.as_ref().is_none_or(|wanted| *wanted == caller(one)));
    let mut found = Vec::new();
    for one in fetch::breakers_named(&all, &name)? {
        let request = v1::ExplainBreakerRequest { name: one.name.clone() };
        match server.breakers().explain_breaker(request).await {
            Ok(answer) => found.push(answer.into_inner()),
            Err(status) => {
                let failure = Failure::to(format!("explain \"{}\"", one.id()))(status);
                // Its last replica has gone since the list was made, and nothing was ever decided about it.
                if failure.class != Class::NotFound {
                    return Err(failure);
                }
            }
        }
    }
    if args.output.quiet || args.output.format == Format::Name {
        let names = found.iter().filter_map(|one| one.breaker.as_ref());
        let names = names.map(|breaker| if args.output.quiet { breaker.id() } else { breaker.reference() });
        return output::print(&names.collect::<Vec<_>>().join("\n"));
    }
    let values: Result<Vec<Value>, Failure> = found.iter().map(value).collect();
    let text = found.iter().map(|one| prose(one, args.output)).collect::<Vec<_>>().join("\n\n");
    output::print_value(args.output.format, &output::list(values?), &text)
}

fn value(answer: &ExplainBreakerResponse) -> Result<Value, Failure> {
    let breaker = answer.breaker.as_ref().map(render::Row::value).transpose()?;
    Ok(json!({
        "breaker": breaker,
        "mode": answer.mode,
        "mode_ends_in_ms": span::millis(answer.mode_ends_in.as_ref()),
        "suspicion": answer.suspicion,
        "decisions": answer.decisions.iter().map(decision).collect::<Vec<_>>(),
    }))
}

fn decision(one: &BreakerDecision) -> Value {
    json!({
        "since_ms": span::millis(one.since.as_ref()),
        "until_ms": span::millis(one.until.as_ref()),
        "times": one.times,
        "from": render::fleet_word(one.from),
        "to": render::fleet_word(one.to),
        "cause": one.cause,
        "term": one.term,
        "rev": one.rev,
        "guard": one.guard,
        "detail": one.detail,
        "evidence": one.evidence.as_ref().map(render::evidence),
        "witnesses": one.witnesses.iter().map(render::instance_breaker).collect::<Vec<_>>(),
    })
}

fn prose(answer: &ExplainBreakerResponse, args: OutputArgs) -> String {
    let breaker = answer.breaker.clone().unwrap_or_default();
    let fleet = render::fleet_words(&breaker);
    let mut text = format!("{}: {fleet}, {}", breaker.id(), render::or_dash(&breaker.reason));
    if breaker.shadow {
        text.push_str("\nIt is in shadow mode: what follows is what it would do, and no call is refused");
    }
    if let Some(left) = &answer.mode_ends_in {
        let why = if answer.suspicion.is_empty() { String::new() } else { format!(" ({})", answer.suspicion) };
        let left = span::short(span::wire(left));
        text.push_str(&format!("\nThe control plane is {}{why} for another {left}: it opens nothing", answer.mode));
    }
    if answer.decisions.is_empty() {
        text.push_str("\nNothing that was decided about it is remembered.");
        return text;
    }
    let rows: Vec<_> = answer
        .decisions
        .iter()
        .map(|one| {
            let witnesses: Vec<_> = one
                .witnesses
                .iter()
                .map(|own| {
                    let local = render::local_word(own.local_state);
                    let mute = if own.mute.is_empty() { String::new() } else { format!(" (no vote: {})", own.mute) };
                    format!("{} {}/{} {local}{mute}", own.instance, own.window_failures, own.window_calls)
                })
                .collect();
            let what = format!("{} -> {}", render::fleet_word(one.from), render::fleet_word(one.to));
            let held = if one.times > 1 { format!("{} x{}", one.guard, one.times) } else { one.guard.clone() };
            vec![
                span::cell(one.since.as_ref()),
                what,
                if one.rev > 0 { format!("{}/{}", one.term, one.rev) } else { "-".to_owned() },
                one.cause.clone(),
                render::or_dash(&held),
                render::or_dash(&one.detail),
                render::or_dash(&witnesses.join(", ")),
            ]
        })
        .collect();
    let header = ["AGO", "DECISION", "TERM/REV", "CAUSE", "HELD BACK BY", "NUMBERS", "WITNESSES (FAILURES/CALLS)"];
    text.push('\n');
    text.push_str(&output::columns((!args.no_headers).then_some(&header), &rows, &[]).0);
    text
}
