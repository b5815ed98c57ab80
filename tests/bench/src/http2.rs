//! As much of HTTP/2 as a load needs that asks gRPC questions over one connection, and no more: a server on the other core
//! is to be what gives out first, and the load is no cheaper than what it measures if it is a client like any other.
//!
//! What it says of itself and its header lines were said by the h2 crate, into a buffer: the first time in full and ever
//! after by their numbers in the table of both ends. Of an answer it sees whether it allows; `probe` reads answers in full.
//! Questions are sent one after the other as Envoy does, which writes a request as soon as it is whole.

use crate::grpc::{Message, call};
use bytes::Buf as _;
use std::{
    collections::VecDeque,
    error::Error,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};
use tokio::io::AsyncReadExt as _;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of `DATA` and `HEADERS`.
const END_STREAM: u8 = 1;
/// Of `HEADERS`.
const END_HEADERS: u8 = 4;
/// Of `SETTINGS` and `PING`.
const ACK: u8 = 1;
const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// What a frame may have, and a window, where the other end says nothing (RFC 9113, sections 6.5.2 and 6.9.2).
const FRAME: usize = 16 << 10;
const WINDOW: i64 = 65_535;
/// Bytes of answers after which the server may send as many again: half of what it may send at first.
const GRANT: usize = 4 << 20;
/// Bytes that are written at once, as by the h2 crate: a server has something to do while the next ones are being made.
const BATCH: usize = 16 << 10;
/// Who says nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client says whose questions are all of one kind.
struct Script {
    /// Before any question.
    opening: Vec<u8>,
    /// Header lines of the first question, and of all others.
    first: Vec<u8>,
    others: Vec<u8>,
}

impl Script {
    /// Has the h2 crate say it.
    fn of_h2() -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let said = tokio::task::LocalSet::new().block_on(&runtime, async {
            let (near, mut far) = tokio::io::duplex(FRAME);
            let mut sender = crate::grpc::handshake(near).await?;
            let mut said = Vec::new();
            let mut calls = Vec::new();
            for _ in 0..3 {
                let asked = said.len();
                calls.push(call(&mut sender).await?);
                // Frame by frame, until the question is there.
                while said.len() == asked || !ends_with_headers(&said) {
                    far.read_buf(&mut said).await?;
                }
            }
            Ok::<_, Box<dyn Error>>(said)
        })?;
        let mut rest = said.strip_prefix(PREFACE).ok_or("no preface")?;
        let (mut opening, mut asked) = (PREFACE.to_vec(), Vec::new());
        while let Some(frame) = Frame::first_of(rest) {
            match frame.kind {
                HEADERS => asked.push(frame.payload.to_vec()),
                _ => opening.extend_from_slice(&rest[..frame.length()]),
            }
            rest = &rest[frame.length()..];
        }
        let [first, others, again] = asked.try_into().map_err(|_| "three questions have three heads")?;
        if others != again {
            return Err("header lines that are different every time".into());
        }
        Ok(Self { opening, first, others })
    }
}

fn ends_with_headers(said: &[u8]) -> bool {
    let mut rest = said.strip_prefix(PREFACE).unwrap_or_default();
    let mut last = None;
    while let Some(frame) = Frame::first_of(rest) {
        (last, rest) = (Some(frame.kind), &rest[frame.length()..]);
    }
    rest.is_empty() && last == Some(HEADERS)
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of these bytes, if it is whole.
    fn first_of(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let payload = rest.get(..usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?)?;
        Some(Self { kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31), payload })
    }

    fn length(&self) -> usize {
        HEAD + self.payload.len()
    }

    fn number(&self) -> i64 {
        self.payload.first_chunk().map_or(0, |four| i64::from(u32::from_be_bytes(*four)))
    }
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    Allowed,
    Otherwise,
}

struct Asked {
    stream: u32,
    allowed: bool,
    /// What the caller calls it.
    name: usize,
}

trait Socket: Read + Write {}
impl<S: Read + Write> Socket for S {}

/// A connection that asks.
pub struct Connection {
    socket: Box<dyn Socket>,
    script: Script,
    /// What was read and is no whole frame yet.
    input: Vec<u8>,
    /// What is to be written.
    output: Vec<u8>,
    next: u32,
    asked: Vec<Asked>,
    /// Questions of which something is still to be sent, and what their streams were granted beyond the first window.
    unsent: VecDeque<(u32, Message, i64)>,
    /// What may be sent on the connection, on a new stream, and in one frame.
    window: i64,
    of_streams: i64,
    frame: usize,
    /// Bytes of answers since the server was told to go on.
    taken: usize,
    /// Whether it said what it takes.
    greeted: bool,
}

