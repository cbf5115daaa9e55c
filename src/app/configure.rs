//! What each part is told of the settings.

use std::net::SocketAddr;
use std::time::Duration;

use crate::broker::{self, BrokerAddress, BrokerConfig, GroupConfig};
use crate::clock::wall_ms;
use crate::downstream::{self, NodeConfig};
use crate::engine::Config;
use crate::engine::config::{AgentPolicy, BrokerPolicy, Mode, PeerTimers};
use crate::engine::ids::BootId;
use crate::model::{HttpPermission, InstanceId};
use crate::notify::Tls;
use crate::notify::shell::NotifyConfig;
use crate::renewed::Renewed;
use crate::rest::{Addresses, Allowed, CallbackConfig, Objects, PublisherConfig, RestConfig};
use crate::settings::{self, DownstreamKind, NotifyTls, Settings};
use crate::wire::command::Defaults;
use crate::wire::control::Keys;
use crate::wire::event::Format;
use crate::wire::http_call;

use super::AppError;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The engine's share of the settings. `seats`: notification sessions that there is room for.
pub(super) fn engine_config(
    settings: &Settings,
    boot: BootId,
    seats: usize,
) -> Result<Config, AppError> {
    let agent = &settings.agent;
    Ok(Config {
        instance: InstanceId::new(&settings.instance.id)?,
        site: settings.instance.site.clone(),
        version: crate::VERSION.to_owned(),
        boot,
        started: wall_ms(),
        former: None,
        seed: boot.0,
        mode: match settings.mode {
            settings::Mode::ActivePassive => Mode::ActivePassive,
            settings::Mode::ActiveActive => Mode::ActiveActive,
        },
        groups: settings.groups.iter().map(|g| g.name.clone()).collect(),
        queues: settings
            .groups
            .iter()
            .map(|g| g.queues.first().cloned().unwrap_or_default())
            .collect(),
        priority: settings.consumer.priority,
        group_priorities: settings.groups.iter().map(|g| g.priority).collect(),
        prefetch: usize::from(settings.consumer.prefetch),
        brokers: broker_policy(settings),
        peers: PeerTimers {
            heartbeat: millis(settings.peer.heartbeat),
            suspect: millis(settings.peer.suspect),
            lost: millis(settings.peer.lost),
        },
        fence: settings.broker.fence,
        takeback_hold: millis(settings.takeback_hold),
        takeover_rate: u64::from(settings.takeover_rate),
        remembered: settings.remembered,
        nodes: settings
            .downstream
            .nodes
            .iter()
            .map(|node| node_label(&node.url))
            .collect(),
        node_urls: (settings.downstream.nodes.iter())
            .map(|node| node.url.clone())
            .collect(),
        seats,
        probe_interval: millis(settings.downstream.probe_interval),
        request_timeout: millis(settings.downstream.request_timeout),
        failback: settings.downstream.failback,
        http: permissions(settings)?,
        agents: AgentPolicy {
            not_ready_reason: agent.not_ready_reason.clone(),
            logout_reason: agent.logout_reason.clone(),
            supervisor_not_ready_reason: agent.supervisor_not_ready_reason.clone(),
            supervisor_logout_reason: agent.supervisor_logout_reason.clone(),
            states_interval: millis(agent.states_interval),
            make_ready: agent.make_ready,
        },
        parse: defaults(settings),
        shutdown_grace: millis(work_grace(settings.shutdown_grace)),
        page: settings.admin.page.clone(),
        planted: crate::engine::config::Planted::default(),
    })
}

/// What the engine has of `shutdown.grace`.
pub(super) fn work_grace(grace: Duration) -> Duration {
    grace.saturating_sub(super::ending(grace))
}

/// What `Call` commands may do, in the one form of paths.
fn permissions(settings: &Settings) -> Result<Option<Vec<HttpPermission>>, AppError> {
    if settings.downstream.kind == DownstreamKind::Finesse {
        return Ok(None);
    }
    let rules = settings.downstream.allow.iter().map(|rule| {
        let prefix = http_call::normalise(&rule.path_prefix).ok_or_else(|| {
            AppError::Settings(format!("downstream.allow: {} is no path", rule.path_prefix))
        })?;
        Ok(HttpPermission {
            method: rule.method.to_string(),
            prefix,
        })
    });
    rules.collect::<Result<_, AppError>>().map(Some)
}

