//! `Call` commands: requests to a generic HTTP downstream.

use std::sync::Arc;

use crate::catalogue::ErrorCode;
use crate::model::{Action, Answer, HttpAnswer, HttpPermission};
use crate::wire::command::ClientCommand;
use crate::wire::http_call;
use crate::wire::reply::{Outcome, Reply};

use crate::api::limits;
use crate::jobs::Answered;

/// What is to be asked, or why it is not.
pub(crate) fn plan(
    allow: Option<&[HttpPermission]>,
    command: &ClientCommand,
) -> Result<Action, (ErrorCode, String)> {
    let Some(allow) = allow else {
        let words = "downstream.kind is not http: there is nothing to call";
        return Err((ErrorCode::NotImplemented, words.to_owned()));
    };
    let request = http_call::parse(&command.args)
        .map_err(|error| (ErrorCode::PleaseRetry, error.to_string()))?;
    if !allow.iter().any(|rule| rule.covers(&request)) {
        let words = "no downstream.allow.N covers this method and path";
        return Err((ErrorCode::NotAllowed, words.to_owned()));
    }
    Ok(Action::Http(Box::new(request)))
}

/// The outcome of a request that was answered, whatever its status.
pub(crate) fn answered(status: u16, answers: Vec<Answer>, host: String) -> Answered {
    let body = answers.into_iter().find_map(|answer| match answer {
        Answer::Http(answer) => Some(answer.body),
        _ => None,
    });
    let mut answered = match status {
        0..400 => Answered::ok(Outcome::Ok, None, None),
        _ => {
            let code = format!("HTTP_{status}");
            Answered::error(Outcome::Failed, &code, "refused by the downstream")
        }
    };
    answered.status = Some(status);
    answered.downstream = Some(host);
    answered.body = body;
    answered
}

/// What there is to say of an answer that leaves open whether the request was carried out.
pub(crate) fn unsettled(status: u16, answer: HttpAnswer, reason: String) -> Answered {
    let mut answered = Answered::error(Outcome::Failed, &format!("HTTP_{status}"), reason);
    answered.status = Some(status);
    answered.body = Some(answer.body);
    answered
}

/// A reply as it is remembered and told to peers: without a long body.
pub(crate) fn to_remember(reply: &Arc<Reply>) -> Arc<Reply> {
    match is_long(reply) {
        true => Arc::new(shortened(Reply::clone(reply))),
        false => reply.clone(),
    }
}

/// A reply as it goes into the journal and to the peers, whose messages have a bound: without a long
/// body.
pub(crate) fn shortened(mut reply: Reply) -> Reply {
    if is_long(&reply) {
        reply.body = None;
    }
    reply
}

fn is_long(reply: &Reply) -> bool {
    let body = reply.body.as_ref();
    body.is_some_and(|body| body.as_str().len() > limits::REMEMBERED_BODY)
}
