//! What operators decide: their verbs, and the choice about a group that all members share.
//!
//! ```text
//!   verb ──▶ refused, with the reason
//!     │
//!     └────▶ group stopped here · choice (counter, instance) ──▶ on disk ──▶ answered
//!                                        └──▶ in every heartbeat ──▶ the peers: the greater wins
//! ```
//!
//! A choice stands above all priorities until the next verb, or until the instance that leads by
//! it is lost.

use crate::model::InstanceId;

use crate::api::command::LifeCommand;
use crate::api::config::Mode;
use crate::api::ids::VerbId;
use crate::api::input::Verb;
use crate::cluster::members::Liveness;
use crate::peer::{Choice, Role, Wish};
use crate::{Engine, Event, limits};

impl Engine {
    // ---- verbs --------------------------------------------------------------------------------

    pub(crate) fn on_verb(&mut self, id: VerbId, verb: &Verb) {
        let done = match verb {
            Verb::GroupStop(name) => self.stop_group(name),
            Verb::GroupStart(name) => self.start_group(name),
            Verb::FailoverStop(name) => self.stop_failover(name),
            Verb::FailoverStart(name) => self.start_failover(name),
            Verb::FailoverAuto(name) => self.leave_it_to_priority(name),
            Verb::Switchover(to) => self.switch_over(to),
            Verb::Forget(name) => self.forget_member(name),
            Verb::Drain => self.drain(limits::HANDOVER_WAIT_MS, "drained"),
        };
        // Who leads by somebody's choice serves all that belongs to it.
        self.own_strays();
        match done {
            Ok(said) => self.answer_when_kept(id, said),
            Err(reason) => {
                let result = Err(reason);
                self.out.push(LifeCommand::VerbDone { id, result });
            }
        }
    }

    /// What is asked for is so. Where it could not be written, it is tried again.
    fn already(&self, index: usize, refusal: String) -> Result<String, String> {
        match self.groups[index].unkept {
            true => Ok(self.groups[index].role.as_str().to_owned()),
            false => Err(refusal),
        }
    }

    fn stop_group(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        if self.groups[index].stopped {
            return self.already(index, format!("group {name} is stopped already"));
        }
        self.groups.edit(index).stopped = true;
        self.groups.edit(index).unkept = true;
        self.tell_operator(index, "stopped here".to_owned());
        self.leave_group(index, "operator", Some(limits::HANDOVER_WAIT_MS));
        Ok(self.way_out(index))
    }

    fn start_group(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        let group = &self.groups[index];
        let out = group.stopped || group.role == Role::Disabled || group.leaving.is_some();
        if !out {
            return self.already(index, format!("group {name} is not stopped"));
        }
        self.not_ending()?;
        if let Some(choice) = &group.choice
            && let Wish::FailoverOff { stopped } = &choice.wish
            && *stopped == self.cfg.instance
        {
            return Err(format!(
                "failover of group {name} is switched off: `tandem failover start {name}` on the \
                 instance that is to lead it"
            ));
        }
        self.tell_operator(index, "started here".to_owned());
        self.come_back(index);
        self.look_at_role(index, "operator");
        self.refresh_consumers();
        self.beat();
        Ok(self.groups[index].role.as_str().to_owned())
    }

    fn stop_failover(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        self.not_ending()?;
        if let Some(Choice {
            wish: Wish::FailoverOff { stopped },
            ..
        }) = &self.groups[index].choice
        {
            let refusal =
                format!("failover of group {name} is switched off already, stopped on {stopped}");
            return self.already(index, refusal);
        }
        let stopped = self.cfg.instance.clone();
        self.decide(index, Wish::FailoverOff { stopped });
        Ok(self.way_out(index))
    }

    /// An operator starts a group here: in active-passive this instance is chosen as its leader, in
    /// active-active it serves again. Refused where it could not serve.
    fn start_failover(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        self.not_ending()?;
        let me = self.cfg.instance.clone();
        if self.attached.joined_at().is_none() {
            return Err("no broker has been reached yet: the peers are not known".to_owned());
        }
        if !self.route.available() {
            return Err("no downstream is in service here".to_owned());
        }
        let passive = self.cfg.mode == Mode::ActivePassive;
        let wish = match passive {
            true => Wish::Leader { instance: me },
            false => Wish::Priority,
        };
        let group = &self.groups[index];
        let known = group.choice.as_ref().map(|choice| &choice.wish);
        let settled = known == Some(&wish) || (!passive && known.is_none());
        if group.role.leads() && group.leaving.is_none() && settled {
            let by = if passive {
                ", by an operator's choice"
            } else {
                ""
            };
            let refusal = format!("{} leads group {name} already{by}", self.cfg.instance);
            return self.already(index, refusal);
        }
        self.come_back(index);
        self.decide(index, wish);
        self.look_at_roles("operator");
        self.refresh_consumers();
        let role = self.groups[index].role;
        let said = if role.leads() {
            role.as_str()
        } else {
            // On its way there.
            Role::Joining.as_str()
        };
        Ok(said.to_owned())
    }

