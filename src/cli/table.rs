//! Tables for people: aligned, never wider than a page, coloured on request.

/// Widest line, in characters.
pub(super) const WIDTH: usize = 100;
/// Narrowest a column is cut to.
const NARROWEST: usize = 8;
/// Between columns.
const GAP: &str = "  ";

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// All is well.
    Good,
    /// Somebody should look.
    Warn,
    /// Broken.
    Bad,
}

/// A cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// A plain cell. Control characters become blanks: what a server says must not drive a terminal.
pub(super) fn plain(text: impl ToString) -> Cell {
    let text = text.to_string();
    let text = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Cell {
        text,
        tone: Tone::Plain,
    }
}

/// A cell for a role or state, coloured by what it means.
pub(super) fn state(word: &str) -> Cell {
    let tone = match word {
        "leader" | "follower" | "connected" | "up" | "alive" => Tone::Good,
        "down" | "lost" | "disabled" | "auth-failed" => Tone::Bad,
        _ => Tone::Warn,
    };
    Cell {
        tone,
        ..plain(word)
    }
}

impl Cell {
    /// The same tone under another word.
    pub(super) fn named(self, word: &str) -> Self {
        Self {
            tone: self.tone,
            ..plain(word)
        }
    }
}

/// Text in a tone, where colours are wanted.
pub(super) fn paint(text: &str, tone: Tone, colours: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
    };
    if colours {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// The table with a line of heads, every line ended.
pub(super) fn render(heads: &[&str], rows: &[Vec<Cell>], colours: bool) -> String {
    let widths = widths(heads, rows);
    let heads: Vec<Cell> = heads
        .iter()
        .map(|head| plain(head.to_uppercase()))
        .collect();
    let mut out = line(&heads, &widths, false);
    for row in rows {
        out.push_str(&line(row, &widths, colours));
    }
    out
}

fn widths(heads: &[&str], rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    // The widest column gives way.
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => break,
        }
    }
    widths
}

fn line(cells: &[Cell], widths: &[usize], colours: bool) -> String {
    let mut out = String::new();
    let mut pending = 0;
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let text = cut(&cell.text, *width);
        let used = text.chars().count();
        if index > 0 {
            pending += GAP.len();
        }
        // No blanks at the end of a line.
        if used > 0 {
            out.push_str(&" ".repeat(pending));
            out.push_str(&paint(&text, cell.tone, colours));
            pending = 0;
        }
        pending += width - used;
    }
    out.push('\n');
    out
}

/// At most `width` characters; what is cut ends with an ellipsis.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_blanks() {
        let rows = [
            vec![plain("a"), state("leader"), plain("")],
            vec![plain("long name"), state("down"), plain("x")],
        ];
        let text = render(&["name", "state", "why"], &rows, false);
        assert_eq!(
            text,
            "NAME       STATE   WHY\na          leader\nlong name  down    x\n"
        );
    }

    #[test]
    fn never_wider_than_a_page() {
        let wide = "x".repeat(300);
        let rows = [vec![
            plain("agents"),
            plain(&wide),
            plain(&wide),
            plain("end"),
        ]];
        let text = render(&["a", "b", "c", "d"], &rows, false);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        assert!(
            text.contains("agents  xxx") && text.contains("x…  end"),
            "{text}"
        );
    }

    #[test]
    fn colours_only_where_wanted_and_none_from_the_server() {
        let rows = [vec![state("leader"), plain("\u{1b}[31mevil\n")]];
        assert!(render(&["a", "b"], &rows, true).contains("\u{1b}[32mleader\u{1b}[0m"));
        assert!(!render(&["a", "b"], &rows, false).contains('\u{1b}'));
    }
}
