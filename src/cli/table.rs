//! Tables for people: aligned, never wider than the terminal, coloured on request.

use super::output::Look;

/// What a column is cut to at least: first this, and where that is not enough, then that.
const NARROWEST: [usize; 2] = [8, 3];
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
        "leader" | "follower" | "connected" | "up" | "alive" | "serving" => Tone::Good,
        "down" | "lost" | "disabled" | "auth-failed" => Tone::Bad,
        "joining" | "draining" | "leader-single-node" | "dialling" | "blocked" | "unfit"
        | "unknown" | "suspect" | "left" | "peer-unreachable" => Tone::Warn,
        _ => Tone::Plain,
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
pub(super) fn render(heads: &[&str], rows: &[Vec<Cell>], look: Look) -> String {
    let widths = widths(heads, rows, look.width);
    let heads: Vec<Cell> = heads
        .iter()
        .map(|head| plain(head.to_uppercase()))
        .collect();
    let mut out = line(&heads, &widths, false);
    for row in rows {
        out.push_str(&line(row, &widths, look.colours));
    }
    out
}

fn widths(heads: &[&str], rows: &[Vec<Cell>], most: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    // The widest column gives way.
    for narrowest in NARROWEST {
        while widths.iter().sum::<usize>() + gaps > most {
            match widths.iter_mut().max() {
                Some(widest) if *widest > narrowest => *widest -= 1,
                _ => break,
            }
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
        let text = render(&["name", "state", "why"], &rows, Look::PAGE);
        assert_eq!(
            text,
            "NAME       STATE   WHY\na          leader\nlong name  down    x\n"
        );
    }

    #[test]
    fn never_wider_than_the_terminal_and_uncut_without_one() {
        let wide = "x".repeat(300);
        let row = vec![plain("agents"), plain(&wide), plain(&wide), plain("end")];
        let rows = [row];
        let heads = ["a", "b", "c", "d"];
        for width in [40, 60, 100] {
            let look = Look {
                width,
                ..Look::PAGE
            };
            let text = render(&heads, &rows, look);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{line}");
            }
            assert!(
                text.contains("agents  xxx") && text.contains("x…  end"),
                "{text}"
            );
        }
        let many = vec![plain("a-long-name"); 8];
        let look = Look {
            width: 40,
            ..Look::PAGE
        };
        let text = render(&["a"; 8], &[many], look);
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        let look = Look {
            width: usize::MAX,
            ..Look::PAGE
        };
        assert!(render(&heads, &rows, look).contains(&wide));
    }

    #[test]
    fn colours_only_where_wanted_and_none_from_the_server() {
        let rows = [vec![state("leader"), plain("\u{1b}[31mevil\n")]];
        let colours = Look {
            colours: true,
            ..Look::PAGE
        };
        assert!(render(&["a", "b"], &rows, colours).contains("\u{1b}[32mleader\u{1b}[0m"));
        assert!(!render(&["a", "b"], &rows, Look::PAGE).contains('\u{1b}'));
    }
}
