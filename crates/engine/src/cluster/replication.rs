//! What instances tell each other: heartbeats, snapshots, changes.

use std::collections::{BTreeMap, VecDeque};

use crate::model::InstanceId;

use crate::api::command::{BrokerCommand, LifeCommand};
use crate::api::ids::{BootId, LinkEpoch};
use crate::cluster::members::{Liveness, Peer};
use crate::peer::{GroupState, Heartbeat, OutcomeRecord, PeerMessage, Role, SessionRecord};
use crate::state::timer::Timer;
use crate::{Engine, Event, limits};

/// What was told to the others, and when.
#[derive(Debug, Default)]
pub(crate) struct Replication {
    /// Number of the last own heartbeat, and when it was sent, monotonic milliseconds.
    seq: u64,
    beat_at: u64,
    /// Peers whose question was answered: which start of theirs, and when.
    greeted: BTreeMap<InstanceId, (BootId, u64)>,
    /// When a newcomer asked last for what its peers know.
    asked_at: u64,
    /// When a member that is not heard yet was seen to have a consumer, monotonic milliseconds.
    unheard_at: Option<u64>,
    /// Outcomes that the others are to be told; the oldest give way where none can be told.
    outcomes: VecDeque<OutcomeRecord>,
}

impl Replication {
    /// Own heartbeats so far.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Number of the next heartbeat.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    /// A heartbeat is sent; returns its number.
    fn beats(&mut self, now: u64) -> u64 {
        self.seq += 1;
        self.beat_at = now;
        self.seq
    }

    /// The peers were asked, or an answer is on its way.
    pub(crate) fn asked(&mut self, now: u64) {
        self.asked_at = now;
    }

    /// Whether a peer is to be told what is known here: not where that is on its way already.
    fn greets(&mut self, to: &InstanceId, boot: BootId, now: u64) -> bool {
        let lately = |(to, at): &(BootId, u64)| *to == boot && now < at + limits::GREETING_MS;
        if self.greeted.get(to).is_some_and(lately) {
            return false;
        }
        self.greeted.insert(to.clone(), (boot, now));
        while self.greeted.len() > limits::PEERS {
            self.greeted.pop_first();
        }
        true
    }

    /// When a member that is not heard yet was seen to have a consumer.
    pub(crate) fn unheard_at(&self) -> Option<u64> {
        self.unheard_at
    }

    pub(crate) fn tell_outcome(&mut self, record: OutcomeRecord) {
        if self.outcomes.len() >= limits::OUTCOMES_TOLD_AGAIN {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(record);
    }

    pub(crate) fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }
}

