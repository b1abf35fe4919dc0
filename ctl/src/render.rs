//! Answers become text: pure, from messages to `String`.

pub(crate) mod history;
pub(crate) mod ipvs;
pub(crate) mod node;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod vip;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows below their headings, two blanks between columns, none at the end of a line. Widths are counted in characters.
fn columns<const N: usize>(
    headings: [(&str, Align); N],
    rows: &[[String; N]],
    indent: &str,
) -> String {
    let mut widths = headings.map(|(heading, _)| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut text = indent.to_owned();
        for ((cell, width), (_, align)) in cells.into_iter().zip(widths).zip(headings) {
            text += &match align {
                Align::Left => format!("{cell:<width$}  "),
                Align::Right => format!("{cell:>width$}  "),
            };
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(headings.map(|(heading, _)| heading));
    for row in rows {
        text += &line(row.each_ref().map(String::as_str));
    }
    text
}

/// A dash where there is nothing to say: an empty cell looks like a mistake.
fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Milliseconds since 1970 as `2026-03-01T12:00:00Z`.
pub(crate) fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01, in the Gregorian calendar. Years are counted from March, so that the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc() {
        // As `date -u -d @SECONDS +%FT%TZ` prints them.
        #[rustfmt::skip]
        let cases = [
            (0,                     "1970-01-01T00:00:00Z"),
            (951_782_399_999,       "2000-02-28T23:59:59Z"),
            (951_782_400_000,       "2000-02-29T00:00:00Z"),
            (951_868_800_000,       "2000-03-01T00:00:00Z"),
            (1_709_210_096_789,     "2024-02-29T12:34:56Z"),
            (1_767_225_599_000,     "2025-12-31T23:59:59Z"),
            (4_107_542_400_000,     "2100-03-01T00:00:00Z"),
        ];
        for (unix_ms, text) in cases {
            assert_eq!(time(unix_ms), text);
        }
    }

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let headings = [("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)];
        let rows = [
            ["a".to_owned(), "1000".to_owned(), String::new()],
            ["längst".to_owned(), "0".to_owned(), "x".to_owned()],
        ];
        insta::assert_snapshot!(columns(headings, &rows, "  "), @r"
        NAME       N  NOTE
        a       1000
        längst     0  x
        ");
    }
}
