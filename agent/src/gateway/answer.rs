//! The answer to an inference as JSON. Pure.

use std::borrow::Cow;
use std::iter;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeSeq as _, Serializer};
use serin_protocol::ids::{FieldName, ReleaseId};
use serin_protocol::tensor::{DataType, TensorHeader, split_body};

use crate::worker::Inferred;

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
    data: Elements<'a>,
}

/// Raw values of one output; what is not a number becomes `null`, which JSON can say.
struct Elements<'a> {
    datatype: DataType,
    raw: &'a [u8],
}

/// Writes what `release` has `inferred`: the outputs `wanted`, all of them when none is named.
///
/// An error is a worker's whose answer contradicts itself.
pub(super) fn write(
    release: &ReleaseId,
    id: Option<&str>,
    wanted: &[FieldName],
    inferred: &Inferred,
) -> Result<Bytes, String> {
    let Some(parts) = split_body(&inferred.outputs, &inferred.body) else {
        return Err("the worker's outputs do not agree with their sizes".into());
    };
    let made: Vec<_> = inferred.outputs.iter().zip(parts).collect();
    let outputs = if wanted.is_empty() {
        made.into_iter().map(output).collect()
    } else {
        let find = |name: &FieldName| {
            let found = made.iter().find(|(header, _)| header.name == *name);
            found.copied().map(output).ok_or_else(|| format!("the worker made no output {name}"))
        };
        wanted.iter().map(find).collect::<Result<_, _>>()?
    };
    let (model_name, model_version) = (release.model.as_str(), release.version.as_str());
    let response = Response { model_name, model_version, id, outputs };
    serde_json::to_vec(&response).map(Bytes::from).map_err(|error| error.to_string())
}

fn output<'a>((header, raw): (&'a TensorHeader, &'a [u8])) -> Output<'a> {
    let TensorHeader { name, datatype, shape, bytes: _ } = header;
    Output { name, datatype: *datatype, shape, data: Elements { datatype: *datatype, raw } }
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
        Inferred { micros: 1, outputs, body: body.into(), predictions: vec![] }
    }

    fn written(id: Option<&str>, wanted: &[&str]) -> Result<String, String> {
        let wanted: Vec<_> = wanted.iter().map(|name| name.parse().expect("name")).collect();
        let bytes = write(&"m@1".parse().expect("id"), id, &wanted, &inferred())?;
        Ok(String::from_utf8(bytes.to_vec()).expect("text"))
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
        assert!(write(&"m@1".parse().expect("id"), None, &[], &broken).is_err());
    }
}
