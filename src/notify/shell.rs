//! Subscriptions by agent, as the engine orders them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Happening, Sink, Spec, Subscription, Tls, subscribe};
use crate::engine::Input;
use crate::engine::command::NotifyCommand;
use crate::engine::ids::SubscriptionEpoch;
use crate::model::{AgentId, Secret};
use crate::watchdog::vital_task;

/// Happenings on their way to the engine.
const QUEUE: usize = 4_096;
/// Agents whose conflicts are remembered; at the bound all are forgotten.
const MAX_CONFLICTS: usize = 50_000;

/// How often each agent's resource was taken by another session.
type Conflicts = Arc<Mutex<HashMap<AgentId, u32>>>;

/// The sessions that were begun and have not ended.
type Open = Arc<Mutex<HashMap<(AgentId, u64), Subscription>>>;

fn forget(open: &Open, agent: &AgentId, epoch: u64) {
    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
    open.remove(&(agent.clone(), epoch));
}

/// What all subscriptions share.
#[derive(Debug, Clone)]
pub struct NotifyConfig {
    /// Hosts of the nodes, primary first.
    pub hosts: Vec<String>,
    /// Port on all of them.
    pub port: u16,
    /// Transport security.
    pub tls: Tls,
    /// XMPP resource: unique to the instance.
    pub resource: String,
    /// Bound of one sign-in.
    pub connect_timeout: Duration,
    /// Interval of keep-alive pings.
    pub ping_interval: Duration,
}

/// The subscriptions of this instance.
pub struct NotifyShell {
    config: NotifyConfig,
    sink: Sink,
    open: Open,
    conflicts: Conflicts,
}

/// The resource of an agent's next session. One that another session has taken is left to it: to
/// come back with the same name would end that one, and so on for ever.
fn resource(base: &str, conflicts: &Conflicts, agent: &AgentId) -> String {
    let known = conflicts.lock().unwrap_or_else(PoisonError::into_inner);
    match known.get(agent) {
        Some(count) => format!("{base}-{}", count + 1),
        None => base.to_owned(),
    }
}

fn note_conflict(conflicts: &Conflicts, agent: &AgentId) {
    let mut known = conflicts.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MAX_CONFLICTS {
        known.clear();
    }
    let count = known.entry(agent.clone()).or_default();
    *count = count.saturating_add(1);
}

impl NotifyShell {
    /// Without any subscription; happenings go to `inputs`. Must be called within a runtime.
    #[must_use]
    pub fn start(config: NotifyConfig, inputs: mpsc::Sender<Input>) -> Self {
        let (sink, mut happenings) = mpsc::channel::<(AgentId, u64, Happening)>(QUEUE);
        let conflicts = Conflicts::default();
        let noted = conflicts.clone();
        let open = Open::default();
        let ended = open.clone();
        let forward = async move {
            while let Some((agent, epoch, notice)) = happenings.recv().await {
                if matches!(notice, Happening::Lost { conflict: true, .. }) {
                    note_conflict(&noted, &agent);
                }
                if notice.ends() {
                    // Its task is over. The engine asks for a new one, and need not end this.
                    forget(&ended, &agent, epoch);
                }
                let input = Input::Notice {
                    agent,
                    subscription: SubscriptionEpoch(epoch),
                    notice,
                };
                if inputs.send(input).await.is_err() {
                    break;
                }
            }
        };
        tokio::spawn(vital_task("notifications", forward));
        Self {
            config,
            sink,
            open,
            conflicts,
        }
    }

    /// Does what the engine decided; never blocks.
    pub fn execute(&self, command: NotifyCommand) {
        match command {
            NotifyCommand::Subscribe {
                agent,
                subscription,
                node,
                domain,
                password,
            } => self.subscribe(agent, subscription, node, domain, password),
            NotifyCommand::WatchTeam {
                agent,
                subscription,
                pubsub_domain,
                team,
            } => self.watch_team(&agent, subscription, &pubsub_domain, &team),
            NotifyCommand::Unsubscribe {
                agent,
                subscription,
            } => self.unsubscribe(&agent, subscription),
        }
    }

    /// Begins a subscription.
    fn subscribe(
        &self,
        agent: AgentId,
        subscription: SubscriptionEpoch,
        node: usize,
        domain: String,
        password: Secret,
    ) {
        let spec = Spec {
            agent: agent.clone(),
            password,
            host: self.config.hosts.get(node).cloned().unwrap_or_default(),
            port: self.config.port,
            domain,
            tls: self.config.tls.clone(),
            resource: resource(&self.config.resource, &self.conflicts, &agent),
            connect_timeout: self.config.connect_timeout,
            ping_interval: self.config.ping_interval,
        };
        // Locked before it begins: it may have ended by the time it is kept.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = subscribe(spec, subscription.0, self.sink.clone());
        open.insert((agent, subscription.0), handle);
    }

    /// Watches a team through a subscription; without that subscription it does nothing.
    fn watch_team(
        &self,
        agent: &AgentId,
        subscription: SubscriptionEpoch,
        pubsub_domain: &str,
        team: &str,
    ) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = open
            .get(&(agent.clone(), subscription.0))
            .is_some_and(|session| session.watch_team(pubsub_domain, team));
        if !taken {
            tracing::warn!(%agent, team, "team is not watched: no session, or too many orders");
        }
    }

    /// Ends a subscription; ending one that is not there does nothing.
    fn unsubscribe(&self, agent: &AgentId, subscription: SubscriptionEpoch) {
        forget(&self.open, agent, subscription.0);
    }

    /// Ends all.
    pub fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_was_taken_is_not_used_again() {
        let conflicts = Conflicts::default();
        let agent = AgentId::new("1001").unwrap();
        let other = AgentId::new("1002").unwrap();
        let next = |agent: &AgentId| resource("tandem-gc-1", &conflicts, agent);
        assert_eq!(next(&agent), "tandem-gc-1");
        note_conflict(&conflicts, &agent);
        assert_eq!(next(&agent), "tandem-gc-1-2");
        note_conflict(&conflicts, &agent);
        assert_eq!(next(&agent), "tandem-gc-1-3");
        assert_eq!(next(&other), "tandem-gc-1");
    }

    #[tokio::test]
    async fn a_session_that_ended_by_itself_is_not_kept() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let (inputs, mut heard) = mpsc::channel(8);
        let config = NotifyConfig {
            hosts: vec!["127.0.0.1".to_owned()],
            port,
            tls: Tls::StartTlsIfOffered(crate::net::TlsClient::default()),
            resource: "tandem-gc-1".to_owned(),
            connect_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
        };
        let shell = NotifyShell::start(config, inputs);
        let agent = AgentId::new("1001").unwrap();
        for epoch in 0..20 {
            shell.subscribe(
                agent.clone(),
                SubscriptionEpoch(epoch),
                0,
                "d".to_owned(),
                Secret::new("pw"),
            );
            // By then it is forgotten: the engine tries again and again, for hours.
            let told = heard.recv().await;
            assert!(
                matches!(
                    told,
                    Some(Input::Notice {
                        notice: Happening::Unreachable { .. },
                        ..
                    })
                ),
                "{told:?}"
            );
            assert_eq!(shell.open.lock().unwrap().len(), 0);
        }
    }
}
