//! The world of one engine: what its commands do there, and what comes back.

use super::*;

impl Rig {
    pub(super) fn pump(&mut self) {
        let mut inputs: VecDeque<Input> = VecDeque::new();
        let mut rounds = 0;
        loop {
            while let Some(command) = self.engine.poll_command() {
                self.carry_out(command, &mut inputs);
            }
            while let Some(event) = self.engine.poll_event() {
                self.events.push(event);
            }
            let Some(input) = inputs.pop_front() else {
                return;
            };
            rounds += 1;
            assert!(rounds < 20_000, "the engine and the world never rest");
            let now = self.now();
            self.engine.handle(now, input);
        }
    }

    fn keep(&mut self, keep: Keep) -> Input {
        if self.store_fails {
            let failure = Some("disk full".into());
            return Input::Kept { failure };
        }
        for (agent, record) in keep.sessions {
            self.kept.sessions.retain(|(known, _)| *known != agent);
            self.kept.sessions.push((agent, record));
        }
        self.kept.destinations.extend(keep.destinations);
        let gone = |one: &crate::model::Destination| keep.forgotten.contains(one);
        self.kept.destinations.retain(|one| !gone(one));
        self.kept.epoch = keep.epoch;
        for group in keep.groups {
            self.kept.groups.retain(|known| known.name != group.name);
            self.kept.groups.push(group);
        }
        Input::Kept { failure: None }
    }

