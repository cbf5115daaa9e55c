//! Command line: one file a command.

// First: its macro is everybody's.
#[macro_use]
mod output;
mod prompt;

pub mod check;
mod client;
pub mod commands;
pub mod completions;
mod context;
pub mod deadletter;
#[cfg(feature = "lab")]
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod drill;
pub mod exit;
pub mod failover;
pub mod forget;
pub mod group;
pub mod history;
pub mod journal;
pub mod man_pages;
pub mod run;
pub mod schema;
pub mod send;
pub mod sessions;
#[cfg(feature = "lab")]
pub mod simulate;
pub mod status;
pub mod support_bundle;
pub mod switchover;
mod table;
pub mod token;
pub mod topology;
pub mod trace;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// Of what the program has with its laboratory only.
#[cfg(feature = "lab")]
macro_rules! lab_examples {
    () => {
        "  tandem demo --seconds 40\n  tandem drill kill-leader drain\n"
    };
}
#[cfg(not(feature = "lab"))]
macro_rules! lab_examples {
    () => {
        "  tandem drill --live\n"
    };
}

/// Shown under `tandem --help`.
const AFTER: &str = concat!(
    "\
Examples:
  tandem check site-1.properties site-2.properties
  tandem topology apply --config site-1.properties
  tandem status --watch
  tandem doctor --config site-1.properties
  tandem sessions --find 1001 --watch
  tandem history --watch
  tandem trace 4711-0815
  tandem group stop agents --url http://127.0.0.1:9602
  tandem switchover --to gc-2 --wait
  tandem deadletter list --config site-1.properties
  tandem send 'MakeReady#1001' --broker 127.0.0.1:5672
",
    lab_examples!(),
    "\n\
Exit codes:
  0   done
  1   what was asked for failed, or the answer is no
  64  usage or configuration error
  69  broker, peer or admin API unreachable
  70  internal error"
);

/// A paired-site broker connector: agent commands from RabbitMQ to Cisco Finesse and back, two
/// instances as one.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, after_help = AFTER, arg_required_else_help = true)]
pub struct Cli {
    /// Print JSON for machines
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one instance in the foreground
    Run(run::Args),
    /// Validate property files and print the effective configuration
    Check(check::Args),
    /// The broker objects that a configuration needs: print or apply them
    Topology(topology::Args),
    /// Run a downstream simulator in the foreground
    #[cfg(feature = "lab")]
    Simulate(simulate::Args),
    /// Show an instance: roles, brokers, downstreams, peers, sessions
    Status(status::Args),
    /// Show who owns which agent
    Sessions(sessions::Args),
    /// Stop or start a group of command queues on an instance
    Group(group::Args),
    /// Show what changed lately on an instance, and why
    History(history::Args),
    /// What happened to a command, told by all members
    Trace(trace::Args),
    /// Prove on the live brokers that messages flow, consumers are registered and settings match
    Doctor(doctor::Args),
    /// Switch a group's failover off, or make an instance its leader
    Failover(failover::Args),
    /// Hand the lead over to another instance, without losing anything
    Switchover(switchover::Args),
    /// Finish what is started, hand over the sessions, stop consuming, stay up
    Drain(drain::Args),
    /// Say that a lost instance is gone for good: it is no cause of doubt any more
    Forget(forget::Args),
    /// The commands that clients can send: arguments, repeat safety, what each asks
    Commands(commands::Args),
    /// Contracts for machines: JSON Schemas, AsyncAPI, OpenAPI
    Schema(schema::Args),
    /// What the journal of a stopped instance holds
    Journal(journal::Args),
    /// Send one command as a client would, print its reply and events
    Send(send::Args),
    /// Work on the dead letters: list, show, send again, throw away
    Deadletter(deadletter::Args),
    /// Write one archive without secrets for those who help
    SupportBundle(support_bundle::Args),
    /// Show a pair at work on this machine, and what a kill of either half does
    #[cfg(feature = "lab")]
    Demo(demo::Args),
    /// Measure failovers: seconds, lost, doubled, in doubt
    Drill(drill::Args),
    /// Make a token for the admin API, and its line for admin.tokens-file
    Token(token::Args),
    /// Write the manual pages, for packages
    #[command(hide = true)]
    ManPages(man_pages::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

/// Entry point of the program.
pub fn main() -> ExitCode {
    output::ended(from(std::env::args_os()))
}

/// Runs one command line; the first word is the program's name.
fn from(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    match Cli::try_parse_from(&words) {
        Ok(cli) => dispatch(cli),
        Err(error) => usage(&error, words.iter().any(|word| word == "--json")),
    }
}

fn dispatch(cli: Cli) -> ExitCode {
    let json = cli.json;
    output::speak_json(json);
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(args, json),
        Command::Topology(args) => topology::run(args, json),
        #[cfg(feature = "lab")]
        Command::Simulate(args) => simulate::run(args, json),
        Command::Status(args) => status::run(args, json),
        Command::Sessions(args) => sessions::run(args, json),
        Command::Group(args) => group::run(args, json),
        Command::History(args) => history::run(args, json),
        Command::Trace(args) => trace::run(args, json),
        Command::Doctor(args) => doctor::run(args, json),
        Command::Failover(args) => failover::run(args, json),
        Command::Switchover(args) => switchover::run(args, json),
        Command::Drain(args) => drain::run(args, json),
        Command::Forget(args) => forget::run(args, json),
        Command::Commands(args) => commands::run(&args, json),
        Command::Schema(args) => schema::run(&args),
        Command::Journal(args) => journal::run(&args, json),
        Command::Send(args) => send::run(&args, json),
        Command::Deadletter(args) => deadletter::run(&args, json),
        Command::SupportBundle(args) => support_bundle::run(args, json),
        #[cfg(feature = "lab")]
        Command::Demo(args) => demo::run(&args, json),
        Command::Drill(args) => drill::run(&args, json),
        Command::Token(args) => token::run(&args, json),
        Command::ManPages(args) => man_pages::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Help and version were asked for; anything else is a usage error.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::shown(error.print());
            return ExitCode::SUCCESS;
        }
        _ if json => {
            output::speak_json(true);
            let text = error.render().to_string();
            complain!("{}", text.trim_start_matches("error: ").trim_end());
        }
        // Nothing of it goes to stdout.
        _ => {
            let _ = error.print();
        }
    }
    ExitCode::from(exit::USAGE)
}

