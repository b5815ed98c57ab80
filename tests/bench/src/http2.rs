//! As much of HTTP/2 as a load needs that asks gRPC questions over one connection, and no more: a server on the other core
//! is to be what gives out first, and it would not where the load is a client like any other.
//!
//! What it says of itself and its header lines were said by the h2 crate, into a buffer. Of an answer it sees whether the
//! message allows; status and trailers it does not read, and `probe` asks in both ways. Questions are sent as Envoy sends
//! them: one after the other as long as the server takes them, and one that it cuts short goes on after those that wait.

mod frame;
mod script;

use crate::grpc::Message;
use bytes::{Buf as _, BufMut as _};
use frame::{
    ACK, CANCEL, DATA, END_HEADERS, END_STREAM, FRAME, Frame, GOAWAY, HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, PADDED, PING, RST_STREAM, SETTINGS, WINDOW, WINDOW_UPDATE, head, number,
};
use script::Script;
use std::{
    collections::VecDeque,
    error::Error,
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

/// As many as a load may have under way.
pub const MOST_STREAMS: u32 = 100;
/// Bytes of answers after which the server may send as many again: half of what it may send at first.
const GRANT: usize = 4 << 20;
/// Bytes that are written at once, as by the h2 crate: a server has something to do while the next ones are being made.
const BATCH: usize = 16 << 10;
/// Room for what is read at once, and a frame that is not whole.
const ROOM: usize = 8 * FRAME;
/// Who neither says nor takes anything for so long is not waited for.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The message is one that allows.
    Allowed,
    /// It is another one, or there is none.
    Otherwise,
}

struct Asked {
    stream: u32,
    allowed: bool,
    /// What the caller calls it.
    name: usize,
}

/// A question of which something is still to be sent.
struct Unsent {
    stream: u32,
    question: Message,
    /// What its stream was granted beyond the first window, less what was sent.
    granted: i64,
}

trait Socket: Read + Write {}
impl<S: Read + Write> Socket for S {}

