//! How a pair differs from the usual.

use std::collections::BTreeMap;

use tandem::simulator::{self, Deployment};

/// How a pair differs from the usual.
#[derive(Debug, Clone)]
pub struct PairOptions {
    /// `active-passive` or `active-active`.
    pub mode: &'static str,
    /// Agents 1001, 1002, …
    pub agents: u32,
    /// Instances to start, of two, and to wait for until they serve.
    pub instances: usize,
    /// Keys of both files that differ.
    pub settings: BTreeMap<String, String>,
    /// gc-1 reaches the downstream's REST through relays that can be cut.
    pub relays: bool,
    /// `consumer.priority` of gc-1, gc-2 and gc-3.
    pub priorities: [u8; 3],
    /// Each instance reaches the other site's broker through a relay that can be cut.
    pub sites: bool,
    /// Keys of one file, by index of the instance.
    pub own: [BTreeMap<String, String>; 3],
    /// Command queues beside the usual one; `{cluster}` stands for the cluster's name, here and in
    /// the values of `settings` and `own`.
    pub queues: Vec<&'static str>,
    /// Product played.
    pub deployment: Deployment,
    /// How the simulator differs from the usual.
    pub simulator: fn(&mut simulator::Config),
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            mode: "active-passive",
            agents: 40,
            instances: 2,
            settings: BTreeMap::new(),
            relays: false,
            priorities: [127, 100, 100],
            sites: false,
            own: Default::default(),
            queues: Vec::new(),
            deployment: Deployment::Ucce,
            simulator: |_| {},
        }
    }
}

impl PairOptions {
    /// Active-active, else as usual.
    #[must_use]
    pub fn active_active() -> Self {
        Self {
            mode: "active-active",
            ..Self::default()
        }
    }

    /// With one more key.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With one more key in one file.
    #[must_use]
    pub fn set_own(mut self, index: usize, key: &str, value: &str) -> Self {
        self.own[index].insert(key.to_owned(), value.to_owned());
        self
    }

    /// With so many instances.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }
}
