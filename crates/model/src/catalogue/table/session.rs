//! Session and agent state (reference, sections 2.1 and 2.2).

use super::{REASON, agent, client, set_state, state_with_reason};
use crate::catalogue::{ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Who};
use crate::{Action, Mobile};

const PASSWORD: ArgSpec = ArgSpec::password(ErrorCode::MissingPassword);
const EXTENSION: ArgSpec = ArgSpec::required("extension", ErrorCode::MissingExtension);

const SIGNED_IN: &str =
    "AgentInfo, State, DialogStatus; supervisors also TeamInfoIDs, TeamInfoNames";
const SIGN_IN_ERRORS: &str = "MISSING_PASSWORD, MISSING_EXTENSION, WRONG_EXTENSION, USER_NOT_FOUND, \
                              CF_INVALID_LOGON_DEVICE_SPECIFIED, CF_RESOURCE_BUSY";
const STATE_ERRORS: &str = "CF_INVALID_OBJECT_STATE, CF_RESOURCE_BUSY";

pub(super) static COMMANDS: &[CommandSpec] = &[
    client("Hello", Step::Hello).tells("System", ""),
    client("Beat", Step::Beat).tells("System, or RECONNECT to a client that is not known", ""),
    agent(
        "Connect",
        &[
            ArgSpec::required("destination", ErrorCode::PleaseRetry).or(&["dest"]),
            PASSWORD,
            ArgSpec::optional("mode").or(&["SSO"]).only("SSO"),
        ],
        Repeat::Safe,
        Step::Connect,
    )
    .asks("sign-in to the notification service")
    .tells(
        "ConnectStatus (JSON only); to a former client Error SESSION_INVALIDATED and State LOGOUT",
        "SUBSCRIPTION_FAILED, UNABLE_TO_SUBSCRIBE_TO_FINESSE",
    ),
    agent(
        "Login",
        &[PASSWORD, EXTENSION],
        Repeat::Safe,
        Step::SignIn(|_, args| sign_in(args, None)),
    )
    .asks("PUT User/{id} LOGIN; GET User/{id}; GET User/{id}/Dialogs")
    .tells(SIGNED_IN, SIGN_IN_ERRORS),
    agent(
        "MobileAgentLogin",
        &[
            PASSWORD,
            EXTENSION,
            ArgSpec::required("dialNumber", ErrorCode::MissingNumber),
            ArgSpec::required("connectionMode", ErrorCode::PleaseRetry),
        ],
        Repeat::Safe,
        Step::SignIn(|_, args| sign_in(args, Some(mobile(args)?))),
    )
    .asks("PUT User/{id} LOGIN with mobileAgent; then as Login (UCCE)")
    .tells(
        SIGNED_IN,
        "as Login, MISSING_NUMBER; later `Mode Not Allowed`",
    ),
    agent(
        "Logout",
        &[],
        Repeat::Guarded,
        Step::Request(|subject, _| Ok(set_state("LOGOUT", subject.supervisor_logout_reason))),
    )
    .by(Who::Both)
    .asks("PUT User/{id} LOGOUT")
    .tells("State LOGOUT", STATE_ERRORS),
    agent(
        "logoutwithreason",
        &[REASON],
        Repeat::Guarded,
        Step::Request(|_, args| state_with_reason("LOGOUT", args)),
    )
    .asks("PUT User/{id} LOGOUT with reason")
    .tells(
        "State LOGOUT",
        "MISSING_REASON_CODE, CF_INVALID_OBJECT_STATE",
    ),
    agent(
        "force_logout",
        &[],
        Repeat::Safe,
        Step::Sequence(|subject, _| {
            Ok(vec![
                set_state("NOT_READY", subject.not_ready_reason),
                set_state("LOGOUT", subject.logout_reason),
            ])
        }),
    )
    .by(Who::Client)
    .asks(
        "PUT User/{id} NOT_READY, then LOGOUT, with the configured reasons; ends the subscription",
    )
    .tells("State LOGOUT", STATE_ERRORS),
    agent(
        "refresh",
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadUser, Action::ReadDialogs])),
    )
    .asks("GET User/{id}; GET User/{id}/Dialogs")
    .tells("State, DialogStatus", ""),
    agent(
        "GetState",
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadUser])),
    )
    .asks("GET User/{id}")
    .tells("State", ""),
    agent(
        "MakeReady",
        &[],
        Repeat::Safe,
        Step::Request(|_, _| Ok(set_state("READY", None))),
    )
    .asks("PUT User/{id} READY")
    .tells("State READY (during a call: pendingState)", STATE_ERRORS),
    agent(
        "MakeNotReady",
        &[],
        Repeat::Safe,
        Step::Request(|subject, _| Ok(set_state("NOT_READY", subject.supervisor_not_ready_reason))),
    )
    .by(Who::Both)
    .asks("PUT User/{id} NOT_READY")
    .tells(
        "State NOT_READY (during a call: pendingState)",
        "CF_INVALID_AGENT_WORKMODE (UCCX, second time in a call)",
    ),
    agent(
        "MakeNotReadyWithReason",
        &[REASON],
        Repeat::Safe,
        Step::Request(|_, args| state_with_reason("NOT_READY", args)),
    )
    .asks("PUT User/{id} NOT_READY with reason")
    .tells(
        "State NOT_READY",
        "MISSING_REASON_CODE, CF_INVALID_OBJECT_STATE",
    ),
    agent(
        "MakeWorkReady",
        &[],
        Repeat::Safe,
        Step::Request(|_, _| Ok(set_state("WORK_READY", None))),
    )
    .asks("PUT User/{id} WORK_READY (UCCE, during a call)")
    .tells("State WORK_READY (at first as pendingState)", STATE_ERRORS),
    agent(
        "MakeWorkNotReady",
        &[],
        Repeat::Safe,
        Step::Request(|_, _| Ok(set_state("WORK", None))),
    )
    .asks("PUT User/{id} WORK (during a call)")
    .tells("State WORK (at first as pendingState)", STATE_ERRORS),
];

