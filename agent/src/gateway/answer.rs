//! The answer to an inference as JSON, with raw values behind it where they were asked for. Pure.

use std::borrow::Cow;
use std::iter;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};
use serin_protocol::ids::{FieldName, ReleaseId};
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

use super::call::{Wanted, WantedOutput};
use crate::worker::Inferred;

/// A response body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) json: Bytes,
    /// Raw values behind it, where any were asked for.
    pub(super) raw: Option<Bytes>,
}

#[derive(serde::Serialize)]
struct Response<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Output<'a>>,
}

#[derive(serde::Serialize)]
struct Output<'a> {
    name: &'a FieldName,
    datatype: DataType,
    shape: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(serde::Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Raw values of one output; what is not a number becomes `null`, which JSON can say.
struct Elements<'a> {
    datatype: DataType,
    raw: &'a [u8],
}

/// Writes what `release` has `inferred`: the outputs `wanted`, each in the form wanted.
///
/// An error is a worker's whose answer contradicts itself.
pub(super) fn write(
    release: &ReleaseId,
    id: Option<&str>,
    wanted: &Wanted,
    inferred: &Inferred,
) -> Result<Written, String> {
    let Some(parts) = split_body(&inferred.outputs, &inferred.body) else {
        return Err("the worker's outputs do not agree with their sizes".into());
    };
    let mut end = 0;
    let mut made = Vec::with_capacity(parts.len());
    for (header, raw) in inferred.outputs.iter().zip(parts) {
        let start = end;
        end += raw.len();
        made.push(Made { header, raw, place: start..end });
    }
    let chosen: Vec<(&Made<'_>, bool)> = if wanted.outputs.is_empty() {
        made.iter().map(|made| (made, wanted.binary)).collect()
    } else {
        let find = |WantedOutput { name, binary }: &WantedOutput| {
            let found = made.iter().find(|made| made.header.name == *name);
            Ok::<_, String>((found.ok_or_else(|| format!("the worker made no output {name}"))?, *binary))
        };
        wanted.outputs.iter().map(find).collect::<Result<_, _>>()?
    };
    let (model_name, model_version) = (release.model.as_str(), release.version.as_str());
    let outputs = chosen.iter().map(|(made, binary)| output(made.header, made.raw, *binary)).collect();
    let response = Response { model_name, model_version, id, outputs };
    let json = serde_json::to_vec(&response).map_err(|error| error.to_string())?.into();
    let raw: Vec<&Made<'_>> = chosen.iter().filter(|(_, binary)| *binary).map(|(made, _)| *made).collect();
    Ok(Written { json, raw: behind(&raw, &inferred.body) })
}

/// An output that was made, and where it lies in the worker's answer.
struct Made<'a> {
    header: &'a TensorHeader,
    raw: &'a [u8],
    place: Range<usize>,
}

/// The values of `outputs` one after another; not copied where they lie so in `body`, as all of them do, and each.
fn behind(outputs: &[&Made<'_>], body: &Bytes) -> Option<Bytes> {
    let (first, last) = (outputs.first()?, outputs.last()?);
    if outputs.is_sorted_by(|before, next| before.place.end == next.place.start) {
        return Some(body.slice(first.place.start..last.place.end));
    }
    let mut copied = BytesMut::with_capacity(outputs.iter().map(|made| made.raw.len()).sum());
    outputs.iter().for_each(|made| copied.extend_from_slice(made.raw));
    Some(copied.freeze())
}

fn output<'a>(header: &'a TensorHeader, raw: &'a [u8], binary: bool) -> Output<'a> {
    let TensorHeader { name, datatype, shape, bytes: _ } = header;
    let parameters = binary.then_some(Parameters { binary_data_size: raw.len() });
    let data = (!binary).then_some(Elements { datatype: *datatype, raw });
    Output { name, datatype: *datatype, shape, parameters, data }
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut elements = serializer.serialize_seq(None)?;
        match self.datatype {
            // serde_json writes what is not finite as null.
            DataType::Fp32 => {
                for raw in self.raw.as_chunks().0 {
                    elements.serialize_element(&f32::from_le_bytes(*raw))?;
                }
            }
            DataType::Int64 => {
                for raw in self.raw.as_chunks().0 {
                    elements.serialize_element(&i64::from_le_bytes(*raw))?;
                }
            }
            DataType::Bytes => {
                for text in texts(self.raw) {
                    elements.serialize_element(&text)?;
                }
            }
            // No output is of these; a worker that says so is killed.
            DataType::Fp64 | DataType::Int32 | DataType::Uint8 | DataType::Bool => {}
        }
        elements.end()
    }
}

