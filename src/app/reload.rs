//! SIGHUP: what a running instance takes from its changed property file.
//!
//! The whole file is read and checked first, as at a start: with one error in it nothing changes.
//! Then log level, tokens, certificates, keys and passwords are put in place of those before.
//! Everything else needs a restart, and is named. Connections that stand are left alone: what is
//! new counts for those that are opened from now on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::admin::{History, Rules};
use crate::broker::topology::{TopologyInput, topology_input};
use crate::broker::{self, Broker};
use crate::downstream::FinesseClient;
use crate::engine::Config;
use crate::engine::ids::BootId;
use crate::net::{TlsClient, TlsFiles, TlsServer};
use crate::rest;
use crate::settings::{self, Effective, Loaded, Settings};
use crate::store::Store;
use crate::telemetry;

use super::configure::{broker_config, control_keys, rest_brokers};

/// Keys whose new values are taken.
const TAKEN: &[&str] = &[
    "log.level",
    "admin.token",
    "admin.tokens-file",
    "admin.open-reads",
    "broker.username",
    "broker.password",
    "downstream.admin-user",
    "downstream.admin-password",
    "control.key",
    "control.previous-key",
    "rest.token",
    "rest.callback.token",
    "rest.callback.sign-key",
];

/// The parts that can change while they run.
pub(super) struct Parts {
    pub(super) rules: Rules,
    pub(super) broker: broker::Renewal,
    pub(super) prover: Box<dyn Fn(&TopologyInput) + Send + Sync>,
    pub(super) downstream: Arc<FinesseClient>,
    pub(super) store: Arc<Store>,
    pub(super) history: History,
    pub(super) entrance: Option<rest::Renewal>,
}

impl Parts {
    pub(super) fn new(
        rules: Rules,
        broker: &Broker,
        prover: impl Fn(&TopologyInput) + Send + Sync + 'static,
        downstream: Arc<FinesseClient>,
        store: Arc<Store>,
        history: History,
        entrance: Option<rest::Renewal>,
    ) -> Self {
        Self {
            rules,
            broker: broker.renewal(),
            prover: Box::new(prover),
            downstream,
            store,
            history,
            entrance,
        }
    }
}

/// A running instance's file, what it runs with, and what can change.
pub(super) struct Reloader {
    path: PathBuf,
    /// Every key as at the start.
    started: Vec<Effective>,
    /// As they are used now.
    running: Settings,
    config: Config,
    boot: BootId,
    parts: Parts,
}

impl Reloader {
    pub(super) fn new(loaded: Loaded, config: Config, boot: BootId, parts: Parts) -> Self {
        Self {
            path: loaded.path,
            started: loaded.effective,
            running: loaded.settings,
            config,
            boot,
            parts,
        }
    }

    /// Reads the file again. Blocks: it reads files, and writes the store where the key is new.
    pub(super) fn reload(&mut self) {
        let file = self.path.display().to_string();
        let new = match settings::load_from_process(&self.path) {
            Ok(mut new) => {
                self.as_shuffled(&mut new.settings);
                new
            }
            Err(findings) => {
                for finding in findings.0 {
                    match finding.is_error() {
                        true => tracing::error!("SIGHUP: {finding}"),
                        false => tracing::warn!("SIGHUP: {finding}"),
                    }
                }
                tracing::error!(file, "SIGHUP: the file cannot be used: nothing is changed");
                self.parts
                    .history
                    .reloaded("nothing", "the file has errors");
                return;
            }
        };
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let restart = self.needs_restart(&new);
        let mut changed = Vec::new();
        let mut failed = Vec::new();
        for (what, done) in [
            ("log.level", self.log_level(&new.settings)),
            ("certificates", self.certificates()),
            ("tokens", self.tokens(&new.settings)),
            ("HTTP entrance's tokens", self.entrance(&new.settings)),
            ("broker passwords", self.brokers(&new.settings)),
            ("downstream password", self.downstream(&new.settings)),
            ("control keys", self.keys(&new.settings)),
        ] {
            match done {
                Ok(true) => changed.push(what),
                Ok(false) => {}
                Err(why) => failed.push(format!("{what}: {why}")),
            }
        }
        for words in failed {
            tracing::error!("SIGHUP: not changed: {words}");
        }
        if !restart.is_empty() {
            let keys = restart.join(", ");
            tracing::warn!(keys, "SIGHUP: a restart is needed for these");
        }
        let changed = match changed.is_empty() {
            true => "nothing".to_owned(),
            false => changed.join(", "),
        };
        self.parts.history.reloaded(&changed, "SIGHUP");
        tracing::info!(file, changed, "SIGHUP: the file was read again");
    }

