//! Counters in columns of nine.

/// A counter as `--stats` and `--rate` print it: eight digits and a blank before them, in thousands, millions and so on where that is not
/// enough. The steps are uneven: K from 10^8, M from 10^9, G from 10^11, T from 10^14. `exact` prints every digit, however many.
pub(super) fn counter(number: u64, exact: bool) -> String {
    match number {
        _ if exact => format!(" {number:>8}"),
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from ipvsadm 1.31 (Debian 12) on 2026-11-27, which was given these numbers in place of the kernel's.
    #[test]
    fn numbers_of_all_sizes_are_ipvsadms() {
        #[rustfmt::skip]
        let cases = [
            (0,                          "        0", "        0"),
            (9_999_999,                  "  9999999", "  9999999"),
            (12_345_678,                 " 12345678", " 12345678"),
            (99_999_999,                 " 99999999", " 99999999"),
            (100_000_000,                "  100000K", " 100000000"),
            (123_456_789,                "  123456K", " 123456789"),
            (999_999_999,                "  999999K", " 999999999"),
            (1_000_000_000,              "    1000M", " 1000000000"),
            (1_234_567_890,              "    1234M", " 1234567890"),
            (12_345_678_901,             "   12345M", " 12345678901"),
            (99_999_999_999,             "   99999M", " 99999999999"),
            (100_000_000_000,            "     100G", " 100000000000"),
            (123_456_789_012,            "     123G", " 123456789012"),
            (1_234_567_890_123,          "    1234G", " 1234567890123"),
            (12_345_678_901_234,         "   12345G", " 12345678901234"),
            (99_999_999_999_999,         "   99999G", " 99999999999999"),
            (100_000_000_000_000,        "     100T", " 100000000000000"),
            (123_456_789_012_345,        "     123T", " 123456789012345"),
            (1_234_567_890_123_456,      "    1234T", " 1234567890123456"),
            (99_999_999_999_999_999,     "   99999T", " 99999999999999999"),
            (100_000_000_000_000_000,    "  100000T", " 100000000000000000"),
            (18_446_744_073_709_551_615, "18446744T", " 18446744073709551615"),
        ];
        for (number, rounded, exact) in cases {
            assert_eq!(counter(number, false), rounded, "{number}");
            assert_eq!(counter(number, true), exact, "{number}");
        }
    }
}
