//! Asks as one worker of Envoy's does: many questions at once over one HTTP/2 connection, each a delivery that was never
//! there before, of 25 header lines, correctly signed.
//!
//!     load TARGET PID STREAMS BODY SECONDS [SIGNATURES]
//!
//! SIGNATURES is a file that `signatures` made; without it they are GitHub's.
//!
//! Prints one line of JSON: how many checks were answered, in how long, what they cost the server in CPU time of all its
//! threads (from /proc, so the kernel's part is in it), and the latency as the client saw it.
//!
//! With `-` for SECONDS it goes on until its standard input ends, and prints a line when it is under way.

use bench::{
    deliveries::Deliveries,
    grpc::Questions,
    http2::{Answered, Connection, MOST_STREAMS},
    process::Family,
    tally::{Tally, WARM_UP},
};
use std::{
    error::Error,
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([target, pid, streams, body, seconds], signatures) = (match arguments.as_slice() {
        [rest @ .., signatures] if rest.len() == 5 => (rest, Some(signatures)),
        all => (all, None),
    }) else {
        return Err("usage: load TARGET PID STREAMS BODY SECONDS [SIGNATURES]".into());
    };
    let (pid, streams, body): (u32, usize, usize) = (pid.parse()?, streams.parse()?, body.parse()?);
    let seconds = if seconds == "-" { None } else { Some(Duration::from_secs_f64(seconds.parse()?)) };
    let deliveries = match signatures {
        Some(file) => Deliveries::with(body, &std::fs::read_to_string(file)?)?,
        None => Deliveries::new(body),
    };
    if u32::try_from(streams)? > MOST_STREAMS {
        return Err("more streams than every server takes".into());
    }
    let questions = Questions::about(deliveries);
    let (mut connection, tally, mut wrong) = (Connection::new(target)?, Tally::default(), 0);
    let over = Arc::new(AtomicBool::new(false));
    let mut begun = vec![Instant::now(); streams];
    let mut idle: Vec<usize> = (0..streams).collect();
    let (server, warm) = (Family::of(pid), Instant::now() + WARM_UP);
    let mut before = None;
    // A server of which more than a hundred answers are wrong is asked no more.
    while wrong <= 100 {
        for stream in idle.drain(..) {
            let question = questions.question(tally.number());
            begun[stream] = Instant::now();
            connection.ask(stream, question)?;
        }
        connection.flush()?;
        connection.read(|stream, answer| {
            tally.answered(begun[stream]);
            wrong += usize::from(answer != Answered::Allowed);
            idle.push(stream);
        })?;
        let now = Instant::now();
        match (before, seconds) {
            (None, _) if now >= warm => {
                before = Some((server.spent(), Instant::now()));
                tally.begin();
                if seconds.is_none() {
                    println!("under way");
                    once_nobody_writes(&over);
                }
            }
            (Some((_, begun)), Some(seconds)) if now - begun >= seconds => break,
            (Some(_), None) if over.load(Ordering::Relaxed) => break,
            _ => {}
        }
    }
    let (before, begun) = before.ok_or("too many wrong answers to begin")?;
    let (spent, elapsed) = (server.spent().saturating_sub(before), begun.elapsed().as_secs_f64());
    let measured = tally.measured();
    println!(
        r#"{{"checks":{},"seconds":{elapsed},"cpu_ns":{spent},"p50_us":{},"p99_us":{},"wrong":{wrong}}}"#,
        measured.count, measured.p50, measured.p99,
    );
    Ok(())
}

/// Says so when the standard input has ended.
fn once_nobody_writes(over: &Arc<AtomicBool>) {
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        over.store(true, Ordering::Relaxed);
    });
}