/// `host` or `host:port` of a base URL, for people and metrics.
fn node_label(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

fn broker_policy(settings: &Settings) -> BrokerPolicy {
    let wished = &settings.broker;
    BrokerPolicy {
        labels: wished.urls.iter().map(|url| url.label.clone()).collect(),
        spare: wished.backup,
        priority_backup: wished.priority_backup,
        failback_hold: millis(wished.failback_hold),
        reconnect_delay: millis(wished.reconnect_delay),
        reconnect_delay_max: millis(wished.reconnect_delay_max),
        far_follower: broker::FAR_FOLLOWER,
        stands_back: broker::STANDS_BACK,
    }
}

fn defaults(settings: &Settings) -> Defaults {
    Defaults {
        max_age_ms: millis(settings.command_max_age),
        cluster_name: settings.cluster_name.clone(),
        command_queues: settings
            .groups
            .iter()
            .flat_map(|group| group.queues.iter().cloned())
            .collect(),
        generate_traces: settings.trace_generate,
    }
}

/// The HTTP entrance and where it listens, where there is one.
pub(super) fn rest_config(settings: &Settings) -> Option<(SocketAddr, RestConfig)> {
    let rest = settings.rest.as_ref()?;
    let group = settings.groups.first()?;
    let callbacks = rest.callback.as_ref();
    let callbacks = callbacks.map(|callback| callback_config(settings, callback));
    let config = RestConfig {
        token: Renewed::new(rest.token.clone()),
        tls: rest.tls.clone(),
        defaults: defaults(settings),
        publisher: PublisherConfig {
            instance: settings.instance.id.clone(),
            brokers: Renewed::new(rest_brokers(settings)),
            queue: group.queues.first()?.clone(),
            heartbeat: settings.broker.heartbeat,
            timeout: settings.broker.timeout,
            tls: settings.broker.tls.clone(),
            callbacks: callbacks.as_ref().map(|it| it.objects.clone()),
        },
        callbacks,
    };
    Some((rest.listen, config))
}

/// URIs and labels of the brokers, as the entrance reaches them.
pub(super) fn rest_brokers(settings: &Settings) -> Vec<(String, String)> {
    let urls = settings.broker.urls.iter();
    urls.map(|url| (url.amqp.clone(), url.label.clone()))
        .collect()
}

fn callback_config(settings: &Settings, callback: &settings::RestCallback) -> CallbackConfig {
    let allow = callback.allow.iter().filter_map(|url| Allowed::read(url));
    CallbackConfig {
        objects: Objects::new(&settings.cluster_name, settings.queue_type),
        addresses: Addresses::new(allow.collect(), callback.url.clone(), callback.path.clone()),
        token: Renewed::new(callback.token.clone()),
        sign_key: Renewed::new(callback.sign_key.clone()),
        timeout: callback.timeout,
        max_age: callback.max_age,
        tls: callback.tls.clone(),
    }
}

pub(super) fn downstream_config(settings: &Settings, requests: usize) -> downstream::Config {
    downstream::Config {
        nodes: settings
            .downstream
            .nodes
            .iter()
            .map(|node| NodeConfig {
                base_url: node.url.clone(),
            })
            .collect(),
        request_timeout: settings.downstream.request_timeout,
        tls: settings.downstream.tls.clone(),
        requests,
        platform: settings.downstream.kind == DownstreamKind::Finesse,
        admin: settings
            .downstream
            .admin
            .as_ref()
            .map(|admin| (admin.user.clone(), admin.password.clone())),
    }
}

/// How `tandem doctor` connects: as the instance itself, under another name.
pub(crate) fn doctor_config(settings: &Settings) -> Result<BrokerConfig, AppError> {
    let boot = BootId(0);
    let config = engine_config(settings, boot, 0)?;
    Ok(broker_config(settings, &config, boot))
}

/// A pause longer than this may have been long enough for a peer to take over: it was suspected
/// after `peer.suspect` of silence, of which two heartbeats may have been before the pause.
pub(super) fn lease_limit(settings: &Settings) -> Duration {
    let peer = &settings.peer;
    peer.suspect
        .saturating_sub(2 * peer.heartbeat)
        .max(peer.heartbeat)
}

pub(super) fn broker_config(settings: &Settings, config: &Config, boot: BootId) -> BrokerConfig {
    BrokerConfig {
        instance: config.instance.clone(),
        site: settings.instance.site.clone(),
        role: format!("{} priority {}", config.mode.as_str(), config.priority),
        version: crate::VERSION.to_owned(),
        cluster_name: settings.cluster_name.clone(),
        queue_type: settings.queue_type,
        groups: settings
            .groups
            .iter()
            .map(|group| GroupConfig {
                name: group.name.clone(),
                queues: group.queues.clone(),
            })
            .collect(),
        brokers: settings
            .broker
            .urls
            .iter()
            .map(|url| BrokerAddress {
                uri: url.amqp.clone(),
                label: url.label.clone(),
                management: settings.broker.fence.then(|| url.management.clone()),
            })
            .collect(),
        timeout: settings.broker.timeout,
        heartbeat: settings.broker.heartbeat,
        probe_interval: settings.broker.probe_interval,
        probe_count: settings.broker.probe_count,
        prefetch: settings.consumer.prefetch,
        tls: settings.broker.tls.clone(),
        format: match settings.message_format {
            settings::MessageFormat::Json => Format::Json,
            settings::MessageFormat::Default => Format::Default,
            settings::MessageFormat::DefaultValues => Format::Values,
        },
        parse: defaults(settings),
        control: control_keys(settings, config, boot),
    }
}

pub(super) fn control_keys(settings: &Settings, config: &Config, boot: BootId) -> Keys {
    Keys::new(
        settings.control.key.as_ref(),
        settings.control.previous_key.as_ref(),
        &settings.cluster_name,
        config.instance.clone(),
        boot,
    )
}

pub(super) fn notify_config(settings: &Settings) -> Result<NotifyConfig, AppError> {
    let tls = settings.notify.tls_client.clone();
    // An error now is better than one for each agent.
    tls.config()?;
    Ok(NotifyConfig {
        hosts: settings
            .downstream
            .nodes
            .iter()
            .map(|node| node.address.clone())
            .collect(),
        port: settings.notify.port,
        tls: match settings.notify.tls {
            NotifyTls::Direct => Tls::Direct(tls),
            NotifyTls::Opportunistic => Tls::StartTlsIfOffered(tls),
        },
        resource: format!("tandem-{}", settings.instance.id),
        connect_timeout: settings.notify.connect_timeout,
        ping_interval: settings.notify.ping_interval,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_named_by_host_and_port() {
        assert_eq!(
            node_label("https://fin-a.example:8445/finesse/api"),
            "fin-a.example:8445"
        );
        assert_eq!(node_label("http://10.0.0.1/finesse/api"), "10.0.0.1");
    }
}
