//! `tandem check`: validates property files, alone and together.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::doctor::{code, text};
use super::{block_on, exit, output};
use crate::doctor;
use crate::settings::{self, Effective, Finding, Findings, Loaded};

/// Arguments of `tandem check`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Exit codes: 0 no errors (warnings allowed); 64 a file has errors. With --online also: 1 something
is wrong on a broker; 69 a broker or its management API cannot be reached")]
pub struct Args {
    /// Ask the brokers of each file too, where no file has errors: reached, each entry of the list
    /// a broker of its own, versions and queue types, objects and links as planned, the user's
    /// rights. Needs no instance and changes nothing
    #[arg(long)]
    pub online: bool,
    /// Property files; two or more are also checked against each other
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Checks the files and prints what was found: exit 0 without errors (warnings are allowed), 64 with.
pub fn run(args: Args, json: bool) -> ExitCode {
    let report = Report::make(
        &args.files,
        &|name| std::env::var(name).ok(),
        &settings::variables(),
    );
    if args.online && report.ok() {
        return online(&report, json);
    }
    if json {
        output::print(&format!("{:#}\n", report.json()));
    } else {
        output::print(&report.text());
    }
    if report.ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::USAGE)
    }
}

/// Files without errors, and what their brokers are like.
fn online(report: &Report, json: bool) -> ExitCode {
    if !json {
        output::print(&report.text());
    }
    let mut told = report.json();
    block_on(async move {
        let mut worst = exit::DONE;
        let mut each = Vec::new();
        for (path, loaded) in &report.files {
            let Ok(loaded) = loaded else { continue };
            let found = match doctor::look(&loaded.settings).await {
                Ok(found) => found,
                Err(error) => {
                    complain!("tandem check: {}: {error}", path.display());
                    return exit::USAGE;
                }
            };
            worst = worst.max(code(found.worst()));
            if json {
                each.push(
                    json!({"file": path, "worst": found.worst(), "findings": found.findings}),
                );
            } else {
                let heading = format!("\nbrokers of {}\n", path.display());
                output::print(&(heading + &text(&found, output::look())));
            }
        }
        if json {
            told["online"] = json!(each);
            output::print(&format!("{told:#}\n"));
        }
        worst
    })
}

/// The result for all files.
struct Report {
    files: Vec<(PathBuf, Result<Loaded, Findings>)>,
    /// Findings between the files, and on the environment.
    pair: Findings,
}

impl Report {
    fn make(paths: &[PathBuf], env: settings::Env<'_>, variables: &[String]) -> Self {
        let files: Vec<_> = paths
            .iter()
            .map(|path| (path.clone(), settings::load_named(path, env, variables)))
            .collect();
        let loaded: Vec<Loaded> = files
            .iter()
            .filter_map(|(_, result)| result.as_ref().ok().cloned())
            .collect();
        let mut pair = settings::check_pair(&loaded);
        for finding in settings::unknown_variables() {
            pair.push(finding);
        }
        Self { files, pair }
    }

    fn ok(&self) -> bool {
        self.files.iter().all(|(_, result)| result.is_ok()) && !self.pair.has_errors()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let (mut errors, mut warnings) = (0, 0);
        let mut list = |out: &mut String, findings: &[Finding]| {
            for finding in findings {
                if finding.is_error() {
                    errors += 1
                } else {
                    warnings += 1
                }
                out.push_str(&format!("{finding}\n"));
            }
        };
        for (path, result) in &self.files {
            out.push_str(&format!("{}\n", path.display()));
            match result {
                Ok(loaded) => {
                    out.push_str(&table(&loaded.effective));
                    list(&mut out, &loaded.warnings);
                }
                Err(findings) => list(&mut out, &findings.0),
            }
            out.push('\n');
        }
        if !self.pair.is_empty() {
            out.push_str("together\n");
            list(&mut out, &self.pair.0);
            out.push('\n');
        }
        let verdict = if self.ok() { "ok" } else { "not usable" };
        let skipped = self.files.len() > 1 && self.files.iter().any(|(_, result)| result.is_err());
        let note = if skipped {
            "; files with errors were not compared with the others"
        } else {
            ""
        };
        out.push_str(&format!(
            "{verdict}: {errors} error(s), {warnings} warning(s){note}\n"
        ));
        out
    }

