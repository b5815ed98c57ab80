//! A question as bytes: our decoder and Envoy's own types read the same of it, before its body is let go of and afterwards.
#![no_main]

use hookwarden_fuzz::{agree_on, receivers::Receivers, seeds, wire};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { wire::mutate(data, size, max_size, seed) });

fuzz_target!(
    init: seeds::plant(Receivers::of_the_vectors().questions().into_iter().step_by(10)),
    |question: &[u8]| agree_on(question)
);
