//! The account of a run: off, printed, or kept to be compared.

/// Where the account goes.
#[derive(Debug, Default)]
pub enum Trace {
    #[default]
    Off,
    Print,
    /// Printed, with all that each engine gets and orders.
    Minute,
    Keep(Vec<String>),
}

impl Trace {
    pub fn say(&mut self, now: u64, text: impl FnOnce() -> String) {
        match self {
            Self::Off => {}
            Self::Print | Self::Minute => println!("{now:>6} {}", text()),
            Self::Keep(lines) => lines.push(format!("{now:>6} {}", text())),
        }
    }
}
