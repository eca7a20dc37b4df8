//! Frames to and from a worker on the supervisor's side. What comes from a worker is untrusted: sizes
//! are capped before memory is reserved, and an answer must agree with itself.

use std::io;

use bytes::{Bytes, BytesMut};
use serin_protocol::frame::{
    PREFIX_BYTES, Prefix, WorkerRequest, WorkerResponse, decode_header, encode_head,
};
use serin_protocol::manifest::MAX_TENSORS;
use serin_protocol::tensor::{DataType, TensorHeader, split_body};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::engine::MAX_ROWS;

/// A request of these inputs whose size and headers agree; the worker judges everything else.
pub(super) fn request_head(request: u64, inputs: Vec<TensorHeader>, body: &[u8]) -> Result<Vec<u8>, String> {
    if let Some(input) = inputs.iter().find(|input| !input.is_consistent()) {
        return Err(format!("input {}: {} bytes do not fit its shape", input.name, input.bytes));
    }
    if split_body(&inputs, body).is_none() {
        return Err("the inputs do not use up the body exactly".into());
    }
    encode_head(&WorkerRequest::Infer { request, inputs }, body.len()).map_err(|error| error.to_string())
}

/// Sends a frame; the body goes out as it lies in memory.
pub(super) async fn send(socket: &mut UnixStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    socket.write_all(head).await?;
    socket.write_all(body).await
}

/// Receives a frame. The memory for its body is zero pages of the system until bytes arrive, so that a
/// worker cannot make its supervisor bloat by announcing much.
pub(super) async fn receive(socket: &mut UnixStream) -> io::Result<(WorkerResponse, Bytes)> {
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
        WorkerResponse::Inferred { outputs, predictions, .. } => {
            if outputs.len() > MAX_TENSORS || predictions.len() > MAX_ROWS {
                return Err("more outputs or predictions than there can be".into());
            }
            let parts = split_body(outputs, body).ok_or("the outputs do not use up the body exactly")?;
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

fn is_sound(output: &TensorHeader, part: &[u8]) -> bool {
    match output.datatype {
        DataType::Fp32 | DataType::Int64 => output.is_consistent(),
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
        WorkerResponse::Inferred { request: 1, micros: 1, outputs: vec![output], predictions: vec![] }
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
        let failed = WorkerResponse::Ready(Ready {
            load_micros: 1,
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
        assert!(request_head(1, vec![header(DataType::Fp32, &[1, 2], 8)], &[0; 8]).is_ok());
        assert!(request_head(1, vec![header(DataType::Fp32, &[1, 2], 4)], &[0; 4]).is_err());
        assert!(request_head(1, vec![header(DataType::Fp32, &[1, 2], 8)], &[0; 12]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_texts_or_not(part: Vec<u8>) {
            let _ = texts(&part);
        }
    }
}
