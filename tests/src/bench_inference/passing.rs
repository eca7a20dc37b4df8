//! The least that two processes can take between a client and its answer: one takes the request's bytes off a loopback
//! connection and hands them to the other over a socket pair, whose bytes go back the same way. Nothing is looked at, but the
//! second is busy for as long as a model would be: who waits longer takes longer to wake.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serin_tests::samples::Samples;

use crate::http::{Connection, Question};

/// First argument of the process that clients connect to.
pub(crate) const FRONT: &str = "pass-front";
/// First argument of the process behind it.
pub(crate) const BACK: &str = "pass-back";

/// Both processes, for requests and answers of these sizes.
pub(crate) struct Passing {
    front: Child,
    pub(crate) question: Question,
    busy: Duration,
}

impl Passing {
    /// For requests like `question`, answered with `answer` bytes of body after being `busy`.
    pub(crate) fn start(question: &Question, answer: usize, busy: Duration) -> Result<Self> {
        // The address is part of the request: ports of five digits make it as long.
        let request = question.request().len();
        let mut command = Command::new(std::env::current_exe()?);
        command.args([FRONT, &request.to_string(), &answer.to_string(), &busy.as_micros().to_string()]);
        let mut front = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(front.stdout.take().context("no output")?).read_line(&mut line)?;
        let mut question = question.clone();
        let length = question.address.len();
        question.address = format!("127.0.0.1:{}", line.trim());
        anyhow::ensure!(length == question.address.len(), "a port of another length: try again");
        Ok(Self { front, question, busy })
    }

    /// The median of `runs` requests after `warm_up`, without the time the second process was busy.
    pub(crate) fn median(&self, warm_up: usize, runs: usize) -> Result<Duration> {
        let mut connection = Connection::open(&self.question)?;
        let mut samples = Samples::default();
        for at in 0..warm_up + runs {
            let took = connection.ask()?;
            if at >= warm_up {
                samples.push(took);
            }
        }
        Ok(samples.quantile(50).saturating_sub(self.busy))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = self.front.kill();
        let _ = self.front.wait();
    }
}

fn sizes(arguments: &[String]) -> Result<(usize, Vec<u8>)> {
    let [_, _, request, answer, _] = arguments else { anyhow::bail!("sizes of request and answer") };
    let answer: usize = answer.parse()?;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {answer}\r\n\r\n");
    Ok((request.parse()?, [head.into_bytes(), vec![b' '; answer]].concat()))
}

/// Says its port, then passes bytes on from one connection after the other.
pub(crate) fn front(arguments: &[String]) -> Result<()> {
    let (request, answer) = sizes(arguments)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let (mut near, far) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([BACK.to_owned()]).args(arguments.iter().skip(2)).stdin(Stdio::from(OwnedFd::from(far)));
    let mut back = command.spawn()?;
    println!("{}", listener.local_addr()?.port());
    let (mut question, mut reply) = (vec![0; request], vec![0; answer.len()]);
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        while stream.read_exact(&mut question).is_ok() {
            near.write_all(&question)?;
            near.read_exact(&mut reply)?;
            stream.write_all(&reply)?;
        }
    }
    back.wait()?;
    Ok(())
}

/// Answers what comes on its standard input, a socket, there.
pub(crate) fn back(arguments: &[String]) -> Result<()> {
    let (request, answer) = sizes(arguments)?;
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut question = vec![0; request];
    let busy = Duration::from_micros(arguments.last().context("how long it is busy")?.parse()?);
    while socket.read_exact(&mut question).is_ok() {
        let begun = Instant::now();
        while begun.elapsed() < busy {
            std::hint::spin_loop();
        }
        socket.write_all(&answer)?;
    }
    Ok(())
}
