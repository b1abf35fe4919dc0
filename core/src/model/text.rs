//! How values that are not words read and are written in the document.

use std::time::Duration;

/// Units of duration text, largest first, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Writes a duration in the largest unit that leaves a whole number: `1h`, `90s`, `500ms`; zero is `0s`.
///
/// Anything below a millisecond is dropped: no duration of the document is finer.
#[must_use]
pub fn duration(span: Duration) -> String {
    let millis = span.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, length) = UNITS
        .into_iter()
        .find(|&(_, length)| millis.is_multiple_of(u128::from(length)))
        .expect("every whole number divides by one");
    format!("{}{unit}", millis / u128::from(length))
}

/// Reads a duration: a whole number and one of the units `ms`, `s`, `m`, `h`, with nothing between or around them.
///
/// `None` for anything else, and for more than `u64::MAX` milliseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, length) = UNITS.into_iter().find(|&(name, _)| name == unit)?;
    number.checked_mul(length).map(Duration::from_millis)
}

/// Whether a text may name a node, a fleet or an object of the document: 1 to 63 characters of `[a-z0-9-]`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len()) && text.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_digits_and_dashes() {
        #[rustfmt::skip]
        let cases = [("a", true), ("lvs-1", true), ("0", true), ("", false), ("A", false), ("a_b", false), ("a.b", false), ("\u{e4}", false)];
        for (text, legal) in cases {
            assert_eq!(is_name(text), legal, "{text:?}");
        }
        assert!(is_name(&"a".repeat(63)));
        assert!(!is_name(&"a".repeat(64)));
    }

    #[test]
    fn durations_read_and_print_in_the_largest_whole_unit() {
        #[rustfmt::skip]
        let cases = [
            // read        milliseconds       printed
            ("0s",         Some(0),           "0s"),
            ("500ms",      Some(500),         "500ms"),
            ("1000ms",     Some(1000),        "1s"),
            ("50s",        Some(50_000),      "50s"),
            ("90s",        Some(90_000),      "90s"),
            ("60s",        Some(60_000),      "1m"),
            ("2m",         Some(120_000),     "2m"),
            ("744h",       Some(2_678_400_000), "744h"),
            ("",           None,              ""),
            ("5",          None,              ""),
            ("s",          None,              ""),
            ("5 s",        None,              ""),
            (" 5s",        None,              ""),
            ("-5s",        None,              ""),
            ("1.5s",       None,              ""),
            ("1m30s",      None,              ""),
            ("5S",         None,              ""),
            ("5124095576030h", Some(18_446_744_073_708_000_000), "5124095576030h"),
            ("5124095576031h", None,       ""),
        ];
        for (text, millis, printed) in cases {
            let read = parse_duration(text);
            assert_eq!(read, millis.map(Duration::from_millis), "{text:?}");
            if let Some(read) = read {
                assert_eq!(duration(read), printed, "{text:?}");
            }
        }
    }
}
