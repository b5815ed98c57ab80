//! A text that an operator wrote: it is a configuration or a list of problems, and each of these has a place in the text.
#![no_main]

use hookwarden::{
    clock::{Clock, UnixSeconds},
    config::{self, Context},
};
use hookwarden_fuzz::{lines, misplaced, seeds};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

const NOW: i64 = 1_760_000_000;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { lines::mutate(data, size, max_size, seed) });

fuzz_target!(init: seeds::plant(configurations()), |text: &[u8]| {
    let context = Context::new(Clock::fixed(UnixSeconds(NOW)).now());
    match config::parse("hookwarden.yaml", text, &context) {
        Ok(loaded) => {
            let warnings: Vec<String> = loaded.warnings.iter().map(|warning| warning.line("hookwarden.yaml")).collect();
            let misplaced = if warnings.is_empty() { None } else { misplaced(&one_line_each(&warnings), text) };
            assert_eq!(misplaced, None, "a remark has no place in the text");
        }
        Err(problems) => {
            let problems: Vec<String> = problems.problems.iter().map(|problem| problem.line("hookwarden.yaml")).collect();
            assert_eq!(misplaced(&one_line_each(&problems), text), None, "a problem has no place in the text");
        }
    }
});

/// A problem is asked for its place, and not for whether it quotes a key that has lines.
fn one_line_each(problems: &[String]) -> String {
    problems.iter().map(|problem| problem.replace('\n', " ")).collect::<Vec<_>>().join("\n")
}

/// Those that are good, those that are not, and every preset as a user would write it.
fn configurations() -> Vec<Vec<u8>> {
    let presets = seeds::files("src/provider", ".yaml").into_iter().map(|preset| {
        let text = String::from_utf8(preset).expect("a preset is text");
        let lines = text.lines().map(|line| format!("    {line}\n"));
        format!(
            "endpoints:\n  own:\n    secrets: [{{ id: s, inline: a secret of this target }}]\n{}",
            lines.collect::<String>()
        )
        .into()
    });
    let others = [("tests/config", ".yaml"), ("deploy", ".yaml")];
    others.iter().flat_map(|(folder, end)| seeds::files(folder, end)).chain(presets).collect()
}
