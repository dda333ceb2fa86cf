//! Tables with aligned columns.

use super::human::clean;
use crate::cli::style::{HEADING, paint};

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    /// Text.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Left(name) | Self::Right(name) => name,
        }
    }
}

/// A table with a head; nothing, if it would have no rows.
pub(super) fn table<const N: usize>(columns: [Column; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| clean(&cell))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = columns.map(|column| column.name().to_owned());
    let mut widths = [0; N];
    for row in std::iter::once(&head).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    // A table without a head has columns without a name.
    let head = head.iter().any(|name| !name.is_empty()).then_some(&head);
    for row in head.into_iter().chain(&rows) {
        let cells = row.iter().zip(widths).zip(columns).map(|((cell, width), column)| match column {
            Column::Left(_) => format!("{cell:width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The same, each line indented under a title.
pub(super) fn section(title: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    let lines = body.lines().map(|line| format!("  {line}\n"));
    format!("\n{}\n{}", paint(HEADING, title), lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let columns = [Column::Left("NAME"), Column::Right("AGE"), Column::Left("")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = table(columns, [row(["a", "3m12s", "x"]), row(["böb\x1b", "5s", ""])]);
        assert_eq!(text, "NAME         AGE\na          3m12s  x\nböb\\u{1b}     5s\n");
        assert_eq!(table(columns, []), "");
    }
}
