//! Messages on their way: probes through every federated exchange, a command through every broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;

use super::Report;
use crate::broker::probes::Probes;
use crate::client::{Client, ClientOptions, Command, Incoming};
use crate::settings::Settings;

/// A command and its reply may take so long.
const REPLY: Duration = Duration::from_secs(10);
/// Above this a link works but is slow.
const SLOW: Duration = Duration::from_millis(500);

pub(super) async fn probes(probes: &Probes, settings: &Settings, report: &mut Report) {
    let cluster = &settings.cluster_name;
    let exchanges = ["events", "replies", "control"].map(|name| format!("{cluster}.{name}"));
    for crossing in probes.cross(&exchanges, &address()).await {
        let part = format!("link {} → {}", crossing.from, crossing.to);
        match crossing.result {
            Ok(took) if took > SLOW => report.warn(
                part,
                format!(
                    "{}: a probe took {} ms",
                    crossing.exchange,
                    took.as_millis()
                ),
                "look at the load of both brokers and at the line between the sites",
            ),
            Ok(took) => report.good(
                part,
                format!(
                    "{}: a probe took {} ms",
                    crossing.exchange,
                    took.as_millis()
                ),
            ),
            Err(why) => report.bad(
                part,
                format!("{}: {why}", crossing.exchange),
                "the user needs configure, write and read permission on the cluster's objects and \
                 on amq.gen-*; the link must run: `tandem topology apply --wait`",
            ),
        }
    }
}

/// An address that is nobody's.
pub(super) fn address() -> String {
    let number = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
    format!("tandem-doctor-{number:016x}")
}

/// A real command through each broker but those: `Beat` of an unknown client asks and changes
/// nothing.
pub(super) async fn commands(settings: &Settings, gone: &BTreeSet<String>, report: &mut Report) {
    let first = settings.groups.first();
    let Some(queue) = first.and_then(|group| group.queues.first()) else {
        return;
    };
    let urls = settings.broker.urls.iter();
    let reached = urls.filter(|broker| !gone.contains(&broker.label));
    let asked = reached.map(async |broker| {
        let mut options = ClientOptions::new(address());
        options.cluster = settings.cluster_name.clone();
        options.queue = queue.clone();
        options.first_limit = settings.broker.timeout.min(REPLY);
        options.tls = settings.broker.tls.clone();
        // A command that is not answered is not sent again and expires.
        options.resend_after = 4 * REPLY;
        let answer = command(broker.amqp.clone(), options).await;
        (format!("command by way of {}", broker.label), answer)
    });
    for (part, answer) in join_all(asked).await {
        match answer {
            Ok((instance, took)) => report.good(
                part,
                format!("answered by {instance} after {} ms", took.as_millis()),
            ),
            Err(why) => report.bad(
                part,
                why,
                "is an instance running and leading (`tandem status`)? do the links run, and has \
                 the user the rights of a client too (docs/security.md)?",
            ),
        }
    }
}

async fn command(uri: String, options: ClientOptions) -> Result<(String, Duration), String> {
    let kind = format!("Beat#{}", options.destination);
    let (client, mut inbox) = Client::connect(vec![uri], options)
        .await
        .map_err(|error| format!("not sent: {error}"))?;
    let mut command = Command::new(kind, "");
    command.deadline = Some(SystemTime::now() + REPLY);
    let started = Instant::now();
    let id = client
        .send(command)
        .await
        .map_err(|error| format!("not sent: {error}"))?;
    let answer = async {
        while let Some(incoming) = inbox.next().await {
            if let Incoming::Reply(reply) = incoming
                && reply.correlation_id.as_deref() == Some(&id)
            {
                return Some(reply.field("instance").to_owned());
            }
        }
        None
    };
    match tokio::time::timeout(REPLY, answer).await {
        Ok(Some(instance)) => Ok((instance, started.elapsed())),
        _ => Err(format!("no reply within {} s", REPLY.as_secs())),
    }
}
