//! As much of HTTP/1.1 as a load and a trivial application need, and no more: what it costs is taken from whoever is
//! measured on the same machine.

use std::io;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const MAX_HEAD: usize = 64 << 10;

/// A connection, and what was read of it beyond the last message.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(MAX_HEAD) })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads a message to its end and returns its first line; nothing where the other side has closed instead. A body is
    /// as long as `content-length` says, and not looked at.
    pub async fn message(&mut self) -> io::Result<Option<String>> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > MAX_HEAD {
                return Err(io::Error::other("a head that does not end"));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return if self.read.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let head = std::str::from_utf8(&self.read[..end]).map_err(io::Error::other)?;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut length = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(io::Error::other("a body without a length"));
            }
        }
        let mut left: usize = (end + 4 + length).saturating_sub(self.read.len());
        if left == 0 {
            self.read.drain(..end + 4 + length);
            return Ok(Some(first));
        }
        while left > 0 {
            self.read.clear();
            match self.stream.read_buf(&mut self.read).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more if more > left => {
                    self.read.drain(..left);
                    return Ok(Some(first));
                }
                more => left -= more,
            }
        }
        self.read.clear();
        Ok(Some(first))
    }
}
