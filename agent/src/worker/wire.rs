//! Frames to and from a worker on the supervisor's side. What comes from a worker is untrusted: sizes
//! are capped before memory is reserved, and an answer must agree with itself.

use std::io::{self, IoSlice};
use std::iter;

use bytes::{Bytes, BytesMut};
use serin_protocol::frame::{
    PREFIX_BYTES, Prefix, WorkerRequest, WorkerResponse, decode_header, encode_head,
};
use serin_protocol::manifest::MAX_TENSORS;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::engine::MAX_ROWS;
use super::queue::Wanted;

/// Bytes of one number about a picture.
const PICTURE_BYTES: usize = size_of::<f32>();

/// Whether sizes and headers of a request agree; the worker judges everything else.
pub(super) fn check_request(inputs: &[TensorHeader], body: &[u8]) -> Result<(), String> {
    if let Some(input) = inputs.iter().find(|input| !input.is_consistent()) {
        return Err(format!("input {}: {} bytes do not fit its shape", input.name, input.bytes));
    }
    if split_body(inputs, body).is_none() {
        return Err("the inputs do not use up the body exactly".into());
    }
    Ok(())
}

/// Prefix and header of a request whose body has `bytes` bytes.
pub(super) fn request_head(
    request: u64,
    wanted: Wanted,
    inputs: Vec<TensorHeader>,
    bytes: usize,
) -> Result<Vec<u8>, String> {
    let asked = match wanted {
        Wanted::Inference => WorkerRequest::Infer { request, inputs },
        Wanted::Preparation => WorkerRequest::Prepare { request, inputs },
    };
    encode_head(&asked, bytes).map_err(|error| error.to_string())
}

/// Sends a frame; the parts of its body go out from where they lie in memory.
pub(super) async fn send(
    socket: &mut (impl AsyncWrite + Unpin),
    head: &[u8],
    parts: &[Bytes],
) -> io::Result<()> {
    let all = iter::once(head).chain(parts.iter().map(AsRef::as_ref));
    let mut slices: Vec<IoSlice<'_>> = all.filter(|part| !part.is_empty()).map(IoSlice::new).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match socket.write_vectored(left).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut left, written),
        }
    }
    Ok(())
}

/// Receives a frame. The memory for its body is zero pages of the system until bytes arrive, so that a
/// worker cannot make its supervisor bloat by announcing much.
pub(super) async fn receive(socket: &mut BufReader<UnixStream>) -> io::Result<(WorkerResponse, Bytes)> {
    let mut prefix = [0_u8; PREFIX_BYTES];
    socket.read_exact(&mut prefix).await?;
    let prefix = Prefix::decode(prefix).map_err(io::Error::other)?;
    let mut header = vec![0; prefix.header as usize];
    socket.read_exact(&mut header).await?;
    let response: WorkerResponse = decode_header(&header).map_err(io::Error::other)?;
    let mut body = BytesMut::zeroed(prefix.body as usize);
    socket.read_exact(&mut body).await?;
    let body = body.freeze();
    check(&response, &body).map_err(io::Error::other)?;
    Ok((response, body))
}

fn check(response: &WorkerResponse, body: &[u8]) -> Result<(), String> {
    match response {
        WorkerResponse::Inferred { outputs, predictions, pictures, .. } => {
            if outputs.len() > MAX_TENSORS || predictions.len() > MAX_ROWS {
                return Err("more outputs or predictions than there can be".into());
            }
            let behind =
                outputs_end(body.len(), *pictures).ok_or("fewer numbers about pictures than it says")?;
            let values = body.get(..behind).unwrap_or_default();
            let parts = split_body(outputs, values).ok_or("the outputs do not use up the body exactly")?;
            match outputs.iter().zip(parts).find(|(output, part)| !is_sound(output, part)) {
                Some((output, _)) => Err(format!("output {} contradicts its header", output.name)),
                None => Ok(()),
            }
        }
        WorkerResponse::Ready(_) | WorkerResponse::LoadFailed(_) | WorkerResponse::InferFailed { .. } => {
            if body.is_empty() {
                Ok(())
            } else {
                Err("a body where none belongs".into())
            }
        }
    }
}

