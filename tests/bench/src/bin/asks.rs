//! Asks so many questions and no more, so that what they cost can be counted.
//!
//!     asks TARGET STREAMS BODY COUNT
//!
//! The questions are those of `load`. Ends with an error if one of them is not answered with an allow.

use bench::grpc::{Answer, Questions, ask, connect};
use std::{cell::Cell, error::Error, rc::Rc};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, streams, body, count] = arguments.as_slice() else {
        return Err("usage: asks TARGET STREAMS BODY COUNT".into());
    };
    let (streams, body, count): (usize, usize, u64) = (streams.parse()?, body.parse()?, count.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let sender = connect(target).await?;
        let (questions, next) = (Rc::new(Questions::new(body)), Rc::new(Cell::new(0)));
        let asking: Vec<_> = (0..streams)
            .map(|_| {
                let (mut sender, questions, next) = (sender.clone(), Rc::clone(&questions), Rc::clone(&next));
                tokio::task::spawn_local(async move {
                    while next.get() < count {
                        let number = next.replace(next.get() + 1);
                        match ask(&mut sender, questions.question(number)).await {
                            Ok(Answer::Allowed) => {}
                            Ok(_) => return Err("was not allowed".to_owned()),
                            Err(error) => return Err(error.to_string()),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        for asked in asking {
            asked.await??;
        }
        Ok(())
    })
}
