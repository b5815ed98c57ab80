//! Signatures that cost too much to be made while something is measured, and what verifying them costs by itself.
//!
//!     signatures make ALGORITHM BODY COUNT FILE
//!     signatures verify ALGORITHM BODY SECONDS FILE KEY
//!
//! ALGORITHM is `rsa-2048` (PKCS #1 v1.5 with SHA-256), `p-256` (fixed length, SHA-256) or `hmac-sha256`, of which KEY is the
//! secret and no file is made. `make` writes a line of base64 for each number from zero on and prints the public key, DER in
//! base64. `verify` does nothing but call the library, with a key that was parsed before, and prints the CPU time of one
//! verification in nanoseconds.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bench::{
    deliveries::{Deliveries, body},
    process::Family,
};
use std::{
    error::Error,
    fs, thread,
    time::{Duration, Instant},
};

const USAGE: &str =
    "usage: signatures make ALGORITHM BODY COUNT FILE\n       signatures verify ALGORITHM BODY SECONDS FILE KEY";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["make", algorithm, body, count, file] => make(algorithm, body.parse()?, count.parse()?, file),
        ["verify", algorithm, body, seconds, file, key] => {
            verify(algorithm, body.parse()?, Duration::from_secs_f64(seconds.parse()?), file, key)
        }
        _ => Err(USAGE.into()),
    }
}

enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl Signer {
    fn generate(algorithm: &str) -> Result<Self, Box<dyn Error>> {
        match algorithm {
            "rsa-2048" => Ok(Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?)),
            "p-256" => Ok(Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?)),
            _ => Err(USAGE.into()),
        }
    }

    fn public_key(&self) -> Result<PublicKeyX509Der<'static>, Box<dyn Error>> {
        Ok(match self {
            Self::Rsa(key) => key.public_key().as_der()?,
            Self::P256(key) => key.public_key().as_der()?,
        })
    }

    fn sign(&self, random: &SystemRandom, content: &[u8]) -> String {
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, random, content, &mut signature).expect("a key of 2048 bits signs");
                signature
            }
            Self::P256(key) => key.sign(random, content).expect("a key of P-256 signs").as_ref().into(),
        };
        BASE64_STANDARD.encode(signature)
    }
}

/// On all cores, since a run takes tens of thousands and one of RSA takes about a millisecond.
fn make(algorithm: &str, length: usize, count: u64, file: &str) -> Result<(), Box<dyn Error>> {
    let signer = Signer::generate(algorithm)?;
    let threads = u64::try_from(thread::available_parallelism()?.get())?;
    let share = count.div_ceil(threads);
    let parts: Vec<String> = thread::scope(|scope| {
        let making: Vec<_> = (0..threads)
            .map(|part| {
                let signer = &signer;
                scope.spawn(move || {
                    let random = SystemRandom::new();
                    let numbers = part * share..count.min((part + 1) * share);
                    numbers.map(|number| signer.sign(&random, &body(length, number)) + "\n").collect()
                })
            })
            .collect();
        making.into_iter().map(|part| part.join().expect("signing does not panic")).collect()
    });
    fs::write(file, parts.concat())?;
    println!("{}", BASE64_STANDARD.encode(signer.public_key()?.as_ref()));
    Ok(())
}

fn verify(algorithm: &str, length: usize, time: Duration, file: &str, key: &str) -> Result<(), Box<dyn Error>> {
    if algorithm == "hmac-sha256" {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let deliveries = Deliveries::new(length);
        return timed(
            time,
            |number| {
                let signature = const_hex::decode(deliveries.signed(number).1)?;
                Ok((body(length, number), signature))
            },
            |body, signature| hmac::verify(&key, body, signature).is_ok(),
        );
    }
    let key = BASE64_STANDARD.decode(key)?;
    let algorithm: &dyn aws_lc_rs::signature::VerificationAlgorithm = match algorithm {
        "rsa-2048" => &RSA_PKCS1_2048_8192_SHA256,
        "p-256" => &ECDSA_P256_SHA256_FIXED,
        _ => return Err(USAGE.into()),
    };
    let key = ParsedPublicKey::new(algorithm, key)?;
    let deliveries = Deliveries::with(length, &fs::read_to_string(file)?)?;
    timed(
        time,
        |number| {
            let signature = BASE64_STANDARD.decode(deliveries.signed(number).1)?;
            Ok((body(length, number), signature))
        },
        |body, signature| key.verify_sig(body, signature).is_ok(),
    )
}

/// How many deliveries are verified in turn: more than fit beside each other into the nearest cache, as in a server.
const DELIVERIES: u64 = 256;

fn timed(
    time: Duration,
    delivery: impl Fn(u64) -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>>,
    holds: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), Box<dyn Error>> {
    let deliveries = (0..DELIVERIES).map(delivery).collect::<Result<Vec<_>, _>>()?;
    let own = Family::of(std::process::id());
    let (mut count, begun, spent) = (0_u64, Instant::now(), own.spent());
    while begun.elapsed() < time {
        for (body, signature) in &deliveries {
            if !holds(body, signature) {
                return Err("a signature that does not hold".into());
            }
            count += 1;
        }
    }
    println!("{}", (own.spent() - spent) / count);
    Ok(())
}