    /// Takes back what an operator chose for a group, wherever that was.
    fn leave_it_to_priority(&mut self, name: &str) -> Result<String, String> {
        let index = self.group_index(name)?;
        self.not_ending()?;
        match &self.groups[index].choice {
            None
            | Some(Choice {
                wish: Wish::Priority,
                ..
            }) => {
                let refusal = format!("no choice stands for group {name}: priority decides");
                return self.already(index, refusal);
            }
            Some(_) => {}
        }
        self.decide(index, Wish::Priority);
        self.look_at_roles("operator");
        self.refresh_consumers();
        Ok(self.groups[index].role.as_str().to_owned())
    }

    /// An operator wants an instance to lead every group. Refused where it could not, as the group
    /// would be without a leader; else the choice is made, and the roles follow it step by step.
    fn switch_over(&mut self, to: &str) -> Result<String, String> {
        if self.cfg.mode == Mode::ActiveActive {
            return Err(
                "in active-active every instance leads: to empty one, drain it; its agents stay \
                 with the others until they are needed elsewhere"
                    .to_owned(),
            );
        }
        self.not_ending()?;
        let unknown = || {
            let peers = self.members.present().map(|(id, _)| id.as_str());
            let known: Vec<&str> = std::iter::once(self.cfg.instance.as_str())
                .chain(peers)
                .collect();
            format!(
                "there is no instance {to} in this cluster; known: {}",
                known.join(", ")
            )
        };
        let target = InstanceId::new(to).map_err(|_| unknown())?;
        if target != self.cfg.instance {
            let peer = self.members.get(&target).ok_or_else(unknown)?;
            if peer.liveness != Liveness::Alive {
                return Err(format!("{to} is {}", peer.liveness.as_str()));
            }
        }
        for index in 0..self.groups.len() {
            self.may_lead(&target, index)?;
        }
        let names: Vec<&str> = self.groups.iter().map(|g| g.name.as_str()).collect();
        let leads = |name: &&str| match self.members.get(&target) {
            Some(peer) => peer.group(name).is_some_and(|group| group.role.leads()),
            None => self
                .placement()
                .index_of(name)
                .is_some_and(|i| self.groups[i].role.leads()),
        };
        if names.iter().all(leads) {
            return Err(format!("{to} leads already"));
        }
        for index in 0..self.groups.len() {
            let instance = target.clone();
            self.decide(index, Wish::Leader { instance });
        }
        self.look_at_roles("operator");
        Ok(Role::Draining.as_str().to_owned())
    }

    /// Whether an instance could lead a group now.
    fn may_lead(&self, target: &InstanceId, index: usize) -> Result<(), String> {
        let name = &self.groups[index].name;
        if let Some(stopped) = self.groups[index].choice.as_ref().and_then(|c| c.stopped()) {
            return Err(format!(
                "failover of group {name} is switched off, stopped on {stopped}: `tandem failover \
                 start {name}` on the instance that is to lead it"
            ));
        }
        let eligible = match self.members.get(target) {
            _ if *target == self.cfg.instance => self.eligible(index),
            Some(peer) => match peer.group(name) {
                Some(group) => group.eligible,
                None => return Err(format!("{target} has no group {name}")),
            },
            None => false,
        };
        if eligible {
            return Ok(());
        }
        Err(format!(
            "{target} cannot lead group {name} now: it is stopped there, drained or joining, or \
             no downstream is in service there"
        ))
    }

    fn not_ending(&self) -> Result<(), String> {
        match self.ending.shutdown() {
            None => Ok(()),
            Some(_) => Err("this instance is shutting down".to_owned()),
        }
    }

