//! Sends deliveries as GitHub does, over kept HTTP/1.1 connections, each a new one and correctly signed.
//!
//!     http_load ADDRESS PATH CONNECTIONS BODY SECONDS NAME=PID…
//!
//! Prints one line of JSON: how many were answered, in how long, what they cost each of the named processes and its children
//! in CPU time, what memory those hold, the latency as the client saw it, and every status that was not 200, with 0 for a
//! connection that broke.

use bench::{
    deliveries::{Deliveries, NUMBER, Template},
    http1::Connection,
    process::Family,
    tally::{Tally, WARM_UP},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Requests, with places to fill in.
fn template(path: &str, deliveries: &Deliveries) -> Template {
    let (header, signature) = deliveries.line();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\n\
         host: hooks.example.com\r\n\
         user-agent: GitHub-Hookshot/44e9f1c\r\n\
         accept: */*\r\n\
         content-type: application/json\r\n\
         content-length: {}\r\n\
         x-github-delivery: 72d3162e-cc78-11e3-{NUMBER}\r\n\
         x-github-event: push\r\n\
         x-github-hook-id: 292430182\r\n\
         x-github-hook-installation-target-id: 79929171\r\n\
         x-github-hook-installation-target-type: repository\r\n\
         x-hub-signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
         {header}: {signature}\r\n\r\n",
        deliveries.length()
    )
    .into_bytes();
    request.extend_from_slice(deliveries.beginning());
    request.extend_from_slice(deliveries.end().as_bytes());
    Template::new(request, &deliveries.place())
}

/// The status of the answer.
async fn send(connection: &mut Option<Connection>, address: &str, request: &[u8]) -> Result<u16, Box<dyn Error>> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::new(TcpStream::connect(address).await?)?),
    };
    connection.write(request).await?;
    let line = connection.message().await?.ok_or("closed instead of an answer")?;
    Ok(line.split(' ').nth(1).ok_or("no status")?.parse()?)
}

fn json<V: std::fmt::Display>(pairs: impl IntoIterator<Item = (impl std::fmt::Display, V)>) -> String {
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
    format!("{{{}}}", pairs.join(","))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, body, seconds, processes @ ..] = arguments.as_slice() else {
        return Err("usage: http_load ADDRESS PATH CONNECTIONS BODY SECONDS NAME=PID…".into());
    };
    let (connections, body): (usize, usize) = (connections.parse()?, body.parse()?);
    let seconds = Duration::from_secs_f64(seconds.parse()?);
    let mut pids = Vec::new();
    for process in processes {
        let (name, pid) = process.split_once('=').ok_or("a process is NAME=PID")?;
        pids.push((name, pid.parse()?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let deliveries = Rc::new(Deliveries::new(body));
        let template = Rc::new(template(path, &deliveries));
        let (tally, wrong) = (Rc::new(Tally::default()), Rc::new(RefCell::new(BTreeMap::<u16, u64>::new())));
        for _ in 0..connections {
            let (deliveries, template, tally, wrong) =
                (Rc::clone(&deliveries), Rc::clone(&template), Rc::clone(&tally), Rc::clone(&wrong));
            let address = address.clone();
            tokio::task::spawn_local(async move {
                let mut connection = None;
                while !tally.is_over() {
                    let (number, signature) = deliveries.signed(tally.number());
                    let request = template.filled(&number, &signature);
                    let begun = Instant::now();
                    let status = send(&mut connection, &address, &request).await.unwrap_or(0);
                    tally.answered(begun);
                    if status != 200 {
                        let mut wrong = wrong.borrow_mut();
                        *wrong.entry(status).or_default() += 1;
                        // One that is gone is asked no more.
                        if wrong.values().sum::<u64>() > 100 {
                            return;
                        }
                    }
                    if status == 0 {
                        connection = None;
                    }
                }
            });
        }
        tokio::time::sleep(WARM_UP).await;
        let families: Vec<(&str, Family)> = pids.into_iter().map(|(name, pid)| (name, Family::of(pid))).collect();
        let spent = || families.iter().map(|(name, family)| (*name, family.spent())).collect::<Vec<_>>();
        let (before, begun) = (spent(), Instant::now());
        tally.begin();
        tokio::time::sleep(seconds).await;
        tally.end();
        let (after, elapsed) = (spent(), begun.elapsed().as_secs_f64());
        let spent = after.iter().zip(&before).map(|((name, after), (_, before))| (name, after.saturating_sub(*before)));
        let memory = families.iter().map(|(name, family)| (name, family.memory()));
        let measured = tally.measured();
        println!(
            r#"{{"requests":{},"seconds":{elapsed},"p50_us":{},"p99_us":{},"cpu_ns":{},"memory_kb":{},"wrong":{}}}"#,
            measured.count,
            measured.p50,
            measured.p99,
            json(spent),
            json(memory),
            json(wrong.borrow().iter())
        );
        Ok(())
    })
}
