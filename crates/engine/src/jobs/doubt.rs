//! Commands that may have been carried out before: what proves that they were not, what proves
//! that they were, and what becomes of those of which nobody can know.

use crate::api::ids::{CallId, JobId};
use crate::catalogue::{Repeat, Step, Subject};
use crate::cluster::members::{Liveness, Peer};
use crate::downstream::calls::CallFor;
use crate::jobs::ledger::{self, Key, Known};
use crate::jobs::life::Stage;
use crate::jobs::{Answered, Evidence, State};
use crate::model::{Action, AgentId, Answer, CallOutcome, Dialog};
use crate::peer::IntentRecord;
use crate::wire::command::{Addressed, ClientCommand};
use crate::wire::reply::Outcome;
use crate::{Engine, limits};

/// How often at least it is noted that commands are in work: somebody may have been at work for so
/// much longer than the last note says, milliseconds. Also covers clocks that are not quite equal.
const NOTED_MS: u64 = 1_500;

/// A call that would prove that a command ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    agent: AgentId,
    from: String,
    to: String,
    /// Not created before, milliseconds since the epoch.
    not_before: u64,
    /// Nor after, where others may have called unheard: it was to be made by a former process of this
    /// instance.
    not_after: Option<u64>,
}

impl Proof {
    /// `unheard`: others may have made calls.
    fn given_by(&self, dialogs: &[Dialog], unheard: bool) -> bool {
        dialogs.iter().any(|dialog| {
            dialog.from_address == self.from
                && dialog.to_address == self.to
                && dialog
                    .created_ms(&self.from)
                    .is_some_and(|created| self.is_in_time(created, unheard))
        })
    }
}

impl Proof {
    fn is_in_time(&self, created: u64, unheard: bool) -> bool {
        let ours = !unheard || self.not_after.is_some_and(|end| created <= end);
        created >= self.not_before && ours
    }
}

/// What is known of a command that is about to start.
enum Verdict {
    /// Nobody has started it.
    New,
    /// Somebody who lives will tell, or a member is about to.
    Wait,
    /// It may have run, if so not before that time.
    Doubt(Option<u64>),
}

/// Whether the members' silence about an id proves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Full,
    Soon,
    None,
}

impl Engine {
    /// Whether it must be proven that this command was not started before.
    pub(crate) fn must_prove(&self, id: JobId, command: &ClientCommand) -> bool {
        if command.repeat == Repeat::Safe {
            return false;
        }
        self.jobs.get(id).is_some_and(|job| {
            let intended = job
                .key
                .is_some_and(|(key, _)| self.book.open_intent(&key).is_some());
            job.seen || intended
        }) || self.may_have_missed(id)
    }

    /// Whether a command may have been carried out before: it is not refused as one that was not.
    pub(crate) fn may_have_run(&self, id: JobId) -> bool {
        let unproven = self.jobs.get(id).filter(|job| !job.proven);
        unproven.is_some_and(|job| {
            let must = |command| self.must_prove(id, command);
            job.seen || job.command.as_deref().is_some_and(must)
        })
    }

    /// Whether a command waits for proof that nobody has started it.
    pub(crate) fn proving(&self) -> bool {
        let mut waiting = self.jobs.waiting();
        waiting.any(|(_, state)| matches!(state, State::Doubting { .. }))
    }

    /// A command that may have run is next in its lane.
    pub(crate) fn prove(&mut self, id: JobId) {
        let since = self.now.mono;
        self.step(id, Evidence::MayHaveRun { since });
        self.stage(id, Stage::Doubted);
        self.timers
            .set_by(crate::state::timer::Timer::Evidence, self.now.mono);
        self.look_at_doubt(id);
    }

