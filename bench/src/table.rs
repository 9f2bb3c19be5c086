//! Markdown tables.

/// A table with a header; columns but the first are numbers.
pub struct Table {
    text: String,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        let mut text = format!("| {} |\n|---|", header.join(" | "));
        text += &"---:|".repeat(header.len() - 1);
        text.push('\n');
        Self { text }
    }

    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        self.text += &format!("| {} |\n", cells.join(" | "));
    }

    pub fn finish(self) -> String {
        self.text + "\n"
    }
}

/// Nanoseconds with a unit that leaves two or three digits before the point.
pub fn time(ns: f64) -> String {
    match ns {
        _ if ns < 10_000.0 => format!("{ns:.0} ns"),
        _ if ns < 10_000_000.0 => format!("{:.1} us", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// A ratio, with as many digits as it is worth.
pub fn ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}x") } else { format!("{ratio:.0}x") }
}

/// A whole number with separators.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_units() {
        assert_eq!([time(512.4), time(23_040.0), time(50e6)], ["512 ns", "23.0 us", "50.0 ms"]);
        assert_eq!([ratio(3.456), ratio(36.4)], ["3.46x", "36x"]);
        assert_eq!([count(7.0), count(1_234_567.0)], ["7", "1,234,567"]);
    }
}