impl Connection {
    /// Connects to `unix:PATH` or to an address.
    pub fn new(target: &str) -> Result<Self, Box<dyn Error>> {
        let socket: Box<dyn Socket> = match target.strip_prefix("unix:") {
            Some(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                Box::new(socket)
            }
            None => {
                let socket = TcpStream::connect(target)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
        };
        let script = Script::of_h2()?;
        let mut connection = Self {
            socket,
            input: Vec::with_capacity(8 * FRAME),
            output: script.opening.clone(),
            script,
            next: 1,
            asked: Vec::new(),
            unsent: VecDeque::new(),
            window: WINDOW,
            of_streams: WINDOW,
            frame: FRAME,
            taken: 0,
            greeted: false,
        };
        // Its windows are known before anything is asked.
        connection.flush()?;
        while !connection.greeted {
            connection.read(|_, _| {})?;
        }
        Ok(connection)
    }

    /// Asks. What is not sent with others that came before is sent by the next [`flush`](Self::flush).
    pub fn ask(&mut self, name: usize, question: Message) -> io::Result<()> {
        let stream = self.next;
        self.next += 2;
        let lines = if stream == 1 { &self.script.first } else { &self.script.others };
        head(&mut self.output, lines.len(), HEADERS, END_HEADERS, stream);
        self.output.extend_from_slice(lines);
        self.asked.push(Asked { stream, allowed: false, name });
        self.unsent.push_back((stream, question, 0));
        self.send()
    }

    /// Writes what may be sent and was not yet.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.write()
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some((stream, question, granted)) = self.unsent.front_mut() {
            let left = question.remaining();
            let may = usize::try_from(self.window.min(self.of_streams + *granted)).unwrap_or_default();
            let count = left.min(may).min(self.frame);
            if count == 0 {
                break;
            }
            head(&mut self.output, count, DATA, if count == left { END_STREAM } else { 0 }, *stream);
            let begin = self.output.len();
            self.output.resize(begin + count, 0);
            question.copy_to_slice(&mut self.output[begin..]);
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.window -= count;
            *granted -= count;
            if !question.has_remaining() {
                self.unsent.pop_front();
            }
            if self.output.len() >= BATCH {
                self.write()?;
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// Reads what has come, with one call, and says what was answered.
    pub fn read(&mut self, mut answered: impl FnMut(usize, Answered)) -> Result<(), Box<dyn Error>> {
        let begin = self.input.len();
        self.input.resize(self.input.capacity().max(begin + FRAME), 0);
        let read = self.socket.read(&mut self.input[begin..])?;
        self.input.truncate(begin + read);
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some(frame) = Frame::first_of(rest) {
            rest = &rest[frame.length()..];
            self.heed(&frame, &mut answered)?;
        }
        let whole = input.len() - rest.len();
        self.input = input;
        self.input.drain(..whole);
        Ok(())
    }

    fn heed(&mut self, frame: &Frame<'_>, answered: &mut impl FnMut(usize, Answered)) -> Result<(), Box<dyn Error>> {
        let at = self.asked.iter().position(|asked| asked.stream == frame.stream);
        match frame.kind {
            DATA => {
                if let Some(at) = at {
                    self.asked[at].allowed = allows(frame.payload);
                }
                self.taken += frame.payload.len();
                if self.taken >= GRANT {
                    head(&mut self.output, 4, WINDOW_UPDATE, 0, 0);
                    self.output.extend_from_slice(&u32::try_from(self.taken)?.to_be_bytes());
                    self.taken = 0;
                }
            }
            SETTINGS if frame.flags & ACK == 0 => {
                for setting in frame.payload.chunks_exact(6) {
                    let (name, value) = (u16::from_be_bytes([setting[0], setting[1]]), &setting[2..]);
                    let value = value.first_chunk().map_or(0, |four| u32::from_be_bytes(*four));
                    match name {
                        HEADER_TABLE_SIZE => return Err("a table of header lines of another size".into()),
                        INITIAL_WINDOW_SIZE => self.of_streams = value.into(),
                        MAX_FRAME_SIZE => self.frame = usize::try_from(value)?,
                        _ => {}
                    }
                }
                head(&mut self.output, 0, SETTINGS, ACK, 0);
                self.greeted = true;
            }
            PING if frame.flags & ACK == 0 => {
                head(&mut self.output, frame.payload.len(), PING, ACK, 0);
                self.output.extend_from_slice(frame.payload);
            }
            WINDOW_UPDATE if frame.stream == 0 => self.window += frame.number(),
            WINDOW_UPDATE => {
                if let Some((.., granted)) = self.unsent.iter_mut().find(|(stream, ..)| *stream == frame.stream) {
                    *granted += frame.number();
                }
            }
            GOAWAY => return Err("the server wants no more".into()),
            _ => {}
        }
        let ended = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
        if let Some(at) = at.filter(|_| ended || frame.kind == RST_STREAM) {
            let Asked { allowed, name, .. } = self.asked.swap_remove(at);
            answered(name, if ended && allowed { Answered::Allowed } else { Answered::Otherwise });
        }
        Ok(())
    }
}

fn head(output: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    output.extend_from_slice(&[a, b, c, kind, flags]);
    output.extend_from_slice(&stream.to_be_bytes());
}

/// Whether an answer, in one frame, is a status of zero and then an `OkHttpResponse`. Fields in another order would be taken for
/// a denial, which ends a load, and not the other way round.
fn allows(answer: &[u8]) -> bool {
    const OK_RESPONSE: u8 = 3 << 3 | 2;
    // Zero may be written, or left out.
    const STATUS: [&[u8]; 2] = [&[1 << 3 | 2, 0], &[1 << 3 | 2, 2, 1 << 3, 0]];
    let message = answer.get(5..).unwrap_or_default();
    STATUS.iter().any(|status| message.strip_prefix(*status).and_then(<[u8]>::first) == Some(&OK_RESPONSE))
}
