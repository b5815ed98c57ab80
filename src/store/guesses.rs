//! Wrong guesses, by client: enough to stop whoever tries tokens or passwords, in memory that does not grow.
//!
//! Counted in whole minutes of monotonic time. An IPv6 client is its /64, of which anybody has 2⁶⁴ addresses. When the
//! table is full of clients that guessed wrong this minute, those that come then share one count.

use crate::clock::Now;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

/// Wrong guesses a minute; after that nothing the client says is heard, right or wrong.
pub const MAX_GUESSES: u32 = 5;
/// The most clients counted one by one.
const MAX_CLIENTS: usize = 10_000;
/// Wrong guesses a minute of all clients beyond that.
const MAX_SHARED: u32 = 1000;

/// Wrong guesses, by client.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<Client, Count>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    One(IpAddr),
    Others,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    minute: u64,
    wrong: u32,
}

impl Guesses {
    /// Whether a guess is heard; counts it if it was wrong.
    pub(super) fn hear(&self, client: IpAddr, wrong: bool, now: Now) -> bool {
        let minute = now.monotonic.as_secs().checked_div(60).unwrap_or(0);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = Client::One(network(client));
        if !counts.contains_key(&client) {
            if counts.len() >= MAX_CLIENTS {
                counts.retain(|_, count| count.minute == minute);
            }
            if counts.len() >= MAX_CLIENTS {
                client = Client::Others;
            }
        }
        let limit = if client == Client::Others { MAX_SHARED } else { MAX_GUESSES };
        let before = counts.get(&client).filter(|count| count.minute == minute).map_or(0, |count| count.wrong);
        if wrong {
            counts.insert(client, Count { minute, wrong: before.saturating_add(1) });
        }
        before < limit
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixSeconds;
    use std::time::Duration;

    fn at(seconds: u64) -> Now {
        Now { wall: UnixSeconds(0), monotonic: Duration::from_secs(seconds) }
    }

    #[test]
    fn five_wrong_guesses_a_minute_are_heard_and_then_none_not_even_a_right_one() {
        let guesses = Guesses::default();
        let client: IpAddr = "203.0.113.7".parse().unwrap();
        for _ in 0..MAX_GUESSES {
            assert!(guesses.hear(client, false, at(0)));
            assert!(guesses.hear(client, true, at(1)));
        }
        assert!(!guesses.hear(client, true, at(2)));
        assert!(!guesses.hear(client, false, at(59)));
        assert!(guesses.hear("203.0.113.8".parse().unwrap(), false, at(59)), "a neighbour is not meant");
        assert!(guesses.hear(client, false, at(60)));
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let guesses = Guesses::default();
        for n in 0..5_u16 {
            assert!(guesses.hear(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, n, n, n).into(), true, at(0)));
        }
        assert!(!guesses.hear("2001:db8:0:1::99".parse().unwrap(), false, at(0)));
        assert!(guesses.hear("2001:db8:0:2::99".parse().unwrap(), false, at(0)));
    }

    #[test]
    fn the_table_does_not_grow_and_nobody_guesses_for_ever_behind_it() {
        let guesses = Guesses::default();
        let heard = (0..20_000_u32).filter(|n| guesses.hear(IpAddr::from(n.to_be_bytes()), true, at(0))).count();
        assert_eq!(heard, MAX_CLIENTS + 1000);
        assert!(guesses.0.lock().unwrap().len() <= MAX_CLIENTS + 1);
        assert!(guesses.hear(IpAddr::from([255, 255, 255, 255]), true, at(60)), "the next minute is another one");
    }
}