    fn json(&self) -> Value {
        let split = |findings: &[Finding]| {
            let (errors, warnings): (Vec<_>, Vec<_>) = findings.iter().partition(|f| f.is_error());
            (json!(errors), json!(warnings))
        };
        let files: Vec<Value> = self
            .files
            .iter()
            .map(|(path, result)| {
                let (effective, findings) = match result {
                    Ok(loaded) => (loaded.effective.as_slice(), loaded.warnings.as_slice()),
                    Err(findings) => (&[][..], findings.0.as_slice()),
                };
                let (errors, warnings) = split(findings);
                json!({"file": path, "ok": result.is_ok(), "effective": effective, "errors": errors, "warnings": warnings})
            })
            .collect();
        let (errors, warnings) = split(&self.pair.0);
        json!({"ok": self.ok(), "files": files, "pair": {"errors": errors, "warnings": warnings}})
    }
}

/// Aligned columns: key, value, origin.
fn table(lines: &[Effective]) -> String {
    /// Wider values push only their own origin to the right.
    const WIDEST: usize = 60;
    let width = |text: &str| text.chars().count();
    let key = lines.iter().map(|line| width(&line.key)).max().unwrap_or(0);
    let value = lines
        .iter()
        .map(|line| width(&line.value))
        .filter(|w| *w <= WIDEST)
        .max()
        .unwrap_or(0);
    lines
        .iter()
        .map(|line| {
            format!(
                "  {:key$}  {:value$}  {}\n",
                line.key, line.value, line.origin
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LEAST: &str = "broker.url.1=localhost\ndownstream.url.1=http://localhost/finesse/api\n";

    fn report(texts: &[String]) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let write = |(n, text): (usize, &String)| {
            let path = folder.path().join(format!("site-{n}.properties"));
            fs::write(&path, text).unwrap();
            path
        };
        let paths: Vec<_> = texts.iter().enumerate().map(write).collect();
        Report::make(&paths, &|_| None, &[])
    }

    fn instance(id: &str, more: &str) -> String {
        format!("{LEAST}instance.id={id}\ncontrol.key=6b1d9f3e07a84c52b6e8d4013f97ac25\n{more}")
    }

    #[test]
    fn good_files_print_an_aligned_table_without_secrets() {
        let report = report(&[instance("gc-1", "")]);
        let text = report.text();
        assert!(
            report.ok() && text.ends_with("ok: 0 error(s), 0 warning(s)\n"),
            "{text}"
        );
        let columns: Vec<_> = text.lines().filter_map(|l| l.find("  default")).collect();
        assert!(
            columns.len() > 20 && columns.iter().all(|c| *c == columns[0]),
            "{text}"
        );
        assert!(
            text.contains("[redacted]") && !text.contains("6b1d9f3e07"),
            "{text}"
        );
    }

    #[test]
    fn every_file_is_reported_even_when_one_is_bad() {
        let report = report(&["mode=x\n".into(), instance("gc-1", "")]);
        let text = report.text();
        assert!(!report.ok() && text.contains("mode = x") && text.contains("site-1.properties"));
        assert!(
            text.contains("not usable: 3 error(s)") && text.contains("not compared"),
            "{text}"
        );
    }

    #[test]
    fn json_holds_the_same() {
        let equal = report(&[
            instance("gc-1", ""),
            instance("gc-1", "consumer.priority=1\n"),
        ]);
        let json = equal.json();
        assert_eq!(
            (json["ok"].as_bool(), json["files"][0]["ok"].as_bool()),
            (Some(false), Some(true))
        );
        assert_eq!(json["pair"]["errors"][0]["key"], "instance.id");
        let line = &json["files"][1]["effective"][0];
        assert_eq!(
            (line["key"].as_str(), line["value"].as_str()),
            (Some("instance.id"), Some("gc-1"))
        );
        assert!(!json.to_string().contains("6b1d9f3e07"));
        let bad = report(&["mode=x\n".into()]).json();
        assert_eq!(
            (
                bad["files"][0]["errors"][0]["line"].as_u64(),
                &bad["files"][0]["effective"]
            ),
            (Some(1), &json!([]))
        );
    }
}