    fn carry_out(&mut self, command: Command, inputs: &mut VecDeque<Input>) {
        match command {
            Command::Broker(BrokerCommand::Dial { link, .. }) if self.refuses_links => {
                inputs.push_back(Input::LinkDown {
                    link,
                    reason: "refused".into(),
                });
            }
            Command::Broker(BrokerCommand::Dial { link, broker }) if self.dials => {
                self.links.push((link, broker));
                inputs.push_back(Input::LinkUp {
                    link,
                    node: String::new(),
                    cluster: String::new(),
                });
            }
            Command::Broker(BrokerCommand::Fence { broker, peer }) => {
                self.fences.push((broker, peer))
            }
            Command::Broker(BrokerCommand::Dial { .. }) => {}
            Command::Broker(BrokerCommand::Prove { link, way }) => {
                self.proofs.push((link, way));
                let proof = self.proof(link, way);
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::ConsumeExpired { link }) => {
                let way = Way::Expired;
                let proof = self.proof(link, way);
                if proof == Proof::Passed {
                    self.undertakers.push(link);
                }
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::DeclareDeadLetters { link }) => {
                let way = Way::DeadLetters;
                let proof = self.proof(link, way);
                if proof == Proof::Passed && self.broker == Broker::NoDeadLetters {
                    self.broker = Broker::Confirms;
                }
                inputs.push_back(Input::Proved { link, way, proof });
            }
            Command::Broker(BrokerCommand::AttachControl { .. }) if self.slow_control => {}
            Command::Broker(BrokerCommand::AttachControl { link }) => {
                match self.refusal(link, Way::ControlQueue) {
                    Some(refused) => inputs.push_back(refused),
                    None => inputs.push_back(Input::ControlAttached { link }),
                }
            }
            Command::Broker(BrokerCommand::CloseLink { link }) => {
                self.links.retain(|(known, _)| *known != link)
            }
            Command::Broker(BrokerCommand::Consume {
                link,
                group,
                priority,
                tag,
            }) => {
                if self.refuses(link, Way::Commands) {
                    inputs.push_back(Input::ConsumerLost {
                        link,
                        group,
                        tag,
                        reason: REFUSAL.into(),
                    });
                } else if !self.slow_consumers.contains(&self.broker_of(link)) {
                    self.consumers
                        .insert((link, group), (priority, tag.clone()));
                    inputs.push_back(Input::Consuming { link, group, tag });
                }
            }
            Command::Broker(BrokerCommand::StopConsuming { link, group }) => {
                self.consumers.remove(&(link, group));
            }
            Command::Broker(BrokerCommand::Publish { id, link, message }) => {
                self.publish(id, link, message, inputs)
            }
            Command::Broker(BrokerCommand::Ack(id)) => self.acks.push(id),
            Command::Broker(BrokerCommand::Requeue(id)) => self.requeued.push(id),
            Command::Broker(BrokerCommand::CountPeerConsumers { link, peer }) => {
                let near = self.links.iter().find(|(known, _)| *known == link);
                let away = self
                    .peers_at
                    .is_some_and(|at| near.is_none_or(|(_, b)| *b != at));
                let mute = near.is_some_and(|(_, broker)| self.mute == Some(*broker));
                let known = self.counts.get(&peer).copied();
                if let Some(count) = known.filter(|_| !mute) {
                    let count = if away { 0 } else { count };
                    inputs.push_back(Input::PeerConsumers { link, peer, count });
                }
            }
            Command::Downstream(DownstreamCommand::Call(call)) => self.call(*call, inputs),
            Command::Downstream(DownstreamCommand::Probe { .. }) if self.silent_probes => {}
            Command::Downstream(DownstreamCommand::Probe { node }) => {
                inputs.push_back(Input::Probed {
                    node,
                    health: self.nodes[node].clone(),
                })
            }
            Command::Notify(NotifyCommand::Subscribe {
                agent,
                subscription,
                node,
                ..
            }) => {
                self.subscribed.push((agent.clone(), subscription, node));
                self.newest.insert(agent.clone(), subscription);
                let reason = "so said the test".to_owned();
                let notice = match self.notifications {
                    Notifications::Up => Notice::Up,
                    Notifications::Refuses => Notice::Refused { reason },
                    Notifications::Unreachable => Notice::Unreachable { reason },
                    Notifications::NoRoom => Notice::NoRoom(no_descriptors()),
                    Notifications::Silent => return,
                };
                inputs.push_back(Input::Notice {
                    agent,
                    subscription,
                    notice,
                });
            }
            Command::Notify(NotifyCommand::Unsubscribe {
                agent,
                subscription,
            }) => self.unsubscribed.push((agent, subscription)),
            Command::Notify(NotifyCommand::WatchTeam { agent, team, .. }) => {
                self.watched.push((agent, team))
            }
            Command::Life(LifeCommand::VerbDone { result, .. }) => self.verbs.push(result),
            Command::Store(StoreCommand::Keep(_)) if self.store_hangs => {}
            Command::Store(StoreCommand::Keep(keep)) => inputs.push_back(self.keep(*keep)),
            Command::Store(StoreCommand::Journal { id, write }) => {
                self.journal.push((id, *write));
                if self.journal_answers {
                    let ids = vec![id];
                    let failure = self.journal_failure.clone();
                    inputs.push_back(Input::Journaled { ids, failure });
                }
            }
            Command::Life(LifeCommand::TellTrace {
                to,
                number,
                id,
                journal,
            }) => {
                self.trace_tells.push((to, number, id, journal));
            }
            Command::Life(LifeCommand::TraceAsked { .. }) => {}
            Command::Life(LifeCommand::Traced { from, number, rows }) => {
                self.traced.push((from, number, rows));
            }
            Command::Life(LifeCommand::Exit) | Command::Life(LifeCommand::Refuse(_)) => {
                self.exited = true
            }
        }
    }