/// Texts, each behind its length; what is cut ends the row.
fn texts(mut raw: &[u8]) -> impl Iterator<Item = Cow<'_, str>> {
    iter::from_fn(move || {
        let (length, rest) = raw.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        raw = rest;
        Some(String::from_utf8_lossy(text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Company;

    fn header(name: &str, datatype: DataType, shape: &[u32], bytes: usize) -> TensorHeader {
        let shape = shape.iter().copied().collect();
        TensorHeader { name: name.parse().expect("name"), datatype, shape, bytes: bytes as u64 }
    }

    fn inferred() -> Inferred {
        let mut body = Vec::new();
        body.extend([0.5_f32, f32::NAN, f32::INFINITY, -2.0].into_iter().flat_map(f32::to_le_bytes));
        body.extend([i64::MIN, i64::MAX].into_iter().flat_map(i64::to_le_bytes));
        body.extend([&[2, 0, 0, 0][..], b"s\"", &[0, 0, 0, 0]].concat());
        let outputs = vec![
            header("p", DataType::Fp32, &[2, 2], 16),
            header("class", DataType::Int64, &[2], 16),
            header("label", DataType::Bytes, &[2], 10),
        ];
        let (body, predictions, pictures) = (body.into(), vec![], bytes::Bytes::new());
        Inferred {
            micros: 1,
            waited_micros: 0,
            company: Company::Alone,
            outputs,
            body,
            predictions,
            pictures,
        }
    }

    fn wanted(names: &[(&str, bool)]) -> Wanted {
        let output = |(name, binary): &(&str, bool)| WantedOutput {
            name: name.parse().expect("name"),
            binary: *binary,
        };
        Wanted { outputs: names.iter().map(output).collect(), binary: false }
    }

    fn written(id: Option<&str>, names: &[&str]) -> Result<String, String> {
        let names: Vec<_> = names.iter().map(|name| (*name, false)).collect();
        let written = write(&"m@1".parse().expect("id"), id, &wanted(&names), &inferred())?;
        assert_eq!(written.raw, None);
        Ok(String::from_utf8(written.json.to_vec()).expect("text"))
    }

    #[test]
    fn raw_outputs_follow_the_json_in_the_order_asked() {
        let names = [("label", true), ("class", false), ("p", true)];
        let answer =
            write(&"m@1".parse().expect("id"), None, &wanted(&names), &inferred()).expect("consistent");
        let json: serde_json::Value = serde_json::from_slice(&answer.json).expect("json");
        let output = |at: usize| &json["outputs"][at];
        assert_eq!(
            *output(0),
            serde_json::json!({
                "name": "label", "datatype": "BYTES", "shape": [2], "parameters": { "binary_data_size": 10 },
            })
        );
        assert_eq!(
            (&output(1)["data"][1], &output(1)["parameters"]),
            (&i64::MAX.into(), &serde_json::Value::Null)
        );
        assert_eq!(output(2)["parameters"]["binary_data_size"], 16);
        let inferred = inferred();
        assert_eq!(answer.raw.expect("asked for"), [&inferred.body[32..], &inferred.body[..16]].concat());

        let all = Wanted { outputs: vec![], binary: true };
        let answer = write(&"m@1".parse().expect("id"), None, &all, &inferred).expect("consistent");
        let raw = answer.raw.expect("asked for");
        assert_eq!((&raw, raw.as_ptr()), (&inferred.body, inferred.body.as_ptr()), "not copied");
        let two = [("p", true), ("label", false), ("class", true)];
        let answer = write(&"m@1".parse().expect("id"), None, &wanted(&two), &inferred).expect("consistent");
        assert_eq!(answer.raw.expect("asked for"), inferred.body.slice(..32));
    }

    #[test]
    fn every_type_is_written_and_what_is_no_number_is_null() {
        let text = written(Some("7"), &[]).expect("consistent");
        let p = r#"{"name":"p","datatype":"FP32","shape":[2,2],"data":[0.5,null,null,-2.0]}"#;
        let class = r#"{"name":"class","datatype":"INT64","shape":[2],"data":[-9223372036854775808,9223372036854775807]}"#;
        let label = r#"{"name":"label","datatype":"BYTES","shape":[2],"data":["s\"",""]}"#;
        let expected =
            format!(r#"{{"model_name":"m","model_version":"1","id":"7","outputs":[{p},{class},{label}]}}"#);
        assert_eq!(text, expected);
    }

    #[test]
    fn only_the_outputs_asked_for_are_written_in_the_order_asked() {
        let text = written(None, &["label", "class"]).expect("consistent");
        assert!(text.find("label") < text.find("class") && !text.contains("FP32"), "{text}");
        assert!(written(None, &["other"]).is_err());
    }

    #[test]
    fn an_answer_that_contradicts_itself_is_an_error() {
        let mut broken = inferred();
        broken.body.truncate(5);
        assert!(write(&"m@1".parse().expect("id"), None, &Wanted::default(), &broken).is_err());
    }
}