    fn group_index(&self, name: &str) -> Result<usize, String> {
        self.groups
            .iter()
            .position(|group| group.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.groups.iter().map(|g| g.name.as_str()).collect();
                format!("there is no group {name}; known: {}", known.join(", "))
            })
    }

    /// The state of a group that is on its way out, for an answer.
    fn way_out(&self, index: usize) -> String {
        let group = &self.groups[index];
        let role = if group.leaving.is_some() {
            Role::Draining
        } else {
            group.role
        };
        role.as_str().to_owned()
    }

    /// A group that was stopped, or on its way out, takes part again.
    fn come_back(&mut self, index: usize) {
        self.ending.drain_no_more();
        let joined = self.may_leave_joining();
        let group = self.groups.edit(index);
        group.unkept |= group.stopped;
        group.stopped = false;
        group.stopped_first = false;
        group.leaving = None;
        if matches!(group.role, Role::Disabled | Role::Draining) && group.granting.is_none() {
            group.role = if joined {
                Role::Follower
            } else {
                Role::Joining
            };
        }
    }

    // ---- the choice ---------------------------------------------------------------------------

    /// An operator's word, given to this instance.
    pub(crate) fn decide(&mut self, index: usize, wish: Wish) {
        let known = self.groups[index].choice.as_ref();
        let choice = Choice {
            counter: known.map_or(0, |choice| choice.counter) + 1,
            by: self.cfg.instance.clone(),
            at: self.now.wall,
            wish,
        };
        self.take_choice(index, choice);
        self.beat();
    }

    /// A choice, made here or told by a peer. The greater one stands. Returns whether it is new.
    pub(crate) fn take_choice(&mut self, index: usize, choice: Choice) -> bool {
        let group = self.groups.edit(index);
        if group.choice.as_ref() >= Some(&choice) {
            return false;
        }
        let wish = choice.wish.clone();
        let text = choice.to_string();
        let former = group.choice.replace(choice);
        group.unkept = true;
        group.at_once = false;
        self.tell_operator(index, text);
        let me = &self.cfg.instance;
        let was_off = former.as_ref().and_then(Choice::stopped) == Some(me);
        match &wish {
            Wish::FailoverOff { stopped } if stopped == me => {
                let group = self.groups.edit(index);
                if !was_off {
                    group.stopped_first = group.stopped;
                }
                group.stopped = true;
                self.leave_group(index, "failover-off", None);
            }
            Wish::Leader { instance } if instance == me => {
                let group = self.groups.edit(index);
                group.at_once = !group.role.leads();
            }
            _ => {}
        }
        // Failover is on again, and another one leads: this one stands by, unless it had been
        // stopped before.
        if was_off && wish.stopped().is_none() && self.groups[index].stopped {
            match self.groups[index].stopped_first {
                true => self.groups.edit(index).stopped_first = false,
                false => self.come_back(index),
            }
        }
        true
    }

    /// Choices as a peer tells them. Returns whether one of them is new.
    pub(crate) fn learn_choices<'a>(
        &mut self,
        told: impl Iterator<Item = (&'a str, Option<&'a Choice>)>,
    ) -> bool {
        let mut new = false;
        for (name, choice) in told {
            let index = self.groups.iter().position(|group| group.name == name);
            if let (Some(index), Some(choice)) = (index, choice) {
                new |= self.take_choice(index, choice.clone());
            }
        }
        new
    }

    /// Whether an operator wants this instance to lead.
    pub(crate) fn chosen(&self, index: usize, instance: &InstanceId) -> bool {
        let choice = self
            .groups
            .get(index)
            .and_then(|group| group.choice.as_ref());
        matches!(choice.map(|choice| &choice.wish),
            Some(Wish::Leader { instance: chosen }) if chosen == instance)
    }

    /// The instance that leads by choice goes: the choice ends with it.
    pub(crate) fn end_choice_of(&mut self, index: usize, instance: &InstanceId) {
        if self.chosen(index, instance) {
            self.decide(index, Wish::Priority);
        }
    }

    /// This instance leads in place of the chosen one, which is gone for sure.
    pub(crate) fn end_choice_of_the_lost(&mut self, index: usize) {
        let group = &self.groups[index];
        let Some(Wish::Leader { instance }) = group.choice.as_ref().map(|c| c.wish.clone()) else {
            return;
        };
        let chosen_at = group.choice.as_ref().filter(|choice| choice.by == instance);
        let chosen_at = chosen_at.map(|choice| choice.at);
        // Who joins was away, unless it was told so where it joins now: by its own clock.
        let joins = |peer: &crate::cluster::members::Peer| {
            let state = peer.group(&group.name);
            let since = chosen_at.is_some_and(|at| at >= peer.heartbeat.started);
            state.is_none_or(|state| state.role == Role::Joining && !since)
        };
        let present = instance == self.cfg.instance
            || self
                .members
                .get(&instance)
                .is_some_and(|peer| peer.liveness.present() && !joins(peer));
        if group.role == Role::Leader && !present {
            self.decide(index, Wish::Priority);
        }
    }

    fn tell_operator(&mut self, index: usize, what: String) {
        self.out.tell(Event::Operator {
            group: self.groups[index].name.clone(),
            what,
        });
    }
}
