//! `tandem send`: sends one command, prints the reply and the events it causes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{block_on, context, exit, prompt};
use crate::client::{Client, ClientError, ClientOptions, Command, Inbox, Incoming, Message};
use crate::model::text::{duration, without_mark};
use crate::net::{KeyNames, TlsClient, TlsFiles, amqp};
use crate::settings::{self, Settings};

/// Arguments of `tandem send`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
A password in --broker stands in every list of processes: rather --user with --password-file, or
--config.
Exit codes: 0 done or accepted; 1 another outcome, or no reply in time; 64 usage or configuration; 69 no broker reachable")]
pub struct Args {
    /// Command and whom it is for: MakeReady#1001, Hello#desk-1
    #[arg(value_name = "COMMAND#ID")]
    pub command: String,
    /// Arguments: text with commas, or a JSON object
    #[arg(value_name = "BODY", default_value = "")]
    pub body: String,
    /// Broker, host:port or amqp://user:password@host:port/vhost; give it again for a failover list
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    pub broker: Vec<String>,
    /// User for brokers whose URL has none, and in place of the file's with --config; the password
    /// comes from --password-file or is asked for, so that it is in no list of processes
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// File that holds the password of --user; without it a terminal is asked
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
    /// Property file of a site: its brokers, their user and certificates, cluster.name and
    /// command.queue, where no option says otherwise
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Certificates of private authorities (PEM) for amqps, beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM) for amqps; the login too, where the URL has no user
    #[arg(long, value_name = "FILE", requires = "private_key_file")]
    pub certificate_file: Option<PathBuf>,
    /// Key of the client certificate (PEM, not encrypted)
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    pub private_key_file: Option<PathBuf>,
    /// The client's own address: events for it are printed
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// How long to wait for the reply, connecting included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Command id: the same one again is answered, not executed again
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Which sending of this id it is: 2 or more for a resend
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub attempt: u32,
    /// Command queue [default: Connector1]
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
    /// cluster.name of the connectors [default: tandem]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Go on printing events this long after the reply
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration)]
    pub events_for: Duration,
}

/// Sends the command. Exit 0 where it is done or accepted, 1 for another outcome or none in time,
/// 64 for arguments that cannot be, 69 where no broker is reachable. With `json` each reply and
/// event is one JSON line.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    match prepared(args) {
        Ok((args, settings)) => block_on(send(&args, settings.as_ref(), json)),
        Err(wrong) => {
            complain!("{wrong}");
            ExitCode::from(exit::USAGE)
        }
    }
}

/// The arguments with the brokers to be used, and the property file. What is wrong where something
/// is.
fn prepared(args: &Args) -> Result<(Args, Option<Settings>), String> {
    let own = |wrong: String| format!("tandem send: {wrong}");
    check(args).map_err(|wrong| own(wrong.to_owned()))?;
    let loaded = args.config.as_deref().map(settings::load_from_process);
    let loaded = loaded
        .transpose()
        .map_err(|findings| findings.to_string())?;
    let settings = loaded.map(|loaded| loaded.settings);
    let mut args = args.clone();
    if args.broker.is_empty() {
        args.broker = settings.as_ref().map(context::brokers).unwrap_or_default();
        if args.user.is_some() {
            args.broker.iter_mut().for_each(forget_login);
        }
    }
    as_user(&mut args).map_err(own)?;
    Ok((args, settings))
}

/// Takes user and password out of a URL.
fn forget_login(broker: &mut String) {
    let begin = broker.find("://").map_or(0, |at| at + "://".len());
    let host = broker[begin..].find(['/', '?']);
    let end = host.map_or(broker.len(), |at| begin + at);
    if let Some(at) = broker[begin..end].rfind('@') {
        broker.replace_range(begin..=begin + at, "");
    }
}

/// Puts user and password into the URLs that name nobody.
fn as_user(args: &mut Args) -> Result<(), String> {
    let Some(user) = &args.user else {
        return Ok(());
    };
    let text = match &args.password_file {
        Some(file) => {
            context::secret_file("--password-file", file).map_err(|error| error.to_string())?
        }
        None => prompt::password(&format!("Password of {user}: "))
            .map_err(|error| format!("--user wants --password-file, or a terminal: {error}"))?,
    };
    let password = without_mark(text.expose()).trim_end_matches(['\r', '\n']);
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let login = format!("{}:{}@", encoded(user), encoded(password));
    for broker in &mut args.broker {
        if amqp::names_nobody(broker) {
            let (scheme, rest) = broker.split_once("://").unwrap_or(("amqp", broker));
            *broker = format!("{scheme}://{login}{rest}");
        }
    }
    Ok(())
}