/// Where the outputs end in a body of `length` bytes that holds so many numbers behind them; `None` if it cannot.
pub(super) fn outputs_end(length: usize, pictures: u32) -> Option<usize> {
    length.checked_sub((pictures as usize).checked_mul(PICTURE_BYTES)?)
}

fn is_sound(output: &TensorHeader, part: &[u8]) -> bool {
    match output.datatype {
        DataType::Fp32 | DataType::Int64 => output.is_consistent(),
        // No output is of these.
        DataType::Fp64 | DataType::Int32 | DataType::Uint8 | DataType::Bool => false,
        DataType::Bytes => texts(part) == output.elements(),
    }
}

/// How many texts `part` holds; `None` when it is cut or not UTF-8.
fn texts(mut part: &[u8]) -> Option<u64> {
    let mut count = 0;
    while !part.is_empty() {
        let (length, rest) = part.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        std::str::from_utf8(text).ok()?;
        part = rest;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serin_protocol::frame::Ready;

    fn header(datatype: DataType, shape: &[u32], bytes: u64) -> TensorHeader {
        let shape = shape.iter().copied().collect();
        TensorHeader { name: "y".parse().expect("name"), datatype, shape, bytes }
    }

    fn answer(output: TensorHeader) -> WorkerResponse {
        WorkerResponse::Inferred {
            request: 1,
            micros: 1,
            outputs: vec![output],
            predictions: vec![],
            pictures: 0,
        }
    }

    #[test]
    fn an_answer_must_agree_with_itself() {
        assert_eq!(check(&answer(header(DataType::Fp32, &[2, 1], 8)), &[0; 8]), Ok(()));
        assert!(check(&answer(header(DataType::Fp32, &[2, 2], 8)), &[0; 8]).is_err());
        assert!(check(&answer(header(DataType::Fp32, &[2, 1], 8)), &[0; 9]).is_err());
        assert!(check(&answer(header(DataType::Fp32, &[u32::MAX; 8], 8)), &[0; 8]).is_err());
        let texts = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert_eq!(check(&answer(header(DataType::Bytes, &[2], 9)), &texts), Ok(()));
        assert!(check(&answer(header(DataType::Bytes, &[3], 9)), &texts).is_err());
        assert!(check(&answer(header(DataType::Bytes, &[1], 6)), &[1, 0, 0, 0, 0xFF, 0]).is_err());
        let output = || header(DataType::Fp32, &[2, 1], 8);
        let seen = |pictures| {
            let (outputs, predictions) = (vec![output()], vec![]);
            WorkerResponse::Inferred { request: 1, micros: 1, outputs, predictions, pictures }
        };
        assert_eq!(check(&seen(2), &[0; 16]), Ok(()));
        assert!(check(&seen(3), &[0; 16]).is_err() && check(&seen(u32::MAX), &[0; 16]).is_err());
        let failed = WorkerResponse::Ready(Ready {
            load_micros: 1,
            rows_at_once: 1,
            sandbox: serin_protocol::frame::Sandbox {
                no_new_privileges: true,
                files_closed: true,
                memory_limited: true,
                calls_filtered: true,
            },
        });
        assert!(check(&failed, &[0]).is_err());
    }

    #[test]
    fn a_request_that_contradicts_itself_never_leaves() {
        assert!(check_request(&[header(DataType::Fp32, &[1, 2], 8)], &[0; 8]).is_ok());
        assert!(check_request(&[header(DataType::Fp32, &[1, 2], 4)], &[0; 4]).is_err());
        assert!(check_request(&[header(DataType::Fp32, &[1, 2], 8)], &[0; 12]).is_err());
    }

    #[tokio::test]
    async fn a_frame_in_many_parts_arrives_as_one() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("pair");
        // More than a socket takes at once, in parts large, small and empty.
        let parts: Vec<Bytes> =
            (0..40_u8).map(|n| Bytes::from(vec![n; usize::from(n % 4) * 30_011])).collect();
        let expected = parts.concat();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.expect("read");
            all
        });
        send(&mut ours, b"head", &parts).await.expect("sent");
        drop(ours);
        assert!(reading.await.expect("read") == [&b"head"[..], &expected].concat());
    }

    proptest! {
        #[test]
        fn any_bytes_are_texts_or_not(part: Vec<u8>) {
            let _ = texts(&part);
        }
    }
}