fn sign_in(args: &Args, mobile: Option<Mobile>) -> Result<Action, ErrorCode> {
    let extension = args.need("extension", ErrorCode::MissingExtension)?;
    // A number in international form begins with a plus.
    let digits = extension.strip_prefix('+').unwrap_or(extension);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ErrorCode::WrongExtension);
    }
    Ok(Action::SignIn {
        extension: extension.to_owned(),
        mobile,
    })
}

fn mobile(args: &Args) -> Result<Mobile, ErrorCode> {
    let mode = args.need("connectionMode", ErrorCode::PleaseRetry)?;
    let mode = match mode.to_ascii_uppercase().as_str() {
        "TRUE" | "CALL_BY_CALL" => "CALL_BY_CALL",
        "FALSE" | "NAILED_CONNECTION" => "NAILED_CONNECTION",
        _ => return Err(ErrorCode::PleaseRetry),
    };
    Ok(Mobile {
        mode: mode.to_owned(),
        dial_number: args
            .need("dialNumber", ErrorCode::MissingNumber)?
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_digits_and_may_be_in_international_form() {
        let read = |extension: &str| {
            let mut args = Args::default();
            args.push("extension", extension);
            sign_in(&args, None).map(|action| match action {
                Action::SignIn { extension, .. } => extension,
                other => format!("{other:?}"),
            })
        };
        for right in ["7010", "+7010", "+41445550142"] {
            assert_eq!(read(right).as_deref(), Ok(right));
        }
        for wrong in ["70a0", "+", "++7010", "70+10", "7010+", " 7010", "٧"] {
            assert_eq!(read(wrong), Err(ErrorCode::WrongExtension), "{wrong}");
        }
    }
}
