//! What a server makes of a delivery that is correctly signed, and of one with another's signature.
//!
//!     probe TARGET

use bench::grpc::{Questions, ask, connect};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).ok_or("usage: probe TARGET")?;
    let questions = Questions::new(0);
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut sender = connect(&target).await?;
            // Numbers that no load comes to.
            let right = ask(&mut sender, questions.question(u64::MAX)).await?;
            let wrong = ask(&mut sender, questions.with_the_signature_of(u64::MAX, u64::MAX - 1)).await?;
            println!(r#"{{"right":"{right}","wrong":"{wrong}"}}"#);
            Ok(())
        })
        .await
}
