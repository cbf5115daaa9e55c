//! `tandem doctor`: live proof that the broker network does its job.
//!
//! ```text
//!   brokers ── reached? permissions, versions, names, clocks      brokers.rs
//!     ├─ objects, policies, parameters as planned on each         brokers.rs (topology::missing)
//!     ├─ links run, and carry real probes both ways, timed        travel.rs
//!     ├─ queues of HTTP callbacks as an instance makes them       callbacks.rs
//!     └─ a real command through each broker, answered             travel.rs
//!   consumers ── the brokers' list against what instances believe  consumers.rs
//!   downstream ── reached, in service, credentials' form          downstream.rs
//! ```
//!
//! What the brokers' lists say may be some seconds old, see `patience.rs`: nothing is called bad
//! because of a list that may be older than the question.
//!
//! `tandem check --online` is the part of it that needs neither an instance nor a downstream:
//! [`look`], with the user's rights besides (rights.rs).
//!
//! It changes nothing: its queues end with its connections, its command is one that only asks.

mod brokers;
mod callbacks;
mod consumers;
mod downstream;
mod patience;
mod report;
mod rights;
mod travel;

pub use report::{Finding, Report, Verdict};

use std::collections::BTreeSet;
use std::time::Duration;

use crate::app::AppError;
use crate::broker::probes::Probes;
use crate::broker::topology::{self, Topology};
use crate::engine::View;
use crate::settings::Settings;

use patience::Patience;

/// How long the brokers' lists may be behind: twice the interval at which RabbitMQ gathers them
/// where nobody has changed it, with room.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// The instance itself, as its admin API tells.
pub trait Asked {
    /// Where it is asked, for people.
    fn address(&self) -> String;

    /// Its picture of itself; in words why there is none.
    fn view(&self) -> impl Future<Output = Result<View, String>>;
}

/// Looks at the brokers of this configuration before an instance runs there: reached, one broker an
/// entry, new enough, objects and links as planned, the user's rights. No message passes a link.
///
/// # Errors
/// As [`examine`].
pub async fn look(settings: &Settings) -> Result<Report, AppError> {
    let mut report = Report::default();
    let topology = Topology::of(&topology::topology_input(settings));
    let probes = Probes::open(&crate::app::doctor_config(settings)?).await?;
    brokers::reached(&probes, &mut report);
    brokers::managed(&topology, None, &mut report).await;
    rights::denied(&probes, settings, &mut report).await;
    probes.close().await;
    Ok(report)
}

/// Examines everything that this configuration names. `admin` is the instance's
/// admin API; `patience` how long the brokers' lists may be behind.
///
/// # Errors
/// The configuration cannot be used at all; a patient who cannot be reached is a finding.
pub async fn examine(
    settings: &Settings,
    admin: &impl Asked,
    patience: Duration,
) -> Result<Report, AppError> {
    let mut report = Report::default();
    let patience = Patience::new(patience);
    let input = topology::topology_input(settings);
    let topology = Topology::of(&input);
    let config = crate::app::doctor_config(settings)?;
    let probes = Probes::open(&config).await?;
    brokers::reached(&probes, &mut report);
    let served = Some((input.command_queues.as_slice(), patience));
    brokers::managed(&topology, served, &mut report).await;
    callbacks::look(&topology, settings, &mut report).await;
    consumers::compare(
        &topology,
        &input.command_queues,
        settings,
        (admin, patience),
        &mut report,
    )
    .await;
    travel::probes(&probes, settings, &mut report).await;
    // Of these it is said why already.
    let gone = probes.brokers().filter(|broker| broker.problem.is_some());
    let gone: BTreeSet<String> = gone.map(|broker| broker.label.to_owned()).collect();
    probes.close().await;
    travel::commands(settings, &gone, &mut report).await;
    downstream::look(settings, &mut report).await;
    Ok(report)
}
