//! Drills on a running pair: what loses nothing. The lead is handed over and back; with a
//! property file at hand the serving instance is also put off its broker, so that it goes on over
//! its spare connection, and commands that change nothing measure how clients fare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use super::Row;
use crate::broker::fence;
use crate::broker::management::ManagementClient;
use crate::cli::client::{Admin, ClientError, Target};
use crate::client::tally::{Answer, Tally};
use crate::client::{Client, ClientOptions, Command, Incoming};
use crate::engine::View;
use crate::settings::Settings;

/// How long a handover on a running pair may take.
const HANDOVER: Duration = Duration::from_secs(60);
/// How long an instance may take to serve again after it lost its broker.
const SPARE: Duration = Duration::from_secs(30);
/// The probes go on this long after a drill, so that the first commands after it are measured.
const AFTER: Duration = Duration::from_secs(2);
/// How long the management API may take to list a connection: its figures are some seconds old.
const LISTED: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// Pause between two probes.
const PROBE: Duration = Duration::from_millis(50);
/// A probe that is not answered by then is lost.
const ANSWERED: Duration = Duration::from_secs(30);

/// Hands the lead to a living peer and back to whoever had it, then drills the spare broker.
pub(super) async fn run(
    target: &Target,
    settings: Option<&Settings>,
) -> Result<Vec<Row>, ClientError> {
    let admin = Admin::new(target)?;
    let before = admin.status().await?;
    let refuse = |text: &str| ClientError::Refused(text.to_owned());
    let mut rows = Vec::new();
    if before.mode == "active-passive" {
        let leader = leader(&before).ok_or_else(|| refuse("nobody leads now: nothing to drill"))?;
        let ids = before.peers.iter().filter(|peer| peer.state == "alive");
        let ids = ids.map(|peer| peer.instance.as_str());
        let other = ids
            .chain([before.instance.as_str()])
            .find(|id| *id != leader)
            .ok_or_else(|| refuse("no other instance is alive: the drill would be an outage"))?
            .to_owned();
        for to in [other, leader] {
            let probing = Probing::start(settings).await?;
            let (took, good) = switch(&admin, &to).await?;
            rows.push(row(format!("switchover to {to}"), took, good, probing).await);
        }
    } else {
        complain!("tandem drill: no switchover here: in active-active all lead");
    }
    match settings {
        Some(settings) => rows.push(spare(&admin, settings).await?),
        None => complain!(
            "tandem drill: without --config the spare-broker drill is left out, and nothing \
             counts commands"
        ),
    }
    Ok(rows)
}

async fn row(drill: String, took: Option<Duration>, done: bool, probing: Option<Probing>) -> Row {
    let mut row = Row {
        drill,
        first_new: took,
        silence: None,
        worst: None,
        counts: None,
        good: done,
        why: (!done).then(|| "not within its time".to_owned()),
    };
    if let Some(probing) = probing {
        probing.finish(&mut row).await;
    }
    row
}

