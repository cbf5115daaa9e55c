//! The REST side of a node: faults first, then authentication, then the call itself.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;

use super::agent::Agent;
use super::config::Deployment;
use super::dialog_requests::DialogRequest;
use super::faults::Hit;
use super::lists;
use super::lock;
use super::net::Cut;
use super::reasons;
use super::state_requests::UserRequest;
use super::world::{Caller, Refused, SYSTEM_INFO, World, service};
use super::xml::leaf;

/// Largest request body, bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// One node as its handlers see it.
#[derive(Debug)]
pub struct Node {
    /// Shared state.
    pub world: Arc<World>,
    /// Node 1 or 2.
    pub number: usize,
}

/// An answer before it becomes HTTP.
struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn ok(body: String) -> Self {
        Self { status: 200, body }
    }

    fn accepted() -> Self {
        Self {
            status: 202,
            body: String::new(),
        }
    }
}

/// Who sent the request.
enum Who<'a> {
    Admin,
    Agent(&'a Arc<Agent>),
}

/// Handles every request below `/finesse`.
pub async fn handle(
    State(node): State<Arc<Node>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return response(413, String::new());
    };
    let path = parts.uri.path();
    let faults = node.world.node_faults(node.number);
    let hit = faults.hit(parts.method.as_str(), path, &body);
    if let Some(hit) = &hit
        && let Some(answer) = before(hit, &node, &cut).await
    {
        return answer;
    }
    let query = parts.uri.query().unwrap_or_default();
    let mut answer = node
        .answer(&parts.method, path, query, &parts.headers, &body)
        .unwrap_or_else(|refused| Answer {
            status: refused.status,
            body: refused.body(),
        });
    if let Some(hit) = hit {
        if hit.drop_after {
            cut.cut();
        }
        if hit.garbage {
            answer.body = "\u{1}<html>{{ garbage &".to_owned();
        }
    }
    response(answer.status, answer.body)
}

async fn before(hit: &Hit, node: &Node, cut: &Cut) -> Option<Response> {
    if !hit.delay.is_zero() {
        tokio::time::sleep(hit.delay).await;
    }
    if hit.hang {
        // The connection's end drops this; the simulator's end cuts it.
        node.world.stop.cancelled().await;
        cut.cut();
    }
    if hit.drop_before {
        cut.cut();
        return Some(response(500, String::new()));
    }
    let status = hit.status?;
    let text = StatusCode::from_u16(status).ok()?;
    let kind = match status {
        401 => "Authorization Failure",
        403 => "Forbidden",
        404 => "Not Found",
        503 => "Service Unavailable",
        500 => "Internal Server Error",
        _ => "Generic Error",
    };
    let body = if status >= 400 {
        let reason = text.canonical_reason().unwrap_or("fault");
        Refused::new(status, kind, reason, "fault").body()
    } else {
        String::new()
    };
    Some(response(status, body))
}

