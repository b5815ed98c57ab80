//! Signed timestamps: parsed to be *judged*, never to be rendered again.
//!
//! Only the canonical decimal form is accepted: two spellings of one number would be two texts for one delivery,
//! and one of them would slip past whatever remembers the other.

use crate::{
    clock::{Now, UnixSeconds},
    decision::Rejection,
};
use std::time::Duration;

/// How a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since the epoch.
    Seconds,
    /// Milliseconds since the epoch.
    Milliseconds,
    /// RFC 3339.
    Rfc3339,
    /// RFC 9110 §5.6.7.
    HttpDate,
}

/// How far a signed moment may lie from now, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// Before now.
    pub past: Duration,
    /// After now, for clocks that run ahead.
    pub future: Duration,
}

impl Unit {
    /// Reads a moment: a canonical, non-negative decimal number, or a date.
    pub fn parse(self, text: &[u8]) -> Result<UnixSeconds, Rejection> {
        match self {
            Self::Seconds => whole_number(text).map(UnixSeconds),
            Self::Milliseconds => whole_number(text).map(|milliseconds| UnixSeconds(milliseconds.div_euclid(1000))),
            Self::Rfc3339 => parse_rfc3339(text),
            Self::HttpDate => parse_http_date(text),
        }
    }

    /// Writes `moment` in this unit, for making a signed request.
    #[must_use]
    pub fn render(self, moment: UnixSeconds) -> String {
        match self {
            Self::Seconds => moment.0.to_string(),
            Self::Milliseconds => moment.0.saturating_mul(1000).to_string(),
            Self::Rfc3339 => {
                jiff::Timestamp::from_second(moment.0).map_or_else(|_| String::new(), |timestamp| timestamp.to_string())
            }
            Self::HttpDate => render_http_date(moment),
        }
    }
}

/// Reads a canonical, non-negative decimal number.
fn whole_number(text: &[u8]) -> Result<i64, Rejection> {
    let canonical = match text {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let number = std::str::from_utf8(text).ok().filter(|_| canonical).and_then(|text| text.parse().ok());
    number.ok_or(Rejection::TimestampMalformed)
}

/// Reads `2026-11-24T04:00:00Z`, with or without a fraction, or with a numeric offset (RFC 3339 §5.6).
fn parse_rfc3339(text: &[u8]) -> Result<UnixSeconds, Rejection> {
    let text = std::str::from_utf8(text).map_err(|_| Rejection::TimestampMalformed)?;
    // The parser reads more than RFC 3339: spaces, no seconds, names of zones, years with a sign, no marks between numbers.
    // Those are no spelling of a sender.
    let pattern = b"0000-00-00T00:00:00Z";
    let marks = pattern.iter().zip(text.as_bytes()).all(|(wanted, byte)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'Z' => matches!(byte, b'Z' | b'+' | b'-' | b'.'),
        mark => mark == byte,
    });
    let plain = marks
        && text.len() >= pattern.len()
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.' | b'+' | b'T' | b'Z'));
    let moment = text.parse::<jiff::Timestamp>().ok().filter(|_| plain);
    moment.map(|moment| UnixSeconds(moment.as_second())).ok_or(Rejection::TimestampMalformed)
}

impl Tolerance {
    /// Whether `signed` is near enough to now.
    pub fn judge(self, signed: UnixSeconds, now: Now) -> Result<(), Rejection> {
        let distance = signed.distance(now.wall);
        match signed < now.wall {
            true if distance > self.past.as_secs() => Err(Rejection::TimestampTooOld),
            false if distance > self.future.as_secs() => Err(Rejection::TimestampTooNew),
            _ => Ok(()),
        }
    }

    /// The same on both sides.
    #[must_use]
    pub const fn both(duration: Duration) -> Self {
        Self { past: duration, future: duration }
    }
}

