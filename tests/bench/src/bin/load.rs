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
    grpc::{Answer, Questions, ask, connect},
    process::Family,
    tally::{Tally, WARM_UP},
};
use std::{
    cell::Cell,
    error::Error,
    io::Read as _,
    rc::Rc,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let sender = connect(target).await?;
        let (questions, tally, wrong) =
            (Rc::new(Questions::about(deliveries)), Rc::new(Tally::default()), Rc::new(Cell::new(0)));
        for _ in 0..streams {
            let (mut sender, questions, tally, wrong) =
                (sender.clone(), Rc::clone(&questions), Rc::clone(&tally), Rc::clone(&wrong));
            tokio::task::spawn_local(async move {
                while !tally.is_over() {
                    let question = questions.question(tally.number());
                    let begun = Instant::now();
                    if !matches!(ask(&mut sender, question).await, Ok(Answer::Allowed)) {
                        wrong.set(wrong.get() + 1);
                        // A server that is gone is asked no more.
                        if wrong.get() > 100 {
                            return;
                        }
                    }
                    tally.answered(begun);
                }
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let server = Family::of(pid);
        let (spent, begun) = (server.spent(), Instant::now());
        tally.begin();
        match seconds {
            Some(seconds) => tokio::time::sleep(seconds).await,
            None => {
                println!("under way");
                tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
            }
        }
        tally.end();
        let (spent, elapsed) = (server.spent().saturating_sub(spent), begun.elapsed().as_secs_f64());
        let (measured, wrong) = (tally.measured(), wrong.get());
        println!(
            r#"{{"checks":{},"seconds":{elapsed},"cpu_ns":{spent},"p50_us":{},"p99_us":{},"wrong":{wrong}}}"#,
            measured.count, measured.p50, measured.p99,
        );
        Ok(())
    })
}
