//! What a client says whose questions are all of one kind, as the h2 crate says it. No socket is touched here.

use super::frame::{FRAME, Frame, HEADERS, PREFACE};
use crate::grpc::{call, handshake};
use std::error::Error;
use tokio::io::AsyncReadExt as _;

pub(super) struct Script {
    /// Before any question.
    pub(super) opening: Vec<u8>,
    /// Header lines of the first question, which both ends put into their tables, and those of all others.
    pub(super) first: Vec<u8>,
    pub(super) others: Vec<u8>,
}

impl Script {
    /// Has the h2 crate say it, to nobody.
    pub(super) fn of_h2() -> Result<Self, Box<dyn Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let said = tokio::task::LocalSet::new().block_on(&runtime, async {
            let (near, mut far) = tokio::io::duplex(FRAME);
            let mut sender = handshake(near).await?;
            let (mut said, mut calls) = (Vec::new(), Vec::new());
            for asked in 1..=3 {
                calls.push(call(&mut sender).await?);
                while frames(&said).filter(|frame| frame.kind == HEADERS).count() < asked {
                    far.read_buf(&mut said).await?;
                }
            }
            Ok::<_, Box<dyn Error>>(said)
        })?;
        let (mut opening, mut asked) = (PREFACE.to_vec(), Vec::new());
        let mut at = PREFACE.len();
        for frame in frames(&said) {
            match frame.kind {
                HEADERS => asked.push(frame.payload.to_vec()),
                _ => opening.extend_from_slice(&said[at..at + frame.length()]),
            }
            at += frame.length();
        }
        let [first, others, again] = asked.try_into().map_err(|_| "three questions have three heads")?;
        if others != again {
            return Err("header lines that are different every time".into());
        }
        Ok(Self { opening, first, others })
    }
}

/// The whole frames after the preface.
fn frames(said: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = said.strip_prefix(PREFACE).unwrap_or_default();
    std::iter::from_fn(move || {
        let frame = Frame::first_of(rest)?;
        rest = &rest[frame.length()..];
        Some(frame)
    })
}