impl Engine {
    /// A message of a member, authentic and not heard before: one handler each. The only thing that
    /// is heard under the own name is a second process of the same id.
    pub(crate) fn on_peer(&mut self, from: &InstanceId, boot: BootId, message: PeerMessage) {
        self.heard_on(None);
        if *from == self.cfg.instance {
            if let PeerMessage::Heartbeat(heartbeat) = &message {
                self.on_twin(boot, heartbeat);
            }
            return;
        }
        // What an earlier start acknowledged or asked for holds no more; the later one says it again.
        let former = self.members.get(from).is_some_and(|peer| peer.boot != boot);
        let of_its_start = matches!(
            message,
            PeerMessage::JournalAck { .. }
                | PeerMessage::Shared { .. }
                | PeerMessage::Claim { .. }
                | PeerMessage::ClaimAgent { .. }
        );
        if former && of_its_start {
            self.stale("message of another start");
            return;
        }
        match message {
            PeerMessage::Heartbeat(heartbeat) => self.on_heartbeat(from, boot, heartbeat),
            PeerMessage::Hello => self.on_hello(from, boot),
            PeerMessage::Snapshot {
                part,
                parts,
                sessions,
                destinations,
            } => {
                self.learn(sessions);
                for destination in destinations {
                    self.sessions.learn_destination(&destination, false);
                }
                self.members.note_snapshot_part(from, part, parts);
                // It is on its way: no second one is asked for.
                self.cluster.replication.asked(self.now.mono);
            }
            PeerMessage::Delta {
                sessions,
                destinations,
                outcomes,
            } => {
                self.learn(sessions);
                for destination in destinations {
                    self.sessions.learn_destination(&destination, false);
                }
                for outcome in outcomes {
                    self.hear_outcome(outcome);
                }
            }
            PeerMessage::Share { number, sessions } => self.on_share(from, number, sessions),
            PeerMessage::Shared { number } => self.on_shared(from, number),
            PeerMessage::SessionChanged { record } => self.on_session_changed(record),
            PeerMessage::Journal {
                intents,
                outcomes,
                withdrawn,
                withdrawn_made,
                history,
            } => {
                let withdrawn = (withdrawn, withdrawn_made);
                self.on_journal(from, intents, outcomes, withdrawn, history);
            }
            PeerMessage::JournalAck {
                intents,
                made,
                outcomes,
                unkept,
                refused,
            } => self.on_journal_ack(from, (&intents, &made), (&outcomes, &unkept), &refused),
            PeerMessage::Claim { group, term } => self.on_claim(from, &group, term),
            PeerMessage::Grant { group, term } => self.on_grant(from, &group, term),
            PeerMessage::ClaimAgent { agent } => self.on_claim_agent(from, &agent),
            PeerMessage::GrantAgent { record } => self.on_grant_agent(from, record),
            PeerMessage::RefuseAgent { agent } => self.on_refuse_agent(from, &agent),
            PeerMessage::Forward { id, raw } => self.on_forward(from, id, raw),
            PeerMessage::ForwardDone { id } => self.on_forward_done(from, id),
            PeerMessage::ForwardRefused { id, why } => {
                self.on_forward_refused((from, boot), id, why)
            }
            PeerMessage::ForwardWithdrawn { id } => self.on_forward_withdrawn(from, id),
            PeerMessage::TraceAsk { number, id } => self.on_trace_ask(from, number, id),
            PeerMessage::TraceAnswer { number, rows } => {
                let from = from.clone();
                self.out.push(LifeCommand::Traced { from, number, rows });
            }
            PeerMessage::Goodbye => {
                if let Some(change) = self.members.on_goodbye(self.now, from, boot) {
                    self.member_changed(change);
                }
            }
            PeerMessage::Unknown => {}
        }
    }

