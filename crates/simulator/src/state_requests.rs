//! PUT User: signing in and out and changing state.

use std::sync::Arc;

use super::agent::{AgentState, Mobile, State, Step, Verb, transition};
use super::config::Deployment;
use super::lock;
use super::reasons::{self, Reason};
use super::world::{Caller, Refused, World};
use super::xml;

/// The body of PUT User.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UserRequest {
    state: String,
    extension: String,
    reason: String,
    mobile: Option<Mobile>,
}

impl UserRequest {
    /// Reads the body.
    ///
    /// # Errors
    /// 400 Bad Request when it is not XML.
    pub fn parse(body: &str) -> Result<Self, Refused> {
        let mut request = Self::default();
        xml::leaves(body, |parent, name, text| match (parent, name) {
            ("mobileAgent", "mode") => {
                text.clone_into(&mut request.mobile.get_or_insert_default().mode);
            }
            ("mobileAgent", "dialNumber") => {
                text.clone_into(&mut request.mobile.get_or_insert_default().dial_number);
            }
            (_, "state") => text.clone_into(&mut request.state),
            (_, "extension") => text.clone_into(&mut request.extension),
            (_, "reasonCodeId") => text.clone_into(&mut request.reason),
            _ => {}
        })
        .map_err(|e| Refused::new(400, "Bad Request", &e.to_string(), ""))?;
        Ok(request)
    }
}

impl World {
    /// Takes PUT User for `caller.agent`, to be carried out after `effect-delay`; `Ok` is 202.
    ///
    /// # Errors
    /// The refusal to answer at once.
    pub fn put_user(
        self: &Arc<Self>,
        caller: Caller<'_>,
        request: UserRequest,
        by_supervisor: bool,
    ) -> Result<(), Refused> {
        let delay = self.config.effect_delay;
        let possible = Verb::parse(&request.state)
            .and_then(|verb| self.step(&lock(&caller.agent.state), verb, by_supervisor))
            .is_some();
        if delay.is_zero() || !possible {
            return self.set_user(caller, request, by_supervisor);
        }
        let (node, agent) = (caller.node, caller.agent.clone());
        let request_id = caller.request_id.to_owned();
        let traceparent = caller.traceparent.to_owned();
        self.later(delay, move |world| {
            let caller = Caller {
                node,
                agent: &agent,
                request_id: &request_id,
                traceparent: &traceparent,
            };
            if let Err(refused) = world.set_user(caller, request, by_supervisor) {
                let user = format!("/finesse/api/User/{}", agent.id);
                let error = [&refused.data, &refused.message, refused.kind];
                world.publish_error(caller, &user, &user, error);
            }
        });
        Ok(())
    }

    fn step(&self, state: &AgentState, verb: Verb, by_supervisor: bool) -> Option<Step> {
        let deployment = self.deployment();
        transition(deployment, state.state, state.pending, verb, by_supervisor)
    }

    fn set_user(
        self: &Arc<Self>,
        caller: Caller<'_>,
        request: UserRequest,
        by_supervisor: bool,
    ) -> Result<(), Refused> {
        if request.state.is_empty() {
            return Err(Refused::missing("state"));
        }
        let verb = Verb::parse(&request.state)
            .ok_or_else(|| Refused::input("unknown state", &request.state))?;
        let reason = self.reason(verb, &request.reason, by_supervisor)?;
        let agent = caller.agent;
        let mut state = lock(&agent.state);
        let step = (self.step(&state, verb, by_supervisor))
            .ok_or_else(|| Refused::state(&request.state))?;
        if verb == Verb::Login {
            return self.sign_in(caller, &mut state, request);
        }
        let detail = reason
            .map(|reason| reason.id.to_string())
            .unwrap_or_default();
        match step {
            Step::To(State::Logout) => self.sign_out(agent, &mut state, reason),
            Step::To(to) => state.rest(to, reason),
            Step::Pending(to) => {
                state.pending = Some(to);
                state.base_reason = reason;
            }
            Step::Same | Step::WorkmodeRefused => {}
        }
        if step == Step::WorkmodeRefused {
            let error = ["265", "CF_INVALID_AGENT_WORKMODE", "Invalid State"];
            let node = format!("/finesse/api/User/{}", agent.id);
            self.publish_error(caller, &node, &node, error);
            return Ok(());
        }
        self.ledger
            .record(caller.node, &agent.id, verb.name(), caller.marks(), &detail);
        if step != Step::Same {
            self.publish_user(agent, &state, caller.request_id);
        }
        let resting = !matches!(state.state, State::Work | State::WorkReady);
        // The calls' lock comes before the agent's.
        drop(state);
        if resting {
            self.end_wrap_up(agent);
        }
        Ok(())
    }

