//! `tandem doctor`: whether the live network does what the configuration says.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::client::{Admin, Target};
use super::context;
use super::output::Look;
use super::table::{Tone, paint};
use super::{block_on, exit, output};
use crate::doctor::{self, Asked, Report, Verdict};
use crate::engine::View;

/// Arguments of `tandem doctor`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
It sends probe messages through every federation link and one harmless command through every
broker, and changes nothing.

Exit codes: 0 all is well (warnings allowed); 1 something is wrong; 64 usage or configuration;
69 a broker, the instance or a downstream cannot be reached",
group(clap::ArgGroup::new("site").args(["config"]).required(true)))]
pub struct Args {
    /// How long the brokers' lists of consumers may be behind: nothing that is missing there is
    /// called bad sooner. More than twice their collect_statistics_interval (5 s by default)
    #[arg(long, value_name = "SECONDS", default_value_t = doctor::PATIENCE.as_secs())]
    pub patience: u64,
    /// Which site; its property file is needed.
    #[command(flatten)]
    pub target: Target,
}

impl Asked for Admin {
    fn address(&self) -> String {
        self.base().to_string()
    }

    async fn view(&self) -> Result<View, String> {
        self.status().await.map_err(|error| error.to_string())
    }
}

/// Examines and prints what was found.
pub fn run(args: Args, json: bool) -> ExitCode {
    // The definition demands it.
    let file = args.target.config.as_deref().unwrap_or(Path::new(""));
    let prepared = context::load(file).and_then(|settings| {
        let admin = Admin::at(args.target.place_of(&settings)?)?;
        Ok((settings, admin))
    });
    let (settings, admin) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return ExitCode::from(error.report()),
    };
    block_on(async move {
        match doctor::examine(&settings, &admin, Duration::from_secs(args.patience)).await {
            Ok(report) => {
                output::print(&if json {
                    format!(
                        "{:#}\n",
                        serde_json::json!({"worst": report.worst(), "findings": report.findings})
                    )
                } else {
                    text(&report, output::look())
                });
                code(report.worst())
            }
            Err(error) => {
                complain!("tandem doctor: {error}");
                exit::USAGE
            }
        }
    })
}

pub(super) fn code(worst: Verdict) -> u8 {
    match worst {
        Verdict::Good | Verdict::Warning => exit::DONE,
        Verdict::Bad => exit::FAILED,
        Verdict::Unreachable => exit::UNREACHABLE,
    }
}

pub(super) fn text(report: &Report, look: Look) -> String {
    let mut out = String::new();
    let mut counts = [0_usize; 4];
    for finding in &report.findings {
        let (word, tone, slot) = match finding.verdict {
            Verdict::Good => ("ok  ", Tone::Good, 0),
            Verdict::Warning => ("warn", Tone::Warn, 1),
            Verdict::Bad => ("BAD ", Tone::Bad, 2),
            Verdict::Unreachable => ("GONE", Tone::Bad, 3),
        };
        counts[slot] += 1;
        let word = paint(word, tone, look.colours);
        // What a server says must not drive a terminal.
        let seen: String = finding.seen.chars().filter(|c| !c.is_control()).collect();
        // Writing to a String cannot fail.
        let lines = wrapped(&format!("{}: {seen}", finding.part), look.width);
        let _ = writeln!(out, "{word}  {}", lines.join(MARGIN));
        if !finding.cure.is_empty() {
            let lines = wrapped(&format!("→ {}", finding.cure), look.width);
            let _ = writeln!(out, "      {}", lines.join(MARGIN));
        }
    }
    let [good, warnings, bad, gone] = counts;
    let _ = writeln!(
        out,
        "{good} ok, {warnings} warnings, {bad} bad, {gone} unreachable"
    );
    out
}

/// Between the lines of one finding.
const MARGIN: &str = "\n      ";

/// Lines of whole words that fit behind the margin.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let room = width.saturating_sub(MARGIN.len() - 1);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    fn finding(verdict: Verdict, cure: &str) -> Finding {
        Finding {
            verdict,
            part: "broker a".to_owned(),
            seen: "seen\u{1b}[31m".to_owned(),
            cure: cure.to_owned(),
        }
    }

    #[test]
    fn the_gravest_finding_decides_and_every_cure_is_said() {
        let mut report = Report::default();
        assert_eq!(code(report.worst()), exit::DONE);
        for (verdict, wanted) in [
            (Verdict::Good, exit::DONE),
            (Verdict::Warning, exit::DONE),
            (Verdict::Bad, exit::FAILED),
            (Verdict::Unreachable, exit::UNREACHABLE),
            (Verdict::Good, exit::UNREACHABLE),
        ] {
            report.findings.push(finding(verdict, "mend it"));
            assert_eq!(code(report.worst()), wanted);
        }
        let text = text(&report, Look::PAGE);
        assert_eq!(text.matches("→ mend it").count(), 5);
        assert!(
            text.ends_with("2 ok, 1 warnings, 1 bad, 1 unreachable\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
        assert_eq!(wrapped("a bc def", 11), ["a bc", "def"]);
        assert_eq!(wrapped("a bc def", usize::MAX), ["a bc def"]);
    }
}
