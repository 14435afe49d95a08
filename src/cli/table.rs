//! Tables for people.

/// Columns as wide as their widest cell, under `heads`. Names come from outside: what would steer a terminal is taken out.
pub(super) fn tabulated<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: impl Iterator<Item = [String; COLUMNS]>) -> String {
    let plain = |cell: String| cell.replace(char::is_control, "?");
    let rows: Vec<[String; COLUMNS]> = std::iter::once(heads.map(str::to_owned)).chain(rows.map(|row| row.map(plain))).collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["é".to_owned(), "b\u{1b}[1m".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(tabulated(["A", "B"], rows.into_iter()), "A     B\né     b?[1m\nlong");
    }
}