/// Brokers and how to be a client of them: options, else the property file, else what is usual.
/// The brokers are in `args` by then.
fn client_of(args: &Args, settings: Option<&Settings>) -> (Vec<String>, ClientOptions) {
    let destination = args
        .destination
        .clone()
        .unwrap_or_else(|| format!("send-{}", std::process::id()));
    let mut options = ClientOptions::new(destination);
    let brokers = args.broker.clone();
    if let Some(settings) = settings {
        let queue = context::command_queue(settings);
        options.queue = queue.map_or(options.queue, str::to_owned);
        options.cluster.clone_from(&settings.cluster_name);
        options.tls = settings.broker.tls.clone();
    }
    options.queue = args.queue.clone().unwrap_or(options.queue);
    options.cluster = args.cluster.clone().unwrap_or(options.cluster);
    let files = TlsFiles {
        ca_file: args.ca_file.clone(),
        certificate_file: args.certificate_file.clone(),
        private_key_file: args.private_key_file.clone(),
    };
    // Without any of these options the file's keys are those to be named in messages.
    if files != TlsFiles::default() || settings.is_none() {
        let set = options.tls.files();
        let files = TlsFiles {
            ca_file: files.ca_file.or_else(|| set.ca_file.clone()),
            certificate_file: files
                .certificate_file
                .or_else(|| set.certificate_file.clone()),
            private_key_file: files
                .private_key_file
                .or_else(|| set.private_key_file.clone()),
        };
        options.tls = TlsClient::new(files, KeyNames::OPTIONS);
    }
    options.first_limit = args.timeout.min(Duration::from_secs(5));
    (brokers, options)
}

fn check(args: &Args) -> Result<(), &'static str> {
    let (name, id) = args
        .command
        .split_once('#')
        .ok_or("the command is COMMAND#ID, for example MakeReady#1001")?;
    if name.trim().is_empty() || id.trim_matches(['#', ' ']).is_empty() {
        return Err("the command is COMMAND#ID, for example MakeReady#1001");
    }
    if args.command.len() > 255 || args.id.as_ref().is_some_and(|id| id.len() > 255) {
        return Err("command and id are at most 255 bytes each");
    }
    if args.attempt == 0 {
        return Err("--attempt counts from 1");
    }
    Ok(())
}

fn is_object(body: &str) -> bool {
    body.trim_start().starts_with('{')
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(body).is_ok()
}

async fn send(args: &Args, settings: Option<&Settings>, json: bool) -> u8 {
    let started = Instant::now();
    let (brokers, options) = client_of(args, settings);
    let (client, mut inbox) = match Client::connect(brokers, options).await {
        Ok(connected) => connected,
        Err(error) => return failed(&error),
    };
    let mut command = Command::new(args.command.clone(), args.body.clone());
    command.json = is_object(&args.body);
    command.id.clone_from(&args.id);
    command.attempt = args.attempt;
    let left = args.timeout.saturating_sub(started.elapsed());
    let exchange = exchange(&client, command, &mut inbox, json);
    let code = match tokio::time::timeout(left, exchange).await {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => return failed(&error),
        Err(_) => {
            complain!("tandem send: no reply within {:?}", args.timeout);
            exit::FAILED
        }
    };
    let _ = tokio::time::timeout(args.events_for, print_events(&mut inbox, json)).await;
    // The broker deletes the queues at once where the client says goodbye.
    drop(client);
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        while inbox.next().await.is_some() {}
    })
    .await;
    code
}

fn failed(error: &ClientError) -> u8 {
    complain!("tandem send: {error}");
    exit::of_client(error)
}

/// Sends and waits for the reply to it; prints what else arrives meanwhile.
async fn exchange(
    client: &Client,
    command: Command,
    inbox: &mut Inbox,
    json: bool,
) -> Result<u8, ClientError> {
    let sending = client.send(command);
    tokio::pin!(sending);
    let mut id = None;
    let mut early = Vec::new();
    loop {
        tokio::select! {
            sent = &mut sending, if id.is_none() => {
                let sent = sent?;
                if let Some(code) = early.iter().find_map(|reply| answers(reply, &sent)) {
                    return Ok(code);
                }
                id = Some(sent);
            }
            news = inbox.next() => {
                let Some(news) = news else { return Err(ClientError::Closed) };
                print(&news, json);
                if let Incoming::Reply(reply) = news {
                    match &id {
                        Some(id) => if let Some(code) = answers(&reply, id) {
                            return Ok(code);
                        },
                        None => early.push(reply),
                    }
                }
            }
        }
    }
}

fn answers(reply: &Message, id: &str) -> Option<u8> {
    (reply.correlation_id.as_deref() == Some(id)).then(|| match reply.field("outcome") {
        "OK" | "ACCEPTED" => 0,
        _ => exit::FAILED,
    })
}