    /// What a member says of itself twice a second. The order matters: epochs that it knows are
    /// taken note of first; then what its echo of our own heartbeats proves; roles are looked at
    /// with both; and only then, after a pause of this process, does anything start again.
    fn on_heartbeat(&mut self, from: &InstanceId, boot: BootId, heartbeat: Heartbeat) {
        for group in &heartbeat.groups {
            self.keeping.see_epoch(group.term);
        }
        let echoed = heartbeat
            .echo
            .iter()
            .find(|(id, boot, ..)| *id == self.cfg.instance && *boot == self.cfg.boot)
            .map(|(_, _, seq, held)| (*seq, *held));
        if let Some((seq, held)) = echoed
            && seq == self.cluster.replication.seq
        {
            let since = self
                .now
                .mono
                .saturating_sub(self.cluster.replication.beat_at);
            let millis = since.saturating_sub(held);
            self.members.note_round_trip(from, millis);
            self.out.tell(Event::PeerRoundTrip {
                peer: from.clone(),
                millis,
            });
        }
        let before = self.members.get(from).map(Peer::standing);
        let restarted = self.members.get(from).is_some_and(|peer| peer.boot != boot);
        let choices: Vec<_> = heartbeat
            .groups
            .iter()
            .map(|group| (group.name.clone(), group.choice.clone()))
            .collect();
        let silent = self
            .members
            .get(from)
            .is_some_and(|peer| peer.boot == boot && peer.liveness == Liveness::Lost);
        let change = self.members.on_heartbeat(self.now, from, boot, heartbeat);
        let accepted = self.members.get(from).is_some_and(|peer| peer.boot == boot);
        // Only after a restart of the peer was seen: it forgets what another start had heard.
        let sent = (echoed.filter(|(seq, _)| self.since_back(*seq)))
            .and_then(|(seq, _)| self.book.beat_sent(seq));
        if let Some(sent) = sent {
            self.members.note_heard_us(from, boot, sent);
        }
        if let (Some((seq, _)), true) = (echoed, accepted) {
            self.note_synced(from, seq);
        }
        if let Some(change) = change {
            self.member_changed(change);
            if silent {
                self.healed();
            }
        }
        // It was away for a moment, and this instance leads in its place.
        if restarted && accepted {
            for index in 0..self.groups.len() {
                if self.groups[index].role.leads() {
                    self.end_choice_of(index, from);
                }
            }
        }
        let told = choices.iter();
        let chosen =
            self.learn_choices(told.map(|(name, choice)| (name.as_str(), choice.as_ref())));
        self.look_at_waiting();
        self.compare_tables(from);
        let after = self.members.get(from).map(Peer::standing);
        if before != after || chosen {
            self.look_at_roles("peers");
            self.own_strays();
            self.take_from_absent();
            self.refresh_consumers();
            self.release_held();
        }
        // Only an answer to what was said after the pause tells how things are now: older
        // heartbeats may have waited for us. Roles are looked at before anything starts.
        // What it did meanwhile is to be known, too.
        let told = self.members.get(from).is_some_and(|peer| {
            !peer.heartbeat.journal || peer.heartbeat.settled.contains(&self.cfg.instance)
        });
        let answers = told && echoed.is_some_and(|(seq, _)| self.cluster.pause.is_answered_by(seq));
        if answers && self.cluster.pause.is_open() {
            self.unfence();
        }
    }

    pub(crate) fn on_peer_rejected(&mut self, claimed: Option<InstanceId>, reason: &'static str) {
        if let Some(claimed) = &claimed
            && reason == "wrong_key"
        {
            self.members.on_rejected(claimed);
            self.hear_stranger(claimed);
        }
        self.out.tell(Event::PeerRejected {
            peer: claimed,
            reason,
        });
    }

    /// Sessions as a peer tells them. What we own and a greater version takes from us, we let go.
    pub(crate) fn learn(&mut self, sessions: Vec<SessionRecord>) {
        let mut lost = false;
        for record in sessions {
            self.keeping.see_epoch(record.version.epoch);
            let agent = record.agent.clone();
            let owner = record.version.owner.clone();
            let tombstone = record.tombstone;
            let Some(former) = self.sessions.merge(record) else {
                continue;
            };
            if owner != self.cfg.instance && former.as_ref() == Some(&self.cfg.instance) {
                self.disown(&agent);
                lost = true;
            }
            if let Some(session) = self.sessions.get_mut(&agent) {
                // It was let go after it had been given away, and came back without a grant.
                if owner == self.cfg.instance && former.as_ref() != Some(&owner) && !tombstone {
                    session.linger_until = None;
                }
                session.seen_in &= owner == self.cfg.instance;
                session.buried_until = tombstone.then(|| self.now.mono + limits::TOMBSTONE_MS);
                // An agent that is gone does not come here any more: what was had for it is let go.
                if tombstone {
                    self.end_move(&agent);
                }
            }
        }
        self.own_strays();
        if lost {
            self.hand_over_waiting();
        }
    }

    /// What was said while a peer could not hear it is said again: a table that stays different
    /// gets a snapshot, whoever of the two is behind.
    fn compare_tables(&mut self, from: &InstanceId) {
        let own = self.sessions.tally(&self.cfg.instance).digest();
        if self.members.differs(from, own) {
            self.send_snapshot(from);
        }
    }

