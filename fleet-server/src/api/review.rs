//! Review samples: the queue, one with its contents, and what people say of it. Contents are shown to whoever has the
//! operator's token and says who they are; that they looked is on record.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use serin_protocol::review::Sample;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

use super::failure::Failure;
use super::{Context, blocking};
use crate::review::{Judgement, Listed, SampleId, Verdict};
use crate::serve::now;

pub(super) async fn list(State(context): State<Context>) -> Json<Value> {
    let samples: Vec<Value> = context.fleet.list_samples().iter().map(view).collect();
    Json(json!({ "samples": samples }))
}

pub(super) async fn views(State(context): State<Context>) -> Result<Json<Value>, Failure> {
    let views = blocking(move || context.fleet.sample_views()).await?;
    let views: Vec<Value> = views
        .iter()
        .map(|view| json!({ "at": view.at.0, "by": view.by, "sample": view.sample, "act": view.act }))
        .collect();
    Ok(Json(json!({ "views": views })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    by: String,
}

pub(super) async fn show(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(Person { by }): Json<Person>,
) -> Result<Json<Value>, Failure> {
    let id = parse(&id)?;
    let (listed, sample) = blocking(move || context.fleet.show_sample(&id, &by, now())).await?;
    let mut view = view(&listed);
    if let Some(view) = view.as_object_mut() {
        view.insert("at".into(), json!(sample.at.0));
        view.insert("inputs".into(), inputs(&sample));
        let shadow = sample.shadow.as_ref();
        let shadow = shadow.map(
            |(release, prediction)| json!({ "release": release.to_string(), "class": prediction.class() }),
        );
        view.insert("shadow".into(), json!(shadow));
    }
    Ok(Json(view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Word {
    by: String,
    verdict: Verdict,
    class: Option<i64>,
    #[serde(default)]
    note: String,
}

pub(super) async fn judge(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(Word { by, verdict, class, note }): Json<Word>,
) -> Result<Json<Value>, Failure> {
    let id = parse(&id)?;
    let at = now();
    let judgement = Judgement { by, at, verdict, class, note };
    let listed = blocking(move || context.fleet.judge_sample(&id, judgement, at)).await?;
    Ok(Json(view(&listed)))
}

pub(super) async fn remove(
    State(context): State<Context>,
    Path(id): Path<String>,
    Json(Person { by }): Json<Person>,
) -> Result<StatusCode, Failure> {
    let id = parse(&id)?;
    blocking(move || context.fleet.drop_sample(&id, &by, now())).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse(id: &str) -> Result<SampleId, Failure> {
    SampleId::new(id).ok_or_else(|| Failure::not_found(format!("there is no sample {id}")))
}

fn view(listed: &Listed) -> Value {
    json!({
        "id": listed.id,
        "device": listed.device,
        "release": listed.release.to_string(),
        "reason": listed.reason,
        "received": listed.received.0,
        "bytes": listed.bytes,
        "redacted": listed.redacted,
        "class": listed.class,
        "confidence": listed.confidence,
        "judgement": listed.judgement.as_ref().map(|judgement| json!({
            "by": judgement.by,
            "at": judgement.at.0,
            "verdict": judgement.verdict,
            "class": judgement.class,
            "note": judgement.note,
        })),
    })
}

/// Inputs as apps send them: name, type, shape and values; of bytes that are no text, in hexadecimal.
fn inputs(sample: &Sample) -> Value {
    let parts = split_body(&sample.inputs, &sample.body).unwrap_or_default();
    let all = sample.inputs.iter().zip(parts);
    all.map(|(header, raw)| {
        json!({
            "name": header.name,
            "datatype": header.datatype,
            "shape": header.shape,
            "data": values(header, raw),
        })
    })
    .collect()
}

fn values(header: &TensorHeader, raw: &[u8]) -> Value {
    if header.datatype == DataType::Bytes {
        return texts(raw);
    }
    let count = header.datatype.width().map_or(0, |width| raw.len() / width);
    // What is no number is null: in JSON there is none.
    (0..count).map(|at| header.datatype.number(raw, at).filter(|value| value.is_finite())).collect()
}

fn texts(mut raw: &[u8]) -> Value {
    let mut texts = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk::<4>() {
        let Some((text, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        texts.push(std::str::from_utf8(text).map_or_else(|_| hex::encode(text), str::to_owned));
        raw = rest;
    }
    json!(texts)
}
