//! Alerts: how they stand, what happened, rules, silences, and whom one can tell.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::ids::Millis;

use super::failure::Failure;
use super::{Context, blocking};
use crate::alert::{Matcher, Rule, RuleName, Silence, SilenceId, webhook};
use crate::notify::outbox::{Content, Delivery, Outcome};
use crate::notify::receiver::ReceiverName;
use crate::serve::now;

pub(super) async fn standings(State(context): State<Context>) -> Json<Value> {
    let standings = context.fleet.alert_standings(now());
    let watched: Vec<Value> = standings
        .watched
        .iter()
        .map(|(key, watched)| {
            json!({
                "rule": key.rule,
                "owner": key.group.owner,
                "release": key.group.release().map(ToString::to_string),
                "segment": key.group.segment(),
                "state": watched.word(),
                "at": watched.at.0,
                "value": watched.found.value,
                "limit": watched.found.limit,
                "text": watched.found.text,
                "moved": webhook::moved(&watched.found.moved),
                "numbers": watched.numbers,
            })
        })
        .collect();
    let firing: Vec<Value> = standings
        .firing
        .iter()
        .map(|(alert, silence)| {
            let mut view = webhook::alert(alert);
            if let Some(view) = view.as_object_mut() {
                view.insert("silenced_by".into(), json!(silence));
            }
            view
        })
        .collect();
    let silences: Vec<Value> = standings.silences.iter().map(webhook::silence).collect();
    Json(json!({ "firing": firing, "watched": watched, "silences": silences }))
}

pub(super) async fn history(State(context): State<Context>) -> Result<Json<Value>, Failure> {
    let notes = blocking(move || context.fleet.alert_notes()).await?;
    let notes: Vec<Value> = notes.iter().map(webhook::note).collect();
    Ok(Json(json!({ "notes": notes })))
}

pub(super) async fn receivers(State(context): State<Context>) -> Json<Value> {
    let (waiting, given_up) = context.fleet.undelivered();
    let receivers: Vec<Value> = context
        .fleet
        .alert_routes()
        .receivers
        .iter()
        .map(|(name, receiver)| {
            let mut of_it = waiting.iter().filter(|delivery| delivery.to == *name);
            let first = of_it.next();
            json!({
                "name": name,
                "kind": receiver.kind(),
                "host": receiver.endpoint.host(),
                "waiting": usize::from(first.is_some()) + of_it.count(),
                "attempts": first.map_or(0, |delivery| delivery.attempts),
                "error": first.and_then(|delivery| delivery.error.clone()),
            })
        })
        .collect();
    Json(json!({ "receivers": receivers, "given_up": given_up }))
}

pub(super) async fn rules(State(context): State<Context>) -> Json<Value> {
    let rules = context.fleet.alert_rules().into_iter();
    let rules: Vec<Value> = rules.map(|held| json!({ "fixed": held.fixed, "rule": held.rule })).collect();
    Json(json!({ "rules": rules }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rules {
    rules: Vec<Rule>,
}

/// Read by hand, so that what is wrong with a rule is said as with a plan.
pub(super) async fn put_rules(State(context): State<Context>, body: String) -> Result<StatusCode, Failure> {
    let Rules { rules } = serde_json::from_str(&body)
        .map_err(|error| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "rule_refused", error.to_string()))?;
    blocking(move || context.fleet.put_alert_rules(rules)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_rule(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    let name = RuleName::new(&name).map_err(|error| Failure::bad_request(&error))?;
    blocking(move || context.fleet.remove_alert_rule(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SilenceOrder {
    matchers: Vec<String>,
    author: String,
    reason: String,
    seconds: u64,
}

pub(super) async fn silence(
    State(context): State<Context>,
    Json(order): Json<SilenceOrder>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let SilenceOrder { matchers, author, reason, seconds } = order;
    let matchers = matchers.iter().map(|text| text.parse()).collect::<Result<Vec<Matcher>, _>>();
    let matchers = matchers.map_err(|error| Failure::bad_request(&error))?;
    let made = now();
    let until = made.plus(Millis::from_secs(seconds));
    let silence = Silence { id: SilenceId(0), matchers, author, reason, made, until };
    let id = blocking(move || context.fleet.silence_alerts(silence, made)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "until": until.0 }))))
}

pub(super) async fn unsilence(
    State(context): State<Context>,
    Path(id): Path<u64>,
) -> Result<StatusCode, Failure> {
    blocking(move || context.fleet.unsilence_alerts(SilenceId(id), now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    receiver: ReceiverName,
}

/// Sends a message that is no alert, at once and once.
pub(super) async fn test(
    State(context): State<Context>,
    Json(Test { receiver }): Json<Test>,
) -> Result<Json<Value>, Failure> {
    let routes = context.fleet.alert_routes();
    if !routes.receivers.contains_key(&receiver) {
        return Err(Failure::not_found(format!(
            "there is no receiver {receiver} in the server's configuration"
        )));
    }
    let now = now();
    let is_alertmanager = routes.receivers.get(&receiver).is_some_and(|to| to.kind() == "alertmanager");
    let content = if is_alertmanager {
        // It takes an empty list, and says whether it would take more.
        Content::Alerts(Vec::new())
    } else {
        Content::Call(json!({ "test": true }))
    };
    let delivery =
        Delivery { id: 0, to: receiver, made: now, attempts: 0, not_before: now, error: None, content };
    let poster = context.poster.clone();
    let outcome = blocking(move || Ok(poster.post(&delivery, now))).await?;
    match outcome {
        Outcome::Taken => Ok(Json(json!({ "delivered": true }))),
        Outcome::Later(why) | Outcome::Refused(why) => {
            Err(Failure::new(StatusCode::BAD_GATEWAY, "not_delivered", format!("not delivered: {why}")).next(
                "see whether the receiver is up, and its address and secret in the server's configuration",
            ))
        }
    }
}