async fn print_events(inbox: &mut Inbox, json: bool) {
    while let Some(news) = inbox.next().await {
        print(&news, json);
    }
}

fn print(news: &Incoming, json: bool) {
    match news {
        Incoming::Reply(message) => print_message("reply", message, json),
        Incoming::Event(message) => print_message("event", message, json),
        Incoming::Connected(broker) if !json => complain!("connected to {broker}"),
        Incoming::Disconnected { broker, reason } => complain!("lost {broker}: {reason}"),
        Incoming::Connected(_) => {}
    }
}

fn print_message(what: &str, message: &Message, json: bool) {
    if json {
        let body = if message.json.is_null() {
            json!(message.text)
        } else {
            message.json.clone()
        };
        super::output::print(&format!(
            "{}\n",
            json!({"kind": what, "correlationId": message.correlation_id,
                   "instance": message.app_id, "headers": message.headers,
                   "unreadable": message.unreadable, "body": body})
        ));
    } else {
        let from = message.app_id.as_deref().unwrap_or("-");
        if let Some(why) = &message.unreadable {
            complain!("the next one is not a connector's: {why}");
        }
        super::output::print(&format!("{what} from {from}: {}\n", message.text));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Cli::parse_from(["send"].iter().chain(words)).args
    }

    #[test]
    fn what_is_no_command_is_a_usage_error() {
        for wrong in ["MakeReady", "#1001", "MakeReady#", "MakeReady# #"] {
            let code = run(&args(&[wrong, "--broker", "127.0.0.1:1"]), false);
            assert_eq!(code, ExitCode::from(exit::USAGE), "{wrong}");
        }
        assert!(check(&args(&["Hello# desk", "--broker", "x"])).is_ok());
    }

    #[test]
    fn a_broker_that_is_not_there_is_69() {
        let args = args(&["Hello#d", "--broker", "127.0.0.1:1", "--timeout", "200ms"]);
        assert_eq!(run(&args, true), ExitCode::from(exit::UNREACHABLE));
    }

    #[test]
    fn a_password_comes_from_a_file_into_urls_that_name_nobody() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "p@ss/w\n").unwrap();
        let file = file.path().display().to_string();
        let brokers = [
            "--broker",
            "a:5672",
            "--broker",
            "amqps://x:y@b/v",
            "--broker",
            "amqps://c",
        ];
        let login = ["--user", "me", "--password-file", file.as_str()];
        let mut args = args(&[&["Hello#d"], &brokers[..], &login[..]].concat());
        as_user(&mut args).unwrap();
        let wanted = [
            "amqp://me:p%40ss%2Fw@a:5672",
            "amqps://x:y@b/v",
            "amqps://me:p%40ss%2Fw@c",
        ];
        assert_eq!(args.broker, wanted);
        args.password_file = Some("/nonexistent".into());
        assert!(as_user(&mut args).is_err());
    }

    #[test]
    fn with_a_property_file_a_user_takes_the_place_of_the_files() {
        for (url, left) in [
            (
                "amqp://app:s3cret@a:5672,b:5672/v",
                "amqp://a:5672,b:5672/v",
            ),
            ("amqps://app@[::1]", "amqps://[::1]"),
            ("amqp://a:5672/x@y", "amqp://a:5672/x@y"),
            ("app:s3cret@a?x=@", "a?x=@"),
        ] {
            let mut broker = url.to_owned();
            forget_login(&mut broker);
            assert_eq!(broker, left);
        }
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let config = write(
            "site.properties",
            "instance.id=gc-1\nbroker.url.1=127.0.0.1:5999\nbroker.username=app\nbroker.password=of-the-file\n\
             downstream.url.1=http://localhost:8080/finesse/api\n",
        );
        let password = write("password", "mine\n");
        let login = ["--user", "me", "--password-file", password.as_str()];
        let of_file = ["Hello#d", "--config", config.as_str()];
        let brokers = |words: &[&str]| prepared(&args(words)).unwrap().0.broker;
        let own = brokers(&[&of_file[..], &login[..]].concat());
        assert!(
            own[0].starts_with("amqp://me:mine@127.0.0.1:5999"),
            "{own:?}"
        );
        assert_eq!(own.len(), 1);
        let usual = brokers(&of_file);
        assert!(usual[0].contains("app:of"), "{usual:?}");
    }

    #[test]
    fn only_json_objects_are_sent_as_json() {
        assert!(is_object(r#" {"number":"5550142"}"#));
        for text in ["", "secret,7001", "{not json", "[1]", "5550142"] {
            assert!(!is_object(text), "{text}");
        }
    }
}