    /// `broker.randomize`: the order of the start stays.
    fn as_shuffled(&self, new: &mut Settings) {
        if self.running.broker.randomize {
            let urls = &self.running.broker.urls;
            let place = |label: &str| urls.iter().position(|url| url.label == label);
            let last = urls.len();
            new.broker
                .urls
                .sort_by_key(|url| place(&url.label).unwrap_or(last));
        }
    }

    /// Keys that have another value than at the start, and keep that until the next one.
    fn needs_restart(&self, new: &Loaded) -> Vec<String> {
        let same = |one: &Effective| {
            let mut started = self.started.iter();
            started.any(|old| old.key == one.key && old.value == one.value)
        };
        let gone = |old: &&Effective| !new.effective.iter().any(|one| one.key == old.key);
        let differ = new.effective.iter().filter(|one| !same(one));
        let gone = self.started.iter().filter(gone);
        let keys = differ.chain(gone).map(|one| one.key.clone());
        let mut keys: Vec<String> = keys.filter(|key| !TAKEN.contains(&key.as_str())).collect();
        // Their users and passwords are not shown, and so do not differ there.
        let pairs = self
            .running
            .broker
            .urls
            .iter()
            .zip(&new.settings.broker.urls);
        let moved = (1..)
            .zip(pairs)
            .filter(|(_, (old, new))| !same_broker(old, new));
        keys.extend(moved.map(|(n, _)| format!("broker.url.{n}")));
        // A running entrance is not opened to everybody.
        let token = |settings: &Settings| settings.rest.as_ref().map(|rest| rest.token.is_some());
        if (token(&self.running), token(&new.settings)) == (Some(true), Some(false)) {
            keys.push("rest.token".to_owned());
        }
        let (old, new) = (&self.running.control.key, &new.settings.control.key);
        if old.is_some() != new.is_some() {
            keys.push("control.key".to_owned());
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn log_level(&mut self, new: &Settings) -> Result<bool, String> {
        if self.running.log.level == new.log.level {
            return Ok(false);
        }
        telemetry::set_level(&new.log.level).map_err(|error| error.to_string())?;
        self.running.log.level.clone_from(&new.log.level);
        Ok(true)
    }

    /// Those files are read again whatever their names say: a renewed certificate has the name of
    /// the old one.
    fn certificates(&self) -> Result<bool, String> {
        let settings = &self.running;
        let clients = [
            &settings.broker.tls,
            &settings.downstream.tls,
            &settings.notify.tls_client,
        ];
        let rest = settings.rest.as_ref();
        let callbacks = rest.and_then(|rest| rest.callback.as_ref());
        let clients = clients
            .into_iter()
            .chain(callbacks.map(|callback| &callback.tls));
        let named = |tls: &&TlsClient| *tls.files() != TlsFiles::default();
        let entrance = rest.and_then(|rest| rest.tls.as_ref());
        let servers = settings.admin.tls.iter().chain(entrance);
        // One that cannot be used does not keep the others from being renewed.
        let clients = clients.filter(named).map(TlsClient::reload);
        let done: Vec<_> = clients.chain(servers.map(TlsServer::reload)).collect();
        let any = !done.is_empty();
        let failed = done.into_iter().filter_map(Result::err);
        let failed: Vec<String> = failed.map(|error| error.to_string()).collect();
        match failed.is_empty() {
            true => Ok(any),
            false => Err(failed.join("; ")),
        }
    }

    fn tokens(&mut self, new: &Settings) -> Result<bool, String> {
        let of = |settings: &Settings| {
            let admin = &settings.admin;
            (admin.token.clone(), admin.tokens.clone(), admin.open_reads)
        };
        if of(&self.running) == of(new) {
            return Ok(false);
        }
        self.parts.rules.replace(&new.admin);
        (
            self.running.admin.token,
            self.running.admin.tokens,
            self.running.admin.open_reads,
        ) = of(new);
        Ok(true)
    }

    /// What the entrance asks for, and what it shows to those whom it calls.
    fn entrance(&mut self, new: &Settings) -> Result<bool, String> {
        let (Some(old), Some(new), Some(entrance)) =
            (&mut self.running.rest, &new.rest, &self.parts.entrance)
        else {
            return Ok(false);
        };
        // First what can fail: all of it is taken, or nothing.
        if let Some(token) = new.callback.as_ref().and_then(|it| it.token.as_ref()) {
            rest::Renewal::fits(token)?;
        }
        let mut any = false;
        if new.token.is_some() && old.token != new.token {
            entrance.token(new.token.clone());
            old.token.clone_from(&new.token);
            any = true;
        }
        let (Some(old), Some(new)) = (&mut old.callback, &new.callback) else {
            return Ok(any);
        };
        if old.token != new.token {
            entrance.callback_token(new.token.clone());
            old.token.clone_from(&new.token);
            any = true;
        }
        if old.sign_key != new.sign_key {
            entrance.sign_key(new.sign_key.clone());
            old.sign_key.clone_from(&new.sign_key);
            any = true;
        }
        Ok(any)
    }

    /// Users and passwords, where the list of brokers is the same.
    fn brokers(&mut self, new: &Settings) -> Result<bool, String> {
        let (old_urls, new_urls) = (&self.running.broker.urls, &new.broker.urls);
        let pairs = old_urls.iter().zip(new_urls);
        let same_list = old_urls.len() == new_urls.len()
            && pairs.clone().all(|(old, new)| same_broker(old, new));
        let renewed = |(old, new): (&settings::BrokerUrl, &settings::BrokerUrl)| {
            old.amqp != new.amqp
                || old.management.username != new.management.username
                || old.management.password != new.management.password
        };
        if !same_list || !pairs.clone().any(renewed) {
            return Ok(false);
        }
        let mut next = self.running.clone();
        for (old, new) in next.broker.urls.iter_mut().zip(new_urls) {
            old.amqp.clone_from(&new.amqp);
            old.management.username.clone_from(&new.management.username);
            old.management.password = new.management.password.clone();
        }
        let config = broker_config(&next, &self.config, self.boot);
        let renewed = self.parts.broker.credentials(&config);
        renewed.map_err(|error| error.to_string())?;
        (self.parts.prover)(&topology_input(&next));
        if let Some(entrance) = &self.parts.entrance {
            entrance.brokers(rest_brokers(&next));
        }
        self.running = next;
        Ok(true)
    }

    fn downstream(&mut self, new: &Settings) -> Result<bool, String> {
        let (old, new) = (&mut self.running.downstream.admin, &new.downstream.admin);
        if old == new {
            return Ok(false);
        }
        let admin = new.as_ref();
        let admin = admin.map(|admin| (admin.user.clone(), admin.password.clone()));
        self.parts.downstream.set_admin(admin);
        old.clone_from(new);
        Ok(true)
    }

    /// Only one key for another: to begin or end to have one is for a restart.
    fn keys(&mut self, new: &Settings) -> Result<bool, String> {
        let both = self.running.control.key.is_some() && new.control.key.is_some();
        if !both || self.running.control == new.control {
            return Ok(false);
        }
        let keys = control_keys(new, &self.config, self.boot);
        self.parts.store.rekey(&keys)?;
        self.parts.broker.keys(&keys);
        self.running.control = new.control.clone();
        Ok(true)
    }
}

/// The same broker and virtual host, users and passwords aside.
fn same_broker(old: &settings::BrokerUrl, new: &settings::BrokerUrl) -> bool {
    let bare = |uri: &str| match uri.split_once('@') {
        Some((_, rest)) => rest.to_owned(),
        None => uri
            .split_once("://")
            .map_or("", |(_, rest)| rest)
            .to_owned(),
    };
    let scheme = |uri: &str| uri.split(':').next().map(str::to_owned);
    old.label == new.label
        && old.management.url == new.management.url
        && scheme(&old.amqp) == scheme(&new.amqp)
        && bare(&old.amqp) == bare(&new.amqp)
}