    /// A sign of life to all.
    pub(crate) fn beat(&mut self) {
        let interval = self.cfg.peers.heartbeat;
        self.timers.set(Timer::Heartbeat, self.now.mono + interval);
        if !self.attached.hears() {
            return;
        }
        // What it says of the tables is then what the others have been told.
        self.send_delta();
        let seq = self.cluster.replication.beats(self.now.mono);
        self.book.note_beat(seq, self.now.mono);
        let sessions = self.sessions.tally(&self.cfg.instance);
        let broker = self
            .links
            .active_broker()
            .map(|broker| self.links.label(broker).to_owned())
            .unwrap_or_default();
        let echo = self
            .members
            .present()
            .map(|(id, peer)| {
                let held = self.now.mono.saturating_sub(peer.last_seen);
                (id.clone(), peer.boot, peer.heartbeat.seq, held)
            })
            .collect();
        let heartbeat = Heartbeat {
            seq,
            site: self.cfg.site.clone(),
            version: self.cfg.version.clone(),
            mode: self.cfg.mode.as_str().to_owned(),
            started: self.cfg.started,
            former: self.cfg.former.unwrap_or(0),
            groups: self.group_states(),
            broker,
            owned: sessions.owned,
            total: sessions.total,
            digest: sessions.digest(),
            echo,
            journal: true,
            shares: true,
            settled: self.settled(),
            standing: self.standing(sessions.subscribed),
            control_node: String::new(),
        };
        self.say(None, PeerMessage::Heartbeat(heartbeat));
        self.ask_again();
    }

    /// Somebody asks for what is known here. It asks on every way, and again where it has no answer:
    /// what is on its way already is not sent twice.
    fn on_hello(&mut self, from: &InstanceId, boot: BootId) {
        self.greet(from, boot);
        self.beat();
    }

    /// Tells a peer what is known here, unless that is on its way already.
    pub(crate) fn greet(&mut self, to: &InstanceId, boot: BootId) {
        if !self.cluster.replication.greets(to, boot, self.now.mono) {
            return;
        }
        self.tell_outcomes_again(to);
        self.send_snapshot(to);
    }

    /// A newcomer waits for what its peers know; the question or the answer may have been lost.
    fn ask_again(&mut self) {
        let joining = self.groups.iter().any(|group| group.role == Role::Joining);
        if !joining || self.now.mono < self.cluster.replication.asked_at + limits::ASK_AGAIN_MS {
            return;
        }
        self.cluster.replication.asked(self.now.mono);
        let silent: Vec<InstanceId> = self
            .members
            .present()
            .filter(|(_, peer)| !peer.snapshot_done)
            .map(|(id, _)| id.clone())
            .collect();
        for peer in silent {
            self.say(Some(&peer), PeerMessage::Hello);
        }
    }

    fn group_states(&self) -> Vec<GroupState> {
        self.groups
            .iter()
            .enumerate()
            .map(|(index, group)| GroupState {
                name: group.name.clone(),
                role: group.role,
                priority: self.cfg.priority_of(index),
                term: group.term,
                eligible: group.role != Role::Joining && self.eligible(index),
                leaving: group.leaving.is_some_and(|leaving| !leaving.closing),
                choice: group.choice.clone(),
            })
            .collect()
    }

    /// Asks every broker that we reach how many consumers each peer's control queue has.
    pub(crate) fn count_consumers(&mut self) {
        self.timers.set(
            Timer::Evidence,
            self.now.mono + limits::EVIDENCE_INTERVAL_MS,
        );
        let links: Vec<_> = self.links.ups().map(|(link, _)| link).collect();
        let proving = self.proving();
        let peers: Vec<InstanceId> = self
            .members
            .iter()
            .filter(|(_, peer)| {
                let asked = peer.liveness.present() || peer.liveness == Liveness::AuthFailed;
                // A frozen one's consumer is watched until it is gone, and for a lost one proof
                // is looked for that it is gone everywhere.
                let lost = peer.liveness == Liveness::Lost;
                // Proof must be new where something hangs on it.
                let proof = proving && peer.covered;
                asked || peer.may_serve() || (lost && peer.lingers()) || proof
            })
            .map(|(id, _)| id.clone())
            .chain(self.unheard())
            .collect();
        for peer in peers {
            for link in &links {
                self.out.push(BrokerCommand::CountPeerConsumers {
                    link: *link,
                    peer: peer.clone(),
                });
            }
        }
    }

