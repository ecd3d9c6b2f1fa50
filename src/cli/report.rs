//! Numbers and tables for people.

/// `bytes` with three digits and a unit of 1024.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

/// `count` with a suffix for thousands, millions, billions.
pub(super) fn count(count: u64) -> String {
    match count {
        ..=9_999 => count.to_string(),
        ..=999_999 => format!("{:.1} K", count as f64 / 1e3),
        ..=999_999_999 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.2} B", count as f64 / 1e9),
    }
}

/// Lines of `rows` in columns as wide as their longest cell; the last column is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A row of a table.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// `text` with everything that could steer a terminal written as an escape: model files are not trusted.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (20 << 20, "20.0 MiB"),
            (999 << 20, "999 MiB"),
            (1 << 30, "1.00 GiB"),
            (2_393_231_072, "2.23 GiB"),
            (u64::MAX, "16384 PiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn counts_are_short() {
        assert_eq!(count(135), "135");
        assert_eq!(count(134_515_008), "134.5 M");
        assert_eq!(count(3_821_079_552), "3.82 B");
    }

    #[test]
    fn columns_line_up_and_do_not_trail() {
        assert_eq!(table(&[row(["a", "bb"]), row(["ccc", "é"])]), "a    bb\nccc  é\n");
    }

    #[test]
    fn escape_sequences_are_shown_not_sent() {
        assert_eq!(plain("a\x1b[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
    }
}