/// A connection that asks.
pub struct Connection {
    socket: Box<dyn Socket>,
    script: Script,
    /// What was read and is no whole frame yet: so much of the room.
    input: Box<[u8]>,
    filled: usize,
    /// What is to be written.
    output: Vec<u8>,
    next: u32,
    asked: Vec<Asked>,
    unsent: VecDeque<Unsent>,
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
                socket.set_read_timeout(PATIENCE)?;
                socket.set_write_timeout(PATIENCE)?;
                Box::new(socket)
            }
            None => {
                let socket = TcpStream::connect(target)?;
                socket.set_read_timeout(PATIENCE)?;
                socket.set_write_timeout(PATIENCE)?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
        };
        let script = Script::of_h2()?;
        let mut connection = Self {
            socket,
            input: vec![0; ROOM].into(),
            filled: 0,
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
        // What a stream may bring is known before anything is asked.
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
        self.unsent.push_back(Unsent { stream, question, granted: 0 });
        self.send()
    }

    /// Writes what may be sent and was not yet.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.write()
    }

    fn send(&mut self) -> io::Result<()> {
        let mut at = 0;
        while self.window > 0
            && let Some(unsent) = self.unsent.get_mut(at)
        {
            let left = unsent.question.remaining();
            let may = usize::try_from(self.window.min(self.of_streams + unsent.granted)).unwrap_or_default();
            let count = left.min(may).min(self.frame);
            if count == 0 {
                at += 1;
                continue;
            }
            head(&mut self.output, count, DATA, if count == left { END_STREAM } else { 0 }, unsent.stream);
            self.output.put((&mut unsent.question).take(count));
            let sent = i64::try_from(count).unwrap_or(i64::MAX);
            self.window -= sent;
            unsent.granted -= sent;
            if count == left {
                self.unsent.remove(at);
            } else if self.window == 0 {
                let cut_short = self.unsent.remove(at);
                self.unsent.extend(cut_short);
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
        let read = self.socket.read(&mut self.input[self.filled..])?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        self.filled += read;
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..self.filled];
        let mut heeded = Ok(());
        while heeded.is_ok()
            && let Some(frame) = Frame::first_of(rest)
        {
            rest = &rest[frame.length()..];
            heeded = self.heed(&frame, &mut answered);
        }
        let whole = self.filled - rest.len();
        self.input = input;
        self.input.copy_within(whole..self.filled, 0);
        self.filled -= whole;
        if self.filled == ROOM {
            return Err("a longer frame than may be".into());
        }
        heeded
    }

    fn heed(&mut self, frame: &Frame<'_>, answered: &mut impl FnMut(usize, Answered)) -> Result<(), Box<dyn Error>> {
        match frame.kind {
            DATA => self.take(frame)?,
            SETTINGS if !frame.has(ACK) => self.learn(frame)?,
            PING if !frame.has(ACK) => {
                head(&mut self.output, frame.payload.len(), PING, ACK, 0);
                self.output.extend_from_slice(frame.payload);
            }
            WINDOW_UPDATE if frame.stream == 0 => self.window += frame.number(),
            WINDOW_UPDATE => {
                if let Some(unsent) = self.unsent.iter_mut().find(|unsent| unsent.stream == frame.stream) {
                    unsent.granted += frame.number();
                }
            }
            GOAWAY => return Err("the server wants no more".into()),
            _ => {}
        }
        let ended = matches!(frame.kind, DATA | HEADERS) && frame.has(END_STREAM);
        if ended || frame.kind == RST_STREAM {
            self.end(frame.stream, ended, answered);
        }
        Ok(())
    }

    /// Looks at an answer, and lets the server go on.
    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Box<dyn Error>> {
        if frame.has(PADDED) {
            return Err("a frame with padding".into());
        }
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.stream == frame.stream) {
            asked.allowed = allows(frame.payload);
        }
        self.taken += frame.payload.len();
        if self.taken >= GRANT {
            number(&mut self.output, WINDOW_UPDATE, 0, u32::try_from(self.taken)?);
            self.taken = 0;
        }
        Ok(())
    }

    fn learn(&mut self, frame: &Frame<'_>) -> Result<(), Box<dyn Error>> {
        for (name, value) in frame.settings() {
            match name {
                HEADER_TABLE_SIZE => return Err("a table of header lines of another size".into()),
                MAX_CONCURRENT_STREAMS if value < MOST_STREAMS => {
                    return Err("fewer streams than may be asked for".into());
                }
                INITIAL_WINDOW_SIZE => self.of_streams = value.into(),
                MAX_FRAME_SIZE => self.frame = usize::try_from(value)?,
                _ => {}
            }
        }
        head(&mut self.output, 0, SETTINGS, ACK, 0);
        self.greeted = true;
        Ok(())
    }

    fn end(&mut self, stream: u32, well: bool, answered: &mut impl FnMut(usize, Answered)) {
        if let Some(at) = self.unsent.iter().position(|unsent| unsent.stream == stream) {
            // The answer came before the end of the question, which is of no use any more.
            self.unsent.remove(at);
            if well {
                number(&mut self.output, RST_STREAM, stream, CANCEL);
            }
        }
        if let Some(at) = self.asked.iter().position(|asked| asked.stream == stream) {
            let Asked { allowed, name, .. } = self.asked.swap_remove(at);
            answered(name, if well && allowed { Answered::Allowed } else { Answered::Otherwise });
        }
    }
}

/// Whether a message, in one frame, is a status of zero and then an `OkHttpResponse`. Fields in another order are taken for
/// something else, which ends a load.
fn allows(answer: &[u8]) -> bool {
    const OK_RESPONSE: u8 = 3 << 3 | 2;
    // Zero may be written, or left out.
    const STATUS: [&[u8]; 2] = [&[1 << 3 | 2, 0], &[1 << 3 | 2, 2, 1 << 3, 0]];
    let message = answer.get(5..).unwrap_or_default();
    STATUS.iter().any(|status| message.strip_prefix(*status).and_then(<[u8]>::first) == Some(&OK_RESPONSE))
}