    /// While joining: members of before that were not heard since. Until the brokers are connected again,
    /// that nobody is heard at the one broker proves nothing.
    fn unheard(&self) -> Vec<InstanceId> {
        let joining = |group: &crate::leadership::groups::Group| group.role == Role::Joining;
        if !self.groups.iter().any(joining) {
            return Vec::new();
        }
        let known = self.book.known_members();
        let unheard = known.filter(|id| self.members.get(id).is_none());
        unheard.take(limits::UNHEARD_MEMBERS).cloned().collect()
    }

    /// How many consumers a peer's control queue has at a broker.
    pub(crate) fn on_peer_consumers(&mut self, link: LinkEpoch, peer: &InstanceId, count: u32) {
        self.note_count(link);
        if count > 0 && self.members.get(peer).is_none() {
            self.cluster.replication.unheard_at = Some(self.now.mono);
        }
        self.heard_on(Some(link));
        self.members.on_consumers(link, peer, count, self.now.mono);
        self.timers.set_by(Timer::Members, self.now.mono);
        self.refresh_consumers();
        self.release_held();
    }

    fn send_snapshot(&mut self, to: &InstanceId) {
        let told = self.sessions.iter().filter(|session| session.told());
        let mut sessions = VecDeque::new();
        let mut part = Vec::new();
        let mut bytes = 0;
        for session in told {
            let weight = session.record.weight();
            let full = part.len() >= limits::SNAPSHOT_PART || bytes + weight > limits::PART_BYTES;
            if full && !part.is_empty() {
                sessions.push_back(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += weight;
            part.push(SessionRecord::clone(&session.record));
        }
        sessions.push_back(part);
        let destinations: Vec<_> = self.sessions.destinations().cloned().collect();
        let mut destinations = destinations.chunks(limits::SNAPSHOT_PART);
        let parts = sessions.len().max(destinations.len());
        for part in 0..parts {
            let message = PeerMessage::Snapshot {
                part: part as u32,
                parts: parts as u32,
                sessions: sessions.pop_front().unwrap_or_default(),
                destinations: destinations.next().unwrap_or_default().to_vec(),
            };
            self.say(Some(to), message);
        }
    }

    /// Tells the peers what changed. Without a link it is kept until there is one; without a peer
    /// it is dropped, as a newcomer asks for a snapshot.
    pub(crate) fn send_delta(&mut self) {
        if self.members.present().next().is_none() {
            self.cluster.replication.outcomes.clear();
            while self.sessions.has_changes() {
                self.sessions.take_changes(limits::DELTA_RECORDS);
            }
            return;
        }
        if !self.attached.hears() {
            self.timers
                .set_by(Timer::Delta, self.now.mono + 10 * limits::DELTA_DELAY_MS);
            return;
        }
        while self.sessions.has_changes() || !self.cluster.replication.outcomes.is_empty() {
            let (sessions, destinations) = self.sessions.take_changes(limits::DELTA_RECORDS);
            let count = self
                .cluster
                .replication
                .outcomes
                .len()
                .min(limits::DELTA_RECORDS);
            let outcomes = self.cluster.replication.outcomes.drain(..count).collect();
            self.say(
                None,
                PeerMessage::Delta {
                    sessions,
                    destinations,
                    outcomes,
                },
            );
        }
    }
}