fn response(status: u16, body: String) -> Response {
    let empty = body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !empty {
        let xml = HeaderValue::from_static("application/xml;charset=UTF-8");
        response.headers_mut().insert(header::CONTENT_TYPE, xml);
    }
    if status == 401 {
        let realm = HeaderValue::from_static("Basic realm=\"finesse\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, realm);
    }
    response
}

fn not_found(path: &str) -> Refused {
    Refused::new(404, "Not Found", "no such resource", path)
}

fn unauthorized(kind: &'static str) -> Refused {
    Refused::new(
        401,
        kind,
        "The user is not authorized to perform this operation",
        "",
    )
}

impl Node {
    fn answer(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, Refused> {
        let rest = path
            .strip_prefix("/finesse/api/")
            .ok_or_else(|| not_found(path))?;
        let mut segments: [Cow<'_, str>; 3] = Default::default();
        let mut count = 0;
        for segment in rest.split('/').filter(|segment| !segment.is_empty()) {
            let slot = segments.get_mut(count).ok_or_else(|| not_found(path))?;
            *slot = percent_encoding::percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| not_found(path))?;
            count += 1;
        }
        let segments: Vec<&str> = segments[..count].iter().map(AsRef::as_ref).collect();
        if let ["SystemInfo"] = segments.as_slice() {
            return match *method {
                Method::GET => Ok(Answer::ok(self.system_info())),
                _ => Err(Refused::new(405, "Generic Error", "method not allowed", "")),
            };
        }
        if self.world.node_faults(self.number).out_of_service() {
            let message = "SERVER_OUT_OF_SERVICE";
            return Err(Refused::new(503, "Service Unavailable", message, ""));
        }
        self.route(method, &segments, path, query, headers, body)
    }

    fn route(
        &self,
        method: &Method,
        segments: &[&str],
        path: &str,
        query: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, Refused> {
        let who = self.authenticate(headers, segments.get(1).copied())?;
        let text = || {
            std::str::from_utf8(body).map_err(|_| Refused::new(400, "Bad Request", "not UTF-8", ""))
        };
        let header = |name| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        };
        let marks = (header("requestId"), header("traceparent"));
        match (method, segments) {
            (&Method::PUT, ["User", id]) => {
                let (agent, by_supervisor) = self.acted_on(&who, id)?;
                let caller = self.caller(agent, marks);
                let request = UserRequest::parse(text()?)?;
                self.world.put_user(caller, request, by_supervisor)?;
                Ok(Answer::accepted())
            }
            (&Method::GET, ["User", id]) => {
                let agent = self.readable(&who, id)?;
                let mut out = String::with_capacity(1024);
                agent.write_user(&mut out, "User", &lock(&agent.state));
                Ok(Answer::ok(out))
            }
            (&Method::GET, ["Users"]) => match who {
                Who::Admin => Ok(Answer::ok(self.users())),
                Who::Agent(_) => Err(unauthorized("Unauthorized")),
            },
            (&Method::GET, ["User", id, list]) => self.user_list(&who, id, list, query, path),
            (
                &Method::GET,
                [
                    "TeamResource",
                    team,
                    list @ ("ReasonCodes" | "WrapUpReasons"),
                ],
            ) => match &who {
                Who::Agent(agent) if agent.spec.team.to_string() == *team => {
                    self.user_list(&who, &agent.id, list, query, path)
                }
                _ => Err(unauthorized("Unauthorized")),
            },
            (&Method::POST, ["User", id, "Dialogs"]) => {
                let (agent, by_supervisor) = self.acted_on(&who, id)?;
                if by_supervisor {
                    return Err(unauthorized("Invalid Authorization User Specified"));
                }
                let request = DialogRequest::parse(text()?)?;
                self.world.post_dialog(self.caller(agent, marks), request)?;
                Ok(Answer::accepted())
            }
            (_, ["Dialog", id]) => self.dialog(&who, method, id, marks, text()?),
            (&Method::GET, ["Team", id]) => self.team(&who, id, path),
            (&Method::GET, ["PhoneBooks"]) => {
                self.configuration(&who)?;
                Ok(Answer::ok(lists::phone_books(None)))
            }
            (&Method::GET, ["Team", id, "PhoneBooks"]) => {
                self.configuration(&who)?;
                let team = id.parse().map_err(|_| not_found(path))?;
                Ok(Answer::ok(lists::phone_books(Some(team))))
            }
            (&Method::GET, ["PhoneBook", id, "Contacts"]) => {
                self.configuration(&who)?;
                let contacts = lists::contacts(id).ok_or_else(|| not_found(path))?;
                Ok(Answer::ok(contacts))
            }
            _ => Err(not_found(path)),
        }
    }

    fn caller<'a>(
        &self,
        agent: &'a Arc<Agent>,
        (request_id, traceparent): (&'a str, &'a str),
    ) -> Caller<'a> {
        Caller {
            node: self.number,
            agent,
            request_id,
            traceparent,
        }
    }

    /// `id` is whom the path names: mostly the sender himself, found without decoding.
    fn authenticate(&self, headers: &HeaderMap, id: Option<&str>) -> Result<Who<'_>, Refused> {
        let refuse = || unauthorized("Authorization Failure");
        let given = headers.get(header::AUTHORIZATION).ok_or_else(refuse)?;
        let given = given.to_str().map_err(|_| refuse())?;
        if let Some(agent) = id.and_then(|id| self.world.agent(id))
            && agent.basic == given
        {
            return match self.world.admit(agent, true) {
                true => Ok(Who::Agent(agent)),
                false => Err(refuse()),
            };
        }
        let encoded = given
            .get(..6)
            .filter(|scheme| scheme.eq_ignore_ascii_case("basic "))
            .map(|_| given[6..].trim())
            .ok_or_else(refuse)?;
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(refuse)?;
        let (user, password) = decoded.split_once(':').ok_or_else(refuse)?;
        let admin = &self.world.config.admin;
        if user == admin.0 {
            return if password == admin.1 {
                Ok(Who::Admin)
            } else {
                Err(refuse())
            };
        }
        let agent = self.world.agent(user).ok_or_else(refuse)?;
        let right = password == agent.spec.password;
        if self.world.admit(agent, right) {
            Ok(Who::Agent(agent))
        } else {
            Err(refuse())
        }
    }

    /// The agent `{id}` names, if the sender may act for him; and whether as his supervisor.
    fn acted_on(&self, who: &Who<'_>, id: &str) -> Result<(&Arc<Agent>, bool), Refused> {
        let found = self.world.agent(id);
        match (who, found) {
            (Who::Agent(own), Some(agent)) if own.id == agent.id => Ok((agent, false)),
            (Who::Agent(own), Some(agent)) if own.spec.supervisor => {
                if own.spec.team == agent.spec.team {
                    Ok((agent, true))
                } else {
                    Err(unauthorized("Invalid Supervisor"))
                }
            }
            (Who::Agent(own), None) if own.spec.supervisor => Err(unknown_user(id)),
            (Who::Admin, None) => Err(unknown_user(id)),
            _ => Err(unauthorized("Invalid Authorization User Specified")),
        }
    }

    fn readable(&self, who: &Who<'_>, id: &str) -> Result<&Arc<Agent>, Refused> {
        match who {
            Who::Admin => self.world.agent(id).ok_or_else(|| unknown_user(id)),
            Who::Agent(_) => self.acted_on(who, id).map(|(agent, _)| agent),
        }
    }

    fn user_list(
        &self,
        who: &Who<'_>,
        id: &str,
        list: &str,
        query: &str,
        path: &str,
    ) -> Result<Answer, Refused> {
        let agent = self.readable(who, id)?;
        match list {
            "Dialogs" => {
                let calls = lock(&self.world.calls);
                let ids = lock(&agent.state).dialogs.clone();
                let mut out = String::from("<Dialogs>");
                for call in ids.iter().filter_map(|id| calls.map.get(id)) {
                    call.write(&mut out, "Dialog", self.world.deployment());
                }
                out.push_str("</Dialogs>");
                Ok(Answer::ok(out))
            }
            "ReasonCodes" => {
                let category = query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix("category="))
                    .filter(|category| !category.is_empty())
                    .ok_or_else(|| Refused::missing("category"))?;
                match category {
                    "NOT_READY" | "LOGOUT" => Ok(Answer::ok(reasons::list(category))),
                    other => Err(Refused::input("unknown category", other)),
                }
            }
            "WrapUpReasons" => Ok(Answer::ok(reasons::wrap_up_list())),
            "PhoneBooks" => Ok(Answer::ok("<PhoneBooks></PhoneBooks>".to_owned())),
            "Queues" if self.world.deployment() == Deployment::Ucce => {
                Ok(Answer::ok(lists::queues()))
            }
            _ => Err(not_found(path)),
        }
    }

    fn dialog(
        &self,
        who: &Who<'_>,
        method: &Method,
        id: &str,
        marks: (&str, &str),
        body: &str,
    ) -> Result<Answer, Refused> {
        let missing = || Refused::new(404, "Dialog Not Found", "no such dialog", id);
        let number: u64 = id.parse().map_err(|_| missing())?;
        match (method, who) {
            (&Method::PUT, Who::Agent(agent)) => {
                let request = DialogRequest::parse(body)?;
                let caller = self.caller(agent, marks);
                self.world.put_dialog(caller, number, request)?;
                Ok(Answer::accepted())
            }
            (&Method::GET, _) => {
                let calls = lock(&self.world.calls);
                let call = calls.map.get(&number).ok_or_else(missing)?;
                if matches!(who, Who::Agent(agent) if call.position(agent).is_none()) {
                    return Err(unauthorized("Unauthorized"));
                }
                let mut out = String::with_capacity(2048);
                call.write(&mut out, "Dialog", self.world.deployment());
                Ok(Answer::ok(out))
            }
            (&Method::PUT, Who::Admin) => Err(unauthorized("Unauthorized")),
            _ => Err(Refused::new(405, "Generic Error", "method not allowed", "")),
        }
    }

    fn team(&self, who: &Who<'_>, id: &str, path: &str) -> Result<Answer, Refused> {
        let team: u32 = id.parse().map_err(|_| not_found(path))?;
        let may = match who {
            Who::Admin => true,
            Who::Agent(agent) => agent.spec.supervisor && agent.spec.team == team,
        };
        if !may {
            return Err(unauthorized("Invalid Supervisor"));
        }
        let mut out = String::from("<Team>");
        leaf(&mut out, "id", id);
        leaf(&mut out, "name", &super::team_name(team));
        leaf(&mut out, "uri", &format!("/finesse/api/Team/{team}"));
        out.push_str("<users>");
        for agent in self.world.agents().iter().filter(|a| a.spec.team == team) {
            agent.write_summary(&mut out, "User", "reasonCode", &lock(&agent.state));
        }
        out.push_str("</users></Team>");
        Ok(Answer::ok(out))
    }

    /// The configuration is the administrator's, and the primary node's.
    fn configuration(&self, who: &Who<'_>) -> Result<(), Refused> {
        match who {
            Who::Agent(_) => Err(unauthorized("Unauthorized")),
            Who::Admin if self.number != 1 => {
                Err(Refused::new(403, "Forbidden", "on the primary only", ""))
            }
            Who::Admin => Ok(()),
        }
    }

    fn users(&self) -> String {
        let mut out = String::from("<Users>");
        for agent in self.world.agents() {
            agent.write_user(&mut out, "User", &lock(&agent.state));
        }
        out.push_str("</Users>");
        out
    }

    fn system_info(&self) -> String {
        let config = &self.world.config;
        let now = super::now_ms();
        let (status, reason) = service(self.world.node_faults(self.number).out_of_service());
        let domain = &config.nodes[self.number - 1].domain;
        let mut out = String::with_capacity(1024);
        out.push_str("<SystemInfo>");
        leaf(&mut out, "currentTimestamp", &super::timestamp(now));
        leaf(&mut out, "deploymentType", config.deployment.name());
        let heartbeat = if reason.is_empty() {
            "success"
        } else {
            "failure"
        };
        leaf(&mut out, "lastCTIHeartbeatStatus", heartbeat);
        leaf(&mut out, "lastSuccessCTIHeartbeatTime", &now.to_string());
        leaf(&mut out, "ctiHeartbeatInterval", "5");
        for (tag, node) in ["primaryNode", "secondaryNode"].iter().zip(&config.nodes) {
            out.push_str(&format!("<{tag}>"));
            leaf(&mut out, "host", &node.rest.ip().to_string());
            leaf(&mut out, "httpsPort", &node.rest.port().to_string());
            let direct = config.tls.as_ref().is_some_and(|tls| tls.direct);
            let port = if direct { "xmppSecurePort" } else { "xmppPort" };
            leaf(&mut out, port, &node.xmpp.port().to_string());
            out.push_str(&format!("</{tag}>"));
        }
        leaf(&mut out, "status", status);
        leaf(&mut out, "statusReason", reason);
        leaf(&mut out, "systemAuthMode", "NON_SSO");
        leaf(&mut out, "timezoneOffset", "0");
        leaf(&mut out, "uri", SYSTEM_INFO);
        leaf(&mut out, "xmppDomain", domain);
        leaf(&mut out, "xmppPubSubDomain", &format!("pubsub.{domain}"));
        out.push_str("</SystemInfo>");
        out
    }
}

fn unknown_user(id: &str) -> Refused {
    Refused::new(404, "User Not Found", "UNKNOWN_USER", id)
}
