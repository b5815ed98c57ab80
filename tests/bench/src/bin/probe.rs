//! What a server makes of a delivery that is correctly signed, and of one with another's signature.
//!
//!     probe TARGET [BODY SIGNATURES]
//!
//! BODY and SIGNATURES are as `load` takes them.

use bench::{
    deliveries::Deliveries,
    grpc::{Questions, ask, connect},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, deliveries) = match arguments.as_slice() {
        [target] => (target, Deliveries::new(0)),
        [target, body, file] => (target, Deliveries::with(body.parse()?, &std::fs::read_to_string(file)?)?),
        _ => return Err("usage: probe TARGET [BODY SIGNATURES]".into()),
    };
    let questions = Questions::about(deliveries);
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut sender = connect(target).await?;
            // Numbers that no load comes to, unless signatures were made beforehand: then a server is probed or loaded, not both.
            let right = ask(&mut sender, questions.question(u64::MAX)).await?;
            let wrong = ask(&mut sender, questions.with_the_signature_of(u64::MAX, u64::MAX - 1)).await?;
            println!(r#"{{"right":"{right}","wrong":"{wrong}"}}"#);
            Ok(())
        })
        .await
}
