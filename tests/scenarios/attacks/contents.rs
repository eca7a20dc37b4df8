//! Contents: wrong, missing, late, endless, or with something else in them.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use rumqttc::{Client, Event, Incoming, MqttOptions};
use serin_protocol::bundle::TRAILER;
use serin_protocol::chunk::CHUNK_BYTES;
use serin_tests::adversary::{Adversary, Packed, VICTIM};

#[test]
fn a_chunk_that_is_wrong_too_large_or_dropped_holds_nothing_up_but_itself() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let second = adversary.v2.clone();
    adversary.say_statement(&second)?;
    let list = second.release.chunk_list.digest;
    adversary.say_chunk(list, 0, &second.chunk_list)?;
    let bundle = second.release.bundle.digest;
    let mut wrong = second.bundle.clone();
    wrong[100] ^= 1;
    adversary.say_chunk(bundle, 0, &wrong)?;
    adversary.list(&second);
    adversary.repository.release();
    adversary.publish()?;
    adversary.assign(&second)?;
    adversary.until_told(&["refused", "chunk", "its hash is not the signed one"])?;
    adversary.say_chunk(bundle, 0, &vec![7; 62 * 1024])?;
    adversary.until_told(&["refused", "chunk", "at most 61440 are allowed"])?;
    // Nothing at all: the device asks for it.
    adversary.say_chunk(bundle, 0, b"")?;
    adversary.until_told(&["chunks_missing"])?;
    adversary.still_runs_v1()?;
    adversary.say_chunk(bundle, 0, &second.bundle)?;
    adversary.until_runs("2.0.0")
}

#[test]
fn slow_retrieval_ends() -> Result<()> {
    let mut adversary = Adversary::begin_with("broker.patience = '3s'", None)?;
    let second = adversary.v2.clone();
    adversary.say_statement(&second)?;
    adversary.say_chunk(second.release.chunk_list.digest, 0, &second.chunk_list)?;
    adversary.list(&second);
    adversary.repository.release();
    adversary.publish()?;
    adversary.refuses_v2(&["slow retrieval: 0 bytes came within 3 s, 3072 are due"])?;
    adversary.accepts_v2()
}

#[test]
fn a_broker_that_drips_is_given_up_however_often_it_cuts_the_connection() -> Result<()> {
    let lines = "broker.patience = '5s'\nbroker.slowest = '1MiB'";
    let mut adversary = Adversary::begin_with(lines, None)?;
    // Its contents do not matter: it never is here whole.
    let contents = (0..40 * CHUNK_BYTES as u32).map(|at| (at / CHUNK_BYTES as u32) as u8).collect();
    let dripped = adversary.v2.clone().containing(contents);
    adversary.say_statement(&dripped)?;
    adversary.say_chunk(dripped.release.chunk_list.digest, 0, &dripped.chunk_list)?;
    adversary.list(&dripped);
    adversary.repository.release();
    adversary.publish()?;
    adversary.assign(&dripped)?;
    let told = |adversary: &Adversary| {
        let heard = adversary.heard();
        heard.iter().any(|event| event.contains("slow retrieval: ") && event.contains("within 5 s"))
    };
    let bundle = dripped.release.bundle.digest;
    for (index, chunk) in (0..).zip(dripped.bundle.chunks(CHUNK_BYTES)) {
        if told(&adversary) {
            break;
        }
        adversary.say_chunk(bundle, index, chunk)?;
        if index % 3 == 2 {
            take_its_place(adversary.provision().mqtt)?;
        }
        // What it is about: a chunk now and then.
        std::thread::sleep(Duration::from_secs(1));
    }
    adversary.until_told(&["2.0.0", "rejected", "slow retrieval: ", "within 5 s"])?;
    adversary.still_runs_v1()
}

/// Connects in the victim's name, which ends its own connection.
fn take_its_place(port: u16) -> Result<()> {
    let (_client, mut connection) = Client::new(MqttOptions::new(VICTIM, "127.0.0.1", port), 10);
    for event in connection.iter() {
        if let Event::Incoming(Incoming::ConnAck(_)) = event? {
            break;
        }
    }
    Ok(())
}

/// An owner's release whose bundle is something else.
fn refused(adversary: &mut Adversary, bundle: Vec<u8>, why: &str) -> Result<()> {
    let packed = adversary.v2.clone().containing(bundle);
    // Another version each time: a version is never changed.
    let version = format!("2.0.{}", adversary.sequence);
    let packed = packed.stating(|release| release.id.version = version.parse().expect("a name"));
    adversary.release(&packed)?;
    adversary.assign(&packed)?;
    adversary.until_told(&[&version, "rejected", why])?;
    adversary.still_runs_v1()
}

fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok(zstd::encode_all(bytes, 3)?)
}

/// The container of a bundle and where each file of it begins.
fn container(packed: &Packed) -> Result<(Vec<u8>, Vec<usize>)> {
    let tar = zstd::decode_all(packed.bundle.as_slice())?;
    let (mut starts, mut at) = (Vec::new(), 0);
    while tar[at] != 0 {
        starts.push(at);
        let size = std::str::from_utf8(&tar[at + 124..at + 135])?;
        let size = usize::from_str_radix(size, 8)?;
        at += 512 + size.div_ceil(512) * 512;
    }
    starts.push(at);
    Ok((tar, starts))
}

/// The same file under another name, its header's checksum right.
fn renamed(file: &[u8], name: &str) -> Vec<u8> {
    let mut file = file.to_vec();
    file[..100].fill(0);
    file[..name.len()].copy_from_slice(name.as_bytes());
    file[148..156].fill(b' ');
    let sum: u32 = file[..512].iter().map(|byte| u32::from(*byte)).sum();
    file[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    file
}

#[test]
fn a_bundle_holds_exactly_its_files_or_is_refused() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    let (tar, starts) = container(&adversary.v2)?;
    let file = |at: usize| &tar[starts[at]..starts[at + 1]];
    let files = starts.len() - 1;
    let end = vec![0; TRAILER];

    let without_last = [&tar[..starts[files - 1]], &end].concat();
    refused(&mut adversary, compressed(&without_last)?, "bad_bundle")?;
    let one_more = [&tar[..starts[files]], &renamed(file(1), "zzz.bin"), &end].concat();
    refused(&mut adversary, compressed(&one_more)?, "bad_bundle")?;
    let outside = [file(0), &renamed(file(1), "../../evil"), &tar[starts[2]..]].concat();
    refused(&mut adversary, compressed(&outside)?, "bad_bundle")?;
    let twice = [&tar[..starts[2]], file(1), &tar[starts[2]..]].concat();
    refused(&mut adversary, compressed(&twice)?, "bad_bundle")?;
    let cut = adversary.v2.bundle[..adversary.v2.bundle.len() / 2].to_vec();
    refused(&mut adversary, cut, "bad_bundle")?;
    let evil = adversary.folder().join("evil");
    assert!(!evil.exists());
    Ok(())
}

#[test]
fn a_bundle_that_never_stops_unpacking_is_cut_off() -> Result<()> {
    let mut adversary = Adversary::begin()?;
    // Two gigabytes of zeros behind an honest beginning, in some tens of kilobytes.
    let (tar, starts) = container(&adversary.v2)?;
    let mut bomb = zstd::Encoder::new(Vec::new(), 19)?;
    bomb.write_all(&tar[..starts[1]])?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..2048 {
        bomb.write_all(&zeros)?;
    }
    refused(&mut adversary, bomb.finish()?, "bad_bundle")
}