/// Reads an HTTP date (RFC 9110 §5.6.7, IMF-fixdate). The day of the week is not compared with the date: it carries
/// no information, and published test vectors get it wrong.
pub fn parse_http_date(text: &[u8]) -> Result<UnixSeconds, Rejection> {
    static PARSER: jiff::fmt::rfc2822::DateTimeParser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let text = std::str::from_utf8(text).map_err(|_| Rejection::TimestampMalformed)?;
    let imf_fixdate = text.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len() && text.ends_with(" GMT");
    PARSER
        .parse_timestamp(text)
        .ok()
        .filter(|_| imf_fixdate)
        .map(|moment| UnixSeconds(moment.as_second()))
        .ok_or(Rejection::TimestampMalformed)
}

/// Writes an HTTP date, for making a signed request.
#[must_use]
pub fn render_http_date(moment: UnixSeconds) -> String {
    jiff::Timestamp::from_second(moment.0)
        .map_or_else(|_| String::new(), |timestamp| timestamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals() {
        assert_eq!(Unit::Seconds.parse(b"1760000000"), Ok(UnixSeconds(1_760_000_000)));
        assert_eq!(Unit::Milliseconds.parse(b"1760000000999"), Ok(UnixSeconds(1_760_000_000)));
        assert_eq!(Unit::Seconds.parse(b"9223372036854775807"), Ok(UnixSeconds(i64::MAX)));
        for text in
            ["", "+1", "-1", "01", " 1", "1 ", "1e9", "1.0", "0x1", "٣", "9223372036854775808", "-9223372036854775808"]
        {
            assert_eq!(Unit::Seconds.parse(text.as_bytes()), Err(Rejection::TimestampMalformed), "{text:?}");
        }
    }

    #[test]
    fn tolerance_is_two_sided_inclusive_and_never_overflows() {
        let now = Now { wall: UnixSeconds(1000), monotonic: Duration::ZERO };
        let judge = |signed| Tolerance::both(Duration::from_secs(300)).judge(UnixSeconds(signed), now);
        assert_eq!(judge(700), Ok(()));
        assert_eq!(judge(699), Err(Rejection::TimestampTooOld));
        assert_eq!(judge(1300), Ok(()));
        assert_eq!(judge(1301), Err(Rejection::TimestampTooNew));
        assert_eq!(judge(i64::MAX), Err(Rejection::TimestampTooNew));
        assert_eq!(judge(i64::MIN), Err(Rejection::TimestampTooOld));
    }

    #[test]
    fn rfc3339_and_nothing_wider() {
        let read = |text: &str| Unit::Rfc3339.parse(text.as_bytes());
        for text in ["2014-01-05T21:31:40Z", "2014-01-05T21:31:40.999Z", "2014-01-05T22:31:40+01:00"] {
            assert_eq!(read(text), Ok(UnixSeconds(1_388_957_500)), "{text}");
        }
        for text in [
            "",
            "2014-01-05",
            "2014-01-05T21:31Z",
            "2014-01-05 21:31:40Z",
            "2014-01-05T21:31:40",
            "2014-13-05T21:31:40Z",
            "2014-01-05T21:31:40Z[UTC]",
            "+002014-01-05T21:31:40Z",
            "2014-01-05T21:31+01:00",
            "20140105T213140.000Z",
        ] {
            assert_eq!(read(text), Err(Rejection::TimestampMalformed), "{text:?}");
        }
    }

    #[test]
    fn http_dates() {
        let sunday = UnixSeconds(1_388_957_500);
        assert_eq!(parse_http_date(b"Sun, 05 Jan 2014 21:31:40 GMT"), Ok(sunday));
        assert_eq!(parse_http_date(b"Thu, 05 Jan 2014 21:31:40 GMT"), Ok(sunday), "the weekday carries nothing");
        assert_eq!(render_http_date(sunday), "Sun, 05 Jan 2014 21:31:40 GMT");
        for text in [
            "",
            "Sun, 05 Jan 2014 21:31:40 +0000",
            "Sun, 5 Jan 2014 21:31:40 GMT",
            "Sun, 31 Feb 2014 21:31:40 GMT",
            "Sun, 05 Jan 2014 21:31:40 GMT, Sun, 05 Jan 2014 21:31:40 GMT",
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), Err(Rejection::TimestampMalformed), "{text:?}");
        }
    }
}
