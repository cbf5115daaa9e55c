//! I13: whoever was told that an agent is connected is not told later that the agent is not known,
//! whatever dies. Not judged where members could not be told in time (a cut, lost or slow messages,
//! a pause, a disk that takes nothing), or where an operator switched failover off.

use std::collections::BTreeSet;

use tandem_wire::reply::{Outcome, Reply};

use crate::plan::{Fault, Kind, Plan};

/// Agents whose Connect was answered with `OK`.
#[derive(Debug, Default)]
pub struct Connected {
    agents: BTreeSet<String>,
    judged: bool,
}

impl Connected {
    pub fn new(plan: &Plan) -> Self {
        let untold = |fault: &Fault| {
            matches!(
                fault.kind,
                Kind::Cut
                    | Kind::OneWay { .. }
                    | Kind::Lossy
                    | Kind::Slow
                    | Kind::Pause { .. }
                    | Kind::Disk { .. }
                    | Kind::DiskHangs { .. }
                    | Kind::FailoverStop { .. }
            )
        };
        Self {
            agents: BTreeSet::new(),
            judged: !plan.faults.iter().any(untold),
        }
    }

    pub fn told(&mut self, agent: &str, reply: &Reply, who: &str, at: u64) -> Option<String> {
        if reply.command == "Connect" && reply.outcome == Outcome::Ok {
            self.agents.insert(agent.to_owned());
            return None;
        }
        let unknown = reply.error.as_ref().is_some_and(|e| e.code == "RE_LOGIN");
        (unknown && self.judged && self.agents.contains(agent))
            .then(|| format!("I13: agent {agent} is connected, and {who}@{at} does not know it"))
    }
}
