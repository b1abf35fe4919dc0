//! Values of keywords.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use lvsmesh_core::model::VrrpVersion;

use crate::interchange::fates::Fates;
use crate::interchange::keepalived::tree::Node;

/// The statement's first value as a number, or a word with the range.
pub(super) fn number<T>(node: &Node, least: T, most: T, fates: &mut Fates) -> Option<T>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let Some(text) = node.value(1) else {
        fates.wrong(node.id, "no value");
        return None;
    };
    match text.parse::<T>() {
        Ok(value) if value >= least && value <= most => Some(value),
        Ok(_) | Err(_) => {
            fates.wrong(node.id, format!("`{text}` is no whole number from {least} to {most}"));
            None
        }
    }
}

/// The next of some words, if it can be read.
pub(super) fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a String>) -> Option<T> {
    words.next()?.parse().ok()
}

/// Seconds with decimals. The document's durations are whole milliseconds; what is finer is rounded, and said.
pub(super) fn timer(node: &Node, fates: &mut Fates) -> Option<Duration> {
    let Some(text) = node.value(1) else {
        fates.wrong(node.id, "no value");
        return None;
    };
    let Some((span, exact)) = seconds(text) else {
        fates.wrong(node.id, format!("`{text}` is no number of seconds"));
        return None;
    };
    if !exact {
        let span = lvsmesh_core::model::text::duration(span);
        fates.changed(node.id, format!("rounded to {span}"));
    }
    Some(span)
}

/// Decimal seconds, to the millisecond; the second value says whether nothing was rounded away.
pub(super) fn seconds(text: &str) -> Option<(Duration, bool)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if text == "." || text.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if whole > 1_000_000_000 {
        return None;
    }
    let mut millis = 0u64;
    for (position, digit) in fraction.chars().enumerate().take(4) {
        let digit = u64::from(digit.to_digit(10)?);
        match position {
            0..3 => millis += digit * [100, 10, 1][position],
            _ => millis += u64::from(digit >= 5),
        }
    }
    let exact = fraction.chars().skip(3).all(|c| c == '0');
    Some((Duration::from_millis(whole * 1000 + millis), exact))
}

/// The statement's first value as an address.
pub(super) fn address(node: &Node, fates: &mut Fates) -> Option<IpAddr> {
    let text = node.value(1).unwrap_or_default();
    let address = text.parse().ok();
    if address.is_none() {
        fates.wrong(node.id, format!("`{text}` is no address"));
    }
    address
}

pub(super) fn version(node: &Node, fates: &mut Fates) -> Option<VrrpVersion> {
    match node.value(1) {
        Some("2") => Some(VrrpVersion::V2),
        Some("3") => Some(VrrpVersion::V3),
        other => {
            fates.wrong(node.id, format!("`{}` is no version: 2 or 3", other.unwrap_or_default()));
            None
        }
    }
}

/// Addresses of a range: one address, `10.0.0.1-10`, `10.0.0.250-10.0.1.5`, `10.0.0.8/29`, and the same of IPv6, whose short form counts
/// in hexadecimal. At most 4096.
pub(super) fn range(text: &str) -> Result<Vec<IpAddr>, String> {
    const MOST: u128 = 4096;
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let (first, last) = if let Some((base, bits)) = text.split_once('/') {
        let base: IpAddr = base.parse().map_err(|_| format!("`{base}` is no address"))?;
        let (number, width) = as_number(base);
        let bits: u32 = bits
            .parse()
            .ok()
            .filter(|bits| *bits <= width)
            .ok_or_else(|| format!("`{bits}` is no prefix length"))?;
        let hosts = 1u128.checked_shl(width - bits).map_or(u128::MAX, |size| size - 1);
        ((base, number & !hosts), number | hosts)
    } else if let Some((base, end)) = text.split_once('-') {
        let base: IpAddr = base.parse().map_err(|_| format!("`{base}` is no address"))?;
        let number = as_number(base).0;
        let last = match (end.parse::<IpAddr>(), base) {
            (Ok(end), _) if end.is_ipv4() == base.is_ipv4() => as_number(end).0,
            (Err(_), IpAddr::V4(_)) => {
                let end: u8 = end.parse().map_err(|_| format!("`{end}` is no last byte"))?;
                (number & !0xff) | u128::from(end)
            }
            (Err(_), IpAddr::V6(_)) => {
                let end = u16::from_str_radix(end, 16)
                    .map_err(|_| format!("`{end}` is no last group of an address"))?;
                (number & !0xffff) | u128::from(end)
            }
            (Ok(_), _) => return Err(format!("`{text}`: two families")),
        };
        ((base, number), last)
    } else {
        return Err(format!("`{text}` is no address and no range"));
    };
    let (base, first) = first;
    if last < first {
        return Err(format!("`{text}` ends before it begins"));
    }
    if last - first >= MOST {
        return Err(format!("`{text}` is more than {MOST} addresses"));
    }
    Ok((first..=last).filter_map(|number| as_address(number, base)).collect())
}

fn as_number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn as_address(number: u128, like: IpAddr) -> Option<IpAddr> {
    match like {
        IpAddr::V4(_) => u32::try_from(number).ok().map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(_) => Some(IpAddr::V6(number.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_decimals() {
        #[rustfmt::skip]
        let cases = [
            ("3",        Some((3000, true))),
            ("2.71828",  Some((2718, false))),
            ("0.5",      Some((500, true))),
            (".25",      Some((250, true))),
            ("1.",       Some((1000, true))),
            ("0.0006",   Some((1, false))),
            ("",         None),
            (".",        None),
            ("-1",       None),
            ("1e3",      None),
            ("9999999999", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(millis, exact)| (Duration::from_millis(millis), exact));
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ranges_are_unrolled() {
        let shown = |text: &str| {
            range(text)
                .map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
                .unwrap_or_else(|why| why)
        };
        #[rustfmt::skip]
        let cases = [
            ("10.0.0.1",               "10.0.0.1"),
            ("10.0.0.3-5",             "10.0.0.3 10.0.0.4 10.0.0.5"),
            ("10.0.0.255-10.0.1.0",    "10.0.0.255 10.0.1.0"),
            ("10.0.0.9/31",            "10.0.0.8 10.0.0.9"),
            ("ae00::9-a",              "ae00::9 ae00::a"),
            ("10.0.0.5-3",             "`10.0.0.5-3` ends before it begins"),
            ("10.0.0.5-300",           "`300` is no last byte"),
            ("10.0.0.0/8",             "`10.0.0.0/8` is more than 4096 addresses"),
            ("::/0",                   "`::/0` is more than 4096 addresses"),
            ("10.0.0.1/33",            "`33` is no prefix length"),
            ("10.0.0.1-::1",           "`10.0.0.1-::1`: two families"),
            ("www",                    "`www` is no address and no range"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