    fn publish(
        &mut self,
        id: PublishId,
        link: LinkEpoch,
        message: Outbound,
        inputs: &mut VecDeque<Input>,
    ) {
        if let Outbound::Peer { to, message } = message {
            // The same on another link is said once.
            let said = (to, *message);
            if self.said_on < Some(link) && self.said.last() == Some(&said) {
                self.said.pop();
            }
            self.said_on = Some(link);
            self.said.push(said);
            let outcome = match self.refusal(link, Way::Peers) {
                Some(refused) => {
                    self.said.pop();
                    inputs.push_back(refused);
                    PublishOutcome::Barred
                }
                None => PublishOutcome::Confirmed,
            };
            inputs.push_back(Input::Published {
                publish: id,
                outcome,
            });
            return;
        }
        let way = message.way();
        let told_where_it_ends = matches!(
            message,
            Outbound::Reply {
                route: ReplyRoute::Near(_) | ReplyRoute::Far(_),
                ..
            }
        );
        let far = way == Way::FarReplies;
        let for_people = matches!(
            message,
            Outbound::DeadLetter { .. } | Outbound::ParkedReply { .. }
        );
        let for_client = matches!(message, Outbound::Reply { .. } | Outbound::Event { .. });
        let event_to = match &message {
            Outbound::Event { to, .. } => Some(to.clone()),
            _ => None,
        };
        if let Some(refused) = self.refusal(link, way) {
            self.barred += 1;
            inputs.push_back(refused);
            inputs.push_back(Input::Published {
                publish: id,
                outcome: PublishOutcome::Barred,
            });
            return;
        }
        self.published.push((id, link, message));
        let outcome = match self.broker {
            Broker::Holds => {
                self.held.push(id);
                return;
            }
            Broker::Returns if told_where_it_ends => PublishOutcome::Untaken,
            Broker::Fails => PublishOutcome::Failed,
            Broker::ClientsAreFull if for_client => PublishOutcome::Refused,
            Broker::FarRepliesAreRefused if far => PublishOutcome::Refused,
            Broker::EventsAreRefused if event_to.is_some() => PublishOutcome::Refused,
            Broker::Refuses(client) if event_to.is_some_and(|to| to.as_str() == client) => {
                PublishOutcome::Refused
            }
            Broker::NoDeadLetters if for_people => PublishOutcome::Untaken,
            Broker::Confirms
            | Broker::Returns
            | Broker::ClientsAreFull
            | Broker::FarRepliesAreRefused
            | Broker::EventsAreRefused
            | Broker::Refuses(_)
            | Broker::NoDeadLetters => PublishOutcome::Confirmed,
        };
        inputs.push_back(Input::Published {
            publish: id,
            outcome,
        });
    }

    pub fn broker_of(&self, link: LinkEpoch) -> usize {
        let known = self.links.iter().find(|(known, _)| *known == link);
        known.map_or(usize::MAX, |(_, broker)| *broker)
    }

    fn refuses(&self, link: LinkEpoch, way: Way) -> bool {
        self.refused.contains(&(self.broker_of(link), way))
    }

    fn refusal(&self, link: LinkEpoch, way: Way) -> Option<Input> {
        let reason = REFUSAL.to_owned();
        let refused = self.refuses(link, way);
        refused.then_some(Input::Barred { link, way, reason })
    }

    fn proof(&self, link: LinkEpoch, way: Way) -> Proof {
        match self.refuses(link, way) {
            true => Proof::Refused {
                reason: REFUSAL.into(),
            },
            false => Proof::Passed,
        }
    }

    fn call(&mut self, call: Call, inputs: &mut VecDeque<Input>) {
        let id = call.id;
        let outcome = self.answers_calls.then(|| self.outcome_of(&call));
        self.calls.push(call);
        match outcome {
            Some(outcome) => inputs.push_back(Input::CallDone { call: id, outcome }),
            None => self.open_calls.push(id),
        }
    }

    fn outcome_of(&mut self, call: &Call) -> CallOutcome {
        if let Some(outcome) = self.answers.pop_front() {
            return outcome;
        }
        let answer = match &call.action {
            Action::ReadUser => Answer::User(Box::new(
                self.users
                    .get(&call.agent)
                    .cloned()
                    .unwrap_or_else(|| user(call.agent.as_str(), "LOGOUT")),
            )),
            Action::ReadDialogs => Answer::Dialogs(Vec::new()),
            _ => return done(),
        };
        CallOutcome::Done {
            status: 200,
            answer,
        }
    }

    /// What a peer would know of an agent.
    pub fn record(name: &str, owner: &str, epoch: u64) -> crate::peer::SessionRecord {
        crate::peer::SessionRecord {
            agent: agent(name),
            version: crate::peer::Version {
                epoch,
                rank: 0,
                owner: instance(owner),
                counter: 1,
            },
            destination: destination("desk"),
            extension: Some("2001".into()),
            password: Secret::new("pw"),
            mobile: None,
            watched: Vec::new(),
            signed_in: true,
            user: None,
            tombstone: false,
            group: String::new(),
            newest_change: None,
            node: None,
        }
    }
}
