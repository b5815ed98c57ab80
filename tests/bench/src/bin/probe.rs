//! What a server makes of a delivery that is correctly signed, and of one with another's signature.
//!
//!     probe TARGET [BODY SIGNATURES]
//!
//! BODY and SIGNATURES are as `load` takes them. Both are asked twice: as any client asks, whose answers are read in full and
//! told, and as `load` does, which has to come to the same.

use bench::{
    deliveries::Deliveries,
    grpc::{Answer, Questions, ask, connect},
    http2::{Answered, Connection},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, deliveries) = match arguments.as_slice() {
        [target] => (target, Deliveries::new(0)),
        [target, body, file] => (target, Deliveries::with(body.parse()?, &std::fs::read_to_string(file)?)?),
        _ => return Err("usage: probe TARGET [BODY SIGNATURES]".into()),
    };
    let questions = Questions::about(deliveries);
    // Numbers that no load comes to, unless signatures were made beforehand: then a server is probed or loaded, not both.
    let right = |number| questions.question(u64::MAX - number);
    let wrong = |number| questions.with_the_signature_of(u64::MAX, u64::MAX - number);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut sender = connect(target).await?;
        Ok::<_, Box<dyn std::error::Error>>([ask(&mut sender, right(0)).await?, ask(&mut sender, wrong(1)).await?])
    })?;
    let mut connection = Connection::new(target)?;
    for (question, told) in [right(2), wrong(3)].into_iter().zip(&told) {
        connection.ask(0, question)?;
        let mut seen = None;
        while seen.is_none() {
            connection.flush()?;
            connection.read(|_, answer| seen = Some(answer == Answered::Allowed))?;
        }
        if seen != Some(*told == Answer::Allowed) {
            return Err(format!("a load would not see that the answer is {told}").into());
        }
    }
    let [right, wrong] = told;
    println!(r#"{{"right":"{right}","wrong":"{wrong}"}}"#);
    Ok(())
}