/// Runs one asynchronous command to its exit code.
fn block_on(command: impl Future<Output = u8>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => ExitCode::from(runtime.block_on(command)),
        Err(error) => {
            complain!("tandem: cannot start: {error}");
            ExitCode::from(exit::INTERNAL)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn code(line: &str) -> ExitCode {
        from(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_0_usage_errors_are_64() {
        for line in [
            "tandem --help",
            "tandem --version",
            "tandem status --help",
            "tandem completions bash",
            "tandem commands",
            "tandem commands --json",
            "tandem commands --markdown",
            "tandem schema openapi",
            "tandem schema asyncapi",
        ] {
            assert_eq!(code(line), ExitCode::SUCCESS, "{line}");
        }
        for line in [
            "tandem",
            "tandem nonsense",
            "tandem status --nonsense",
            "tandem group stop",
            "tandem failover stop",
            "tandem switchover",
            "tandem forget",
            "tandem drain --limit 0",
            "tandem check",
            "tandem doctor",
            "tandem doctor --config /nonexistent/file.properties",
            "tandem completions tcsh",
            "tandem check /nonexistent/file.properties",
            "tandem status --url ftp://127.0.0.1",
        ] {
            assert_eq!(code(line), ExitCode::from(exit::USAGE), "{line}");
        }
    }

    #[test]
    fn json_may_stand_anywhere() {
        for line in [
            "tandem --json status",
            "tandem status --json",
            "tandem topology print --config x --json",
            "tandem simulate finesse --json",
            "tandem group --json stop agents",
            "tandem failover start agents --json",
            "tandem switchover --to gc-2 --json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.json, "{line}");
        }
    }

    #[test]
    fn help_says_every_command_and_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for word in [
            "check",
            "topology",
            "simulate",
            "status",
            "sessions",
            "group",
            "failover",
            "switchover",
            "drain",
        ] {
            assert!(help.contains(&format!("\n  {word} ")), "{word}\n{help}");
        }
        for code in [0, 1, 64, 69, 70] {
            assert!(help.contains(&format!("\n  {code} ")), "{code}\n{help}");
        }
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
        for name in ["history", "send"] {
            let command = Cli::command();
            let found = command.find_subcommand(name).unwrap();
            let after = found.get_after_help().unwrap().to_string();
            let codes = after
                .split("Exit codes: ")
                .nth(1)
                .unwrap()
                .replace('\n', " ");
            for code in ["0 ", "; 1 ", "; 64 ", "; 69 "] {
                assert!(codes.contains(code), "{name}: {code} in {codes}");
            }
        }
    }

    /// Runs the command lines against one listener; each is code and line without the address.
    async fn against(token: Option<&str>, lines: &'static [(u8, &str)]) {
        let it = crate::admin::testing::Fixture::start("127.0.0.1:0", token).await;
        let url = it.base.clone();
        let check = move || {
            for (wanted, line) in lines {
                let got = code(&format!("tandem {line} --url {url}"));
                assert_eq!(got, ExitCode::from(*wanted), "{line}");
            }
        };
        tokio::task::spawn_blocking(check).await.unwrap();
    }

    #[tokio::test]
    async fn commands_against_an_instance() {
        against(
            None,
            &[
                (0, "status"),
                (0, "status --json"),
                (0, "sessions"),
                (0, "sessions --json"),
                (0, "sessions --find 1001 --owner gc-1 --limit 5"),
                (0, "history"),
                (0, "history --json --last 3"),
                (0, "trace c-1"),
                (1, "trace c-2 --json"),
                (0, "group stop agents"),
                (1, "group start agents"),
                (1, "group stop no/such?group"),
                (0, "failover stop agents"),
                (1, "failover start agents"),
                (0, "switchover --to gc-2"),
                (1, "switchover --to gc-9"),
                (0, "switchover --to gc-1 --wait --json"),
                (0, "forget gc-3"),
                (1, "forget gc-2 --json"),
                (64, "forget no/such"),
                (0, "drain --json"),
                (0, "drain --no-wait"),
                (64, "drain --token-file /nonexistent"),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn without_the_token_changes_are_refused() {
        against(
            Some("s3cret"),
            &[(1, "drain"), (1, "group stop agents"), (0, "status")],
        )
        .await;
    }
}
