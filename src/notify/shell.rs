//! Subscriptions by agent, as the engine orders them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Happening, Sink, Spec, Subscription, Tls, subscribe};
use crate::engine::Input;
use crate::engine::ids::SubscriptionEpoch;
use crate::model::{AgentId, Secret};

/// Happenings on their way to the engine.
const QUEUE: usize = 4_096;

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
    open: Mutex<HashMap<(AgentId, u64), Subscription>>,
}

impl NotifyShell {
    /// Without any subscription; happenings go to `inputs`. Must be called within a runtime.
    #[must_use]
    pub fn start(config: NotifyConfig, inputs: mpsc::Sender<Input>) -> Self {
        let (sink, mut happenings) = mpsc::channel::<(AgentId, u64, Happening)>(QUEUE);
        tokio::spawn(async move {
            while let Some((agent, epoch, notice)) = happenings.recv().await {
                let input = Input::Notice {
                    agent,
                    subscription: SubscriptionEpoch(epoch),
                    notice,
                };
                if inputs.send(input).await.is_err() {
                    break;
                }
            }
        });
        Self {
            config,
            sink,
            open: Mutex::default(),
        }
    }

    /// Begins a subscription.
    pub fn subscribe(
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
            resource: self.config.resource.clone(),
            connect_timeout: self.config.connect_timeout,
            ping_interval: self.config.ping_interval,
        };
        let handle = subscribe(spec, subscription.0, self.sink.clone());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert((agent, subscription.0), handle);
    }

    /// Watches a team through a subscription; without that subscription it does nothing.
    pub fn watch_team(
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
    pub fn unsubscribe(&self, agent: &AgentId, subscription: SubscriptionEpoch) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&(agent.clone(), subscription.0));
    }

    /// Ends all.
    pub fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clear();
    }
}