    fn reason(&self, verb: Verb, id: &str, by_supervisor: bool) -> Result<Option<Reason>, Refused> {
        let category = match verb {
            Verb::NotReady => "NOT_READY",
            Verb::Logout => "LOGOUT",
            _ => "",
        };
        if by_supervisor {
            if !id.is_empty() {
                return Err(Refused::input("a supervisor gives no reason", id));
            }
            let code = match self.deployment() {
                Deployment::Ucce => 999,
                Deployment::Uccx => 33,
            };
            return Ok((!category.is_empty())
                .then(|| reasons::system(code, category, "Supervisor Initiated")));
        }
        if id.is_empty() || id == "-1" {
            return Ok(None);
        }
        id.parse()
            .ok()
            .and_then(|number| reasons::find(number, category))
            .map(Some)
            .ok_or_else(|| Refused::input("reason code not allowed", id))
    }

    fn sign_in(
        self: &Arc<Self>,
        caller: Caller<'_>,
        state: &mut AgentState,
        request: UserRequest,
    ) -> Result<(), Refused> {
        let agent = caller.agent;
        if request.extension.is_empty() {
            return Err(Refused::missing("extension"));
        }
        if !request.extension.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refused::input("not an extension", &request.extension));
        }
        if let Some(mobile) = &request.mobile {
            if !matches!(mobile.mode.as_str(), "CALL_BY_CALL" | "NAILED_CONNECTION") {
                return Err(Refused::input("unknown mode", &mobile.mode));
            }
            if mobile.dial_number.is_empty() {
                return Err(Refused::missing("dialNumber"));
            }
        }
        let user = format!("/finesse/api/User/{}", agent.id);
        if request.mobile.is_some() && self.deployment() == Deployment::Uccx {
            let error = ["", "mobile agents are not supported", "Mode Not Allowed"];
            self.publish_error(caller, &user, &user, error);
            return Ok(());
        }
        let first = state.state == State::Logout;
        if !first && state.extension != request.extension {
            return Err(Refused::input(
                "signed in on another device",
                &state.extension,
            ));
        }
        {
            let mut devices = self.devices.write().unwrap_or_else(|e| e.into_inner());
            if devices
                .get(&request.extension)
                .is_some_and(|owner| owner.id != agent.id)
            {
                drop(devices);
                let error = ["33", "CF_RESOURCE_BUSY", "Generic Error"];
                self.publish_error(caller, &user, &user, error);
                return Ok(());
            }
            devices.insert(request.extension.clone(), agent.clone());
        }
        self.ledger.record(
            caller.node,
            &agent.id,
            "LOGIN",
            caller.marks(),
            &request.extension,
        );
        if first {
            state.extension = request.extension;
            state.rest(State::NotReady, None);
        }
        state.mobile = request.mobile;
        self.publish_user(agent, state, caller.request_id);
        Ok(())
    }

    /// Enters the state that follows a call, and starts the wrap-up timer if it is one.
    pub fn enter_after_call(
        self: &Arc<Self>,
        agent: &Arc<super::agent::Agent>,
        state: &mut AgentState,
    ) {
        if let Some(pending) = state.pending.take() {
            state.base = pending;
        }
        let (base, reason) = (state.base, state.base_reason);
        state.enter(base, reason);
        let next = match base {
            State::Work => State::NotReady,
            State::WorkReady => State::Ready,
            _ => return,
        };
        let (agent, version) = (agent.clone(), state.version);
        self.later(self.config.wrap_up, move |world| {
            let mut state = lock(&agent.state);
            if state.version == version {
                state.rest(next, None);
                world.publish_user(&agent, &state, "");
                drop(state);
                world.end_wrap_up(&agent);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    fn world() -> Arc<World> {
        Arc::new(World::new(Config::loopback(1, 2)))
    }

    fn put(world: &Arc<World>, agent: &str, body: &str) -> Result<(), Refused> {
        let caller = Caller {
            node: 1,
            agent: world.agent(agent).unwrap(),
            request_id: "r-1",
            traceparent: "",
        };
        world.put_user(caller, UserRequest::parse(body)?, false)
    }

    #[test]
    fn signing_in_needs_an_extension_and_takes_the_device() {
        let world = world();
        let missing = put(&world, "1001", "<User><state>LOGIN</state></User>").unwrap_err();
        assert_eq!(missing.kind, "Parameter Missing");
        put(
            &world,
            "1001",
            "<User><state>LOGIN</state><extension>7001</extension></User>",
        )
        .unwrap();
        assert_eq!(world.device("7001").unwrap().id.as_ref(), "1001");
        // The second agent on the same device is refused by CTI, not by an HTTP error.
        put(
            &world,
            "1002",
            "<User><state>LOGIN</state><extension>7001</extension></User>",
        )
        .unwrap();
        assert_eq!(world.agent("1002").unwrap().current(), State::Logout);
        let other = "<User><state>LOGIN</state><extension>7009</extension></User>";
        assert_eq!(put(&world, "1001", other).unwrap_err().status, 400);
        assert_eq!(world.ledger.entries(None, 0).len(), 1);
    }

    #[tokio::test]
    async fn with_an_effect_delay_a_request_is_taken_first_and_carried_out_later() {
        let mut config = Config::loopback(1, 2);
        config.effect_delay = std::time::Duration::from_millis(300);
        let world = Arc::new(World::new(config));
        let state = || lock(&world.agent("1001").unwrap().state).state;
        let sign_in = "<User><state>LOGIN</state><extension>7001</extension></User>";
        put(&world, "1001", sign_in).unwrap();
        let ready = put(&world, "1001", "<User><state>READY</state></User>");
        assert_eq!(ready.unwrap_err().kind, "Invalid State");
        assert_eq!(state(), State::Logout);
        while state() != State::NotReady {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn refused_requests_leave_no_trace_in_the_ledger() {
        let world = world();
        for body in [
            "<User><state>READY</state></User>",
            "<User><state>SLEEPING</state></User>",
            "<User></User>",
            "nonsense",
        ] {
            assert_eq!(put(&world, "1001", body).unwrap_err().status, 400, "{body}");
        }
        assert_eq!(world.ledger.total(), 0);
    }

    #[test]
    fn a_reason_must_belong_to_the_state() {
        let world = world();
        put(
            &world,
            "1001",
            "<User><state>LOGIN</state><extension>7001</extension></User>",
        )
        .unwrap();
        let lunch = "<User><state>NOT_READY</state><reasonCodeId>2</reasonCodeId></User>";
        put(&world, "1001", lunch).unwrap();
        let agent = world.agent("1001").unwrap();
        assert_eq!(lock(&agent.state).reason.unwrap().label, "Lunch");
        let wrong = "<User><state>NOT_READY</state><reasonCodeId>21</reasonCodeId></User>";
        assert_eq!(
            put(&world, "1001", wrong).unwrap_err().kind,
            "Invalid Input"
        );
    }
}