async fn switch(admin: &Admin, to: &str) -> Result<(Option<Duration>, bool), ClientError> {
    let started = Instant::now();
    admin.post_to(&["switchover"], &[("to", to)]).await?;
    while started.elapsed() < HANDOVER {
        if leader(&admin.status().await?).as_deref() == Some(to) {
            return Ok((Some(started.elapsed()), true));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok((None, false))
}

/// Closes the instance's connections at the broker that it serves on, as a broker that restarts
/// would; it goes on over its spare connection, and returns after `broker.failback-hold`.
async fn spare(admin: &Admin, settings: &Settings) -> Result<Row, ClientError> {
    let refuse = |text: String| ClientError::Refused(text);
    let before = admin.status().await?;
    let Some((tag, label)) = consumes(&before) else {
        return Err(refuse(format!("{} does not consume now", before.instance)));
    };
    let brokers = settings.broker.urls.iter();
    let Some(broker) = brokers.into_iter().find(|url| url.label == label) else {
        return Err(refuse(format!(
            "{} serves on {label}, which is not in the property file",
            before.instance
        )));
    };
    let client = ManagementClient::of(&broker.management);
    let client = client.map_err(|error| refuse(error.to_string()))?;
    let probing = Probing::start(Some(settings)).await?;
    let started = close(&client, settings, &before.instance).await?;
    let mut back = None;
    while back.is_none() && started.elapsed() < SPARE {
        let now = consumes(&admin.status().await?);
        back = now
            .filter(|(other, _)| *other != tag)
            .map(|(_, broker)| (started.elapsed(), broker));
        tokio::time::sleep(POLL).await;
    }
    let (took, name) = match back {
        Some((took, on)) => (Some(took), format!("spare broker, to {on}")),
        None => (None, "spare broker".to_owned()),
    };
    Ok(row(name, took, took.is_some(), probing).await)
}

/// Closes an instance's connections; says when. The broker's list of them is some seconds old.
async fn close(
    client: &ManagementClient,
    settings: &Settings,
    instance: &str,
) -> Result<Instant, ClientError> {
    let begun = Instant::now();
    loop {
        let started = Instant::now();
        let closed = fence::close_all(client, &settings.cluster_name, instance).await;
        let why = match closed {
            Ok(0) => "its broker lists no connection of it".to_owned(),
            Ok(_) => return Ok(started),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > LISTED {
            let text = format!("the connections of {instance} cannot be closed: {why}");
            return Err(ClientError::Refused(text));
        }
        tokio::time::sleep(AFTER).await;
    }
}

/// Tag and broker of the first group's confirmed consumer.
fn consumes(view: &View) -> Option<(String, String)> {
    let group = view.groups.first().filter(|group| group.consuming)?;
    Some((group.tag.clone()?, group.broker.clone()?))
}

/// Who leads the first group, as this instance sees it.
fn leader(view: &View) -> Option<String> {
    let group = view.groups.first()?;
    if group.role.leads() {
        return Some(view.instance.clone());
    }
    let leads = |peer: &&crate::engine::view::PeerView| {
        let mut groups = peer.groups.iter();
        peer.state == "alive" && groups.any(|g| g.name == group.name && g.role.leads())
    };
    view.peers
        .iter()
        .find(leads)
        .map(|peer| peer.instance.clone())
}

/// A client that asks again and again, `Beat` of an address that is nobody's: any reply is
/// service.
struct Probing {
    /// Without a holder it would end, and with it the replies that are under way.
    _client: Client,
    tally: Arc<Tally>,
    in_doubt: Arc<AtomicU64>,
    asking: JoinHandle<()>,
    hearing: JoinHandle<()>,
}

impl Probing {
    /// `None` without a property file: the brokers and their user are not known then.
    async fn start(settings: Option<&Settings>) -> Result<Option<Self>, ClientError> {
        let Some(settings) = settings else {
            return Ok(None);
        };
        let number = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        let mut options = ClientOptions::new(format!("tandem-drill-{number:016x}"));
        options.cluster.clone_from(&settings.cluster_name);
        let queue = settings
            .groups
            .first()
            .and_then(|group| group.queues.first());
        options.queue = queue.cloned().unwrap_or(options.queue);
        options.first_limit = settings.broker.timeout;
        options.tls = settings.broker.tls.clone();
        let uris = settings.broker.urls.iter().map(|url| url.amqp.clone());
        let (client, mut inbox) = Client::connect(uris.collect(), options.clone())
            .await
            .map_err(|error| ClientError::Refused(format!("the probing client: {error}")))?;
        let tally = Arc::new(Tally::default());
        let in_doubt = Arc::new(AtomicU64::new(0));
        let (heard, doubts) = (Arc::clone(&tally), Arc::clone(&in_doubt));
        let hearing = tokio::spawn(async move {
            while let Some(news) = inbox.next().await {
                if let Incoming::Reply(reply) = news
                    && let Some(id) = &reply.correlation_id
                {
                    if reply.field("outcome") == "IN_DOUBT" {
                        doubts.fetch_add(1, Ordering::Relaxed);
                    }
                    // Whether the address is known says nothing here.
                    let answer = Answer {
                        outcome: "OK".to_owned(),
                        code: String::new(),
                    };
                    heard.answered(id, answer, reply.received);
                }
            }
        });
        let sender = client.clone();
        let (asked, kind) = (Arc::clone(&tally), format!("Beat#{}", options.destination));
        let asking = tokio::spawn(async move {
            for count in 0_u64.. {
                let id = format!("drill-{number:016x}-{count}");
                let mut command = Command::new(kind.clone(), "").with_id(id.clone());
                command.deadline = Some(SystemTime::now() + ANSWERED);
                let _answer = asked.sent(&id, "Beat", Instant::now());
                let client = sender.clone();
                tokio::spawn(async move { client.send(command).await });
                tokio::time::sleep(PROBE).await;
            }
        });
        let probing = Self {
            _client: client,
            tally,
            in_doubt,
            asking,
            hearing,
        };
        probing.served().await?;
        probing.tally.watch(Instant::now());
        Ok(Some(probing))
    }

    /// Waits for the first reply.
    async fn served(&self) -> Result<(), ClientError> {
        let started = Instant::now();
        while self.tally.totals().answered == 0 {
            if started.elapsed() > ANSWERED {
                let why = "no command is answered: see `tandem doctor`";
                return Err(ClientError::Refused(why.to_owned()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Ends the questions, waits for the last answers and writes the figures into the row.
    async fn finish(self, row: &mut Row) {
        tokio::time::sleep(AFTER).await;
        let gap = self.tally.gap(Instant::now());
        self.asking.abort();
        let ended = Instant::now();
        while self.tally.open() > 0 && ended.elapsed() < ANSWERED {
            tokio::time::sleep(POLL).await;
        }
        let totals = self.tally.totals();
        row.silence = gap.map(|gap| gap.silence);
        row.worst = Some(totals.worst);
        let lost = totals.open.len() as u64;
        let in_doubt = self.in_doubt.load(Ordering::Relaxed);
        // A probe has no effect that could be doubled.
        row.counts = Some([totals.sent, lost, 0, in_doubt]);
        row.good &= lost == 0 && in_doubt == 0;
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.asking.abort();
        self.hearing.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::peer::Role;
    use crate::testing::view;

    #[test]
    fn the_leader_is_found_here_or_at_a_peer_that_lives() {
        let mut view = view();
        assert_eq!(leader(&view).as_deref(), Some("gc-1"));
        view.groups[0].role = Role::Follower;
        assert_eq!(leader(&view), None);
        view.peers[0].groups[0].role = Role::Leader;
        assert_eq!(leader(&view).as_deref(), Some("gc-2"));
        view.peers[0].state = "lost".to_owned();
        assert_eq!(leader(&view), None);
    }
}