    /// Its deadline is over before it could be started: said so only where that is certain.
    pub(crate) fn expire(&mut self, id: JobId, command: &ClientCommand) {
        if self.must_prove(id, command) {
            // Proven to be new it is not started any more.
            self.prove(id);
        } else if self.would_remember(id, command) {
            self.note_proven(id);
            self.finish(id, self.unstarted(id, command));
        } else {
            let why = match self.put_aside(id, command) {
                None => "it may have been started before, and its deadline has passed",
                Some(_) => "it may have been started before the broker put it aside",
            };
            self.in_doubt(id, why);
        }
    }

    fn note_proven(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.proven = true;
        }
    }

    /// Whether a command that may be repeated would be known here had anybody finished it: its
    /// outcome is in no journal, only in the memory of those that were up all the time.
    fn would_remember(&self, id: JobId, command: &ClientCommand) -> bool {
        let Some(job) = self.jobs.get(id).filter(|job| job.seen || job.expired) else {
            return true;
        };
        if command.repeat != Repeat::Safe {
            return true;
        }
        let sent = job.raw.sent_ms(self.now.wall);
        if !job.seen {
            return sent.is_none_or(|sent| !self.may_have_been_given_back(sent));
        }
        let sent = sent.unwrap_or(0);
        let up = |id| {
            let peer = self.members.get(id);
            peer.is_some_and(|p| p.liveness.present() && p.heartbeat.started <= sent)
        };
        self.cfg.started <= sent && self.book.known_members().all(up)
    }

    /// Whether what was sent then, and was put aside by the broker, may have been consumed and come
    /// back before: dead-lettering takes that mark away. Only where somebody ended in the middle of
    /// its work since.
    fn may_have_been_given_back(&self, sent: u64) -> bool {
        let at_work = |until: u64| until + NOTED_MS >= sent;
        let restarted = |started: u64, former: u64| started > sent && at_work(former);
        let former = self.cfg.former.unwrap_or(0);
        let lost = |id| match self.members.get(id) {
            Some(peer) if peer.liveness == Liveness::Left => false,
            Some(peer) if !peer.liveness.present() => {
                let silent = self.now.mono.saturating_sub(peer.last_seen);
                at_work(self.now.wall.saturating_sub(silent))
            }
            Some(peer) => restarted(peer.heartbeat.started, peer.heartbeat.former),
            // Of before our time: our own former process is the nearest word on it.
            None => restarted(self.cfg.started, former),
        };
        restarted(self.cfg.started, former) || self.book.known_members().any(lost)
    }

    pub(crate) fn look_at_doubt(&mut self, id: JobId) {
        let Some((command, _)) = self.job_command(id) else {
            return;
        };
        let Some(State::Doubting {
            since,
            asking: None,
        }) = self.jobs.state(id)
        else {
            return;
        };
        let patient = self.now.mono < since + limits::DOUBT_WAIT_MS;
        if self.finished_elsewhere(id) {
            self.answered_elsewhere(id);
            self.leave_lane(id, &command);
            return;
        }
        match self.verdict(id) {
            // Meanwhile its agent may have come to belong to another.
            Verdict::New if !self.placement().serves(&command) => self.place_again(id, &command),
            Verdict::New => {
                self.note_proven(id);
                self.start_new(id, &command);
            }
            Verdict::Wait if patient => self.look_again_at_waiting(),
            Verdict::Wait => self.ask(id, &command, None),
            Verdict::Doubt(not_before) => self.ask(id, &command, not_before),
        }
    }

    fn verdict(&self, id: JobId) -> Verdict {
        let Some(job) = self.jobs.get(id) else {
            return Verdict::Wait;
        };
        let Some((key, _)) = job.key else {
            return Verdict::Doubt(None);
        };
        if let Some(intent) = self.book.open_intent(&key) {
            // The platform is asked where no member may have made another call of the agent unheard.
            return match self.cover() {
                _ if self.is_working(&intent.by, intent.boot) => Verdict::Wait,
                Cover::Full => Verdict::Doubt(Some(intent.at)),
                Cover::Soon => Verdict::Wait,
                Cover::None if self.is_of_former_process(intent) => Verdict::Doubt(Some(intent.at)),
                Cover::None => Verdict::Doubt(None),
            };
        }
        if !job.seen && !self.may_have_missed(id) {
            return Verdict::New;
        }
        match self.cover() {
            Cover::Full => Verdict::New,
            Cover::Soon => Verdict::Wait,
            // Nor does a call that the platform shows say anything: its agent's client may have
            // sent another command for it, which the same member carried out.
            Cover::None => Verdict::Doubt(None),
        }
    }

    /// Whether an id that no journal here holds was started by nobody. A member calls only what
    /// it has told every member that it could hear: so it proves something that it told us
    /// nothing, unless it may have been alone.
    fn cover(&self) -> Cover {
        if self.retention.now().wall < self.book.lost_until() {
            return Cover::None;
        }
        let gone = |id| self.members.get(id).is_none();
        if self.book.known_members().any(gone) {
            return Cover::None;
        }
        let mut cover = Cover::Full;
        for (_, peer) in self.members.iter() {
            match self.cover_of(peer) {
                Cover::Full => {}
                Cover::Soon => cover = Cover::Soon,
                Cover::None => return Cover::None,
            }
        }
        cover
    }

    /// Whether a member's silence about an id proves that it has not started it.
    pub(crate) fn is_covered(&self, id: &crate::model::InstanceId) -> bool {
        let peer = self.members.get(id);
        peer.is_some_and(|peer| self.cover_of(peer) == Cover::Full)
    }

    fn cover_of(&self, peer: &Peer) -> Cover {
        if !peer.heartbeat.journal {
            return Cover::None;
        }
        match peer.liveness {
            Liveness::Alive | Liveness::Suspect => {
                let told = peer.heartbeat.settled.contains(&self.cfg.instance);
                if told && self.holds_lease(peer) {
                    Cover::Full
                } else {
                    Cover::Soon
                }
            }
            Liveness::Lost | Liveness::Left if peer.covered => self.cover_of_absent(peer),
            _ => Cover::None,
        }
    }

    /// It was gone without having called anything without our word; that it has not come back
    /// somewhere is to be seen now.
    fn cover_of_absent(&self, peer: &Peer) -> Cover {
        let Some(links) = self.links_to_all() else {
            return Cover::None;
        };
        let fresh = self.now.mono.saturating_sub(limits::COUNT_FRESH_MS);
        match peer.nowhere(&links, fresh) {
            true => Cover::Full,
            false => Cover::Soon,
        }
    }

    /// Whether a member cannot yet think that we are lost: it heard us lately.
    pub(crate) fn holds_lease(&self, peer: &Peer) -> bool {
        let trust = self.cfg.peers.lease();
        peer.echoed_at
            .is_some_and(|heard| self.now.mono < heard + trust)
    }

    /// A member is gone: whether it can have made calls without our word is known now, or never.
    pub(crate) fn judge_lost(&mut self, id: &crate::model::InstanceId, reason: &str) {
        let Some(peer) = self.members.get(id) else {
            return;
        };
        let told = peer.heartbeat.settled.contains(&self.cfg.instance);
        let covered = told && reason != "silent" && self.holds_lease(peer);
        self.members.note_covered(id, covered);
    }

    pub(crate) fn finished_elsewhere(&self, id: JobId) -> bool {
        let key = self.jobs.get(id).and_then(|job| job.key);
        key.is_some_and(|(key, body)| matches!(self.known(&key, body), Known::Finished(_)))
    }

    // ---- asking the platform ------------------------------------------------------------------

    /// What would prove that a command ran.
    pub(super) fn proof(&self, command: &ClientCommand, not_before: Option<u64>) -> Option<Proof> {
        let Addressed::Agent(agent) = &command.addressee else {
            return None;
        };
        let session = self.sessions.get(agent)?;
        let subject = Subject {
            extension: session.record.extension.as_deref(),
            not_ready_reason: None,
            logout_reason: None,
            supervisor_not_ready_reason: None,
            supervisor_logout_reason: None,
            team: None,
        };
        let Step::Request(plan) = command.spec.step else {
            return None;
        };
        match plan(&subject, &command.args) {
            Ok(Action::MakeCall { from, to }) => Some(Proof {
                agent: agent.clone(),
                from,
                to,
                not_before: not_before?,
                not_after: self.made_before(command),
            }),
            _ => None,
        }
    }

    fn is_of_former_process(&self, intent: &IntentRecord) -> bool {
        intent.by == self.cfg.instance && intent.boot != self.cfg.boot
    }

    /// Until when a call can have been made of which a former process of this instance had written
    /// that it would make it: that one has ended before this one began.
    fn made_before(&self, command: &ClientCommand) -> Option<u64> {
        let (key, _) = ledger::key_of(command)?;
        let intent = self.book.open_intent(&key)?;
        self.is_of_former_process(intent)
            .then_some(self.cfg.started)
    }

    /// Asks whether the call is there; a missing one proves nothing.
    fn ask(&mut self, id: JobId, command: &ClientCommand, not_before: Option<u64>) {
        let words = "it may have been started before and is not repeated";
        let Some(proof) = self.proof(command, not_before) else {
            self.in_doubt(id, words);
            return;
        };
        let Addressed::Agent(agent) = &command.addressee else {
            return;
        };
        let Some(call) = self.background_call(agent, Action::ReadDialogs, CallFor::Ask(id, proof))
        else {
            self.in_doubt(id, words);
            return;
        };
        if let Some(job) = self.jobs.get_mut(id) {
            job.ask(call);
        }
    }

    pub(crate) fn asked(
        &mut self,
        id: JobId,
        call: CallId,
        proof: &Proof,
        outcome: &CallOutcome,
        node: usize,
    ) {
        if self.jobs.get(id).and_then(|job| job.asking()) != Some(call) {
            self.stale("call");
            return;
        }
        if let Some((command, _)) = self.job_command(id)
            && self.finished_elsewhere(id)
        {
            self.answered_elsewhere(id);
            self.leave_lane(id, &command);
            return;
        }
        let key = self.jobs.get(id).and_then(|job| job.key);
        if key.is_some_and(|(key, _)| self.proven(&key, proof, outcome)) {
            let host = Some(self.route.host(node).to_owned());
            self.finish(id, Answered::ok(Outcome::Accepted, Some(202), host));
        } else {
            self.in_doubt(id, "it may have been started before and is not repeated");
        }
    }

    /// Whether an answer of the platform proves that a command ran: the call is there, and is no
    /// other command's. A client that hears of a doubt may well dial again at once, also at a member
    /// that is not heard. Where none of those is anywhere, that was not before this process was there
    /// to answer in doubt.
    pub(super) fn proven(&self, key: &Key, proof: &Proof, outcome: &CallOutcome) -> bool {
        let other = || (self.book).may_be_anothers(&proof.agent, key, proof.not_before);
        let unheard = self.cover() != Cover::Full;
        let nobody_answers = !unheard || self.nobody_elsewhere();
        nobody_answers && is_there(outcome, proof, unheard) && !other()
    }

    /// Whether no other member has a control queue at any broker. In a cut that cannot be seen.
    fn nobody_elsewhere(&self) -> bool {
        let Some(links) = self.links_to_all() else {
            return false;
        };
        let fresh = self.now.mono.saturating_sub(limits::COUNT_FRESH_MS);
        let gone = |peer: &Peer| !peer.liveness.present() && peer.nowhere(&links, fresh);
        self.cluster.replication.unheard_at().is_none()
            && self.members.iter().all(|(_, peer)| gone(peer))
    }
}

/// Whether the platform has such a call.
fn is_there(outcome: &CallOutcome, proof: &Proof, unheard: bool) -> bool {
    let CallOutcome::Done {
        answer: Answer::Dialogs(dialogs),
        ..
    } = outcome
    else {
        return false;
    };
    proof.given_by(dialogs, unheard)
}
