//! Many large deliveries at the same moment over one connection, and what memory the server needs for them: the end of none
//! is sent before all are there but for that, or refused.
//!
//!     burst TARGET PID CHECKS BODY
//!
//! Prints one line of JSON: what was answered, how many times each; how many got no well-formed answer; and the server's
//! memory: the most that it ever had, and a second after the last answer.

use bench::{
    grpc::{Begun, Questions, connect},
    process::{most_resident, resident},
};
use std::{collections::BTreeMap, error::Error, rc::Rc, time::Duration};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, pid, checks, body] = arguments.as_slice() else {
        return Err("usage: burst TARGET PID CHECKS BODY".into());
    };
    let (pid, checks): (u32, u64) = (pid.parse()?, checks.parse()?);
    let questions = Rc::new(Questions::new(body.parse()?));
    tokio::task::LocalSet::new()
        .run_until(async {
            let sender = connect(target).await?;
            let beginning: Vec<_> = (0..checks)
                .map(|number| {
                    let (mut sender, questions) = (sender.clone(), Rc::clone(&questions));
                    tokio::task::spawn_local(async move {
                        Begun::begin(&mut sender, &questions, number).await.map_err(|error| error.to_string())
                    })
                })
                .collect();
            let mut begun = Vec::new();
            for beginning in beginning {
                begun.push(beginning.await?);
            }
            let ending: Vec<_> = begun
                .into_iter()
                .map(|begun| {
                    tokio::task::spawn_local(async move { begun?.end().await.map_err(|error| error.to_string()) })
                })
                .collect();
            let (mut answers, mut broken) = (BTreeMap::<String, u64>::new(), 0);
            for ending in ending {
                match ending.await? {
                    Ok(answer) => *answers.entry(answer.to_string()).or_default() += 1,
                    Err(error) => {
                        eprintln!("{error}");
                        broken += 1;
                    }
                }
            }
            let most = most_resident(pid);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let answers: Vec<String> = answers.iter().map(|(answer, times)| format!(r#""{answer}":{times}"#)).collect();
            println!(
                r#"{{"answers":{{{}}},"broken":{broken},"most_kb":{most},"after_kb":{}}}"#,
                answers.join(","),
                resident(pid)
            );
            Ok(())
        })
        .await
}
