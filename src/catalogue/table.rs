//! The table.

use super::{Addressee, ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Subject};
use crate::model::{Action, DialogVerb, ReasonCategory};

const DIALOG: ArgSpec = ArgSpec::required("dialogId", ErrorCode::MissingDialogId);
const REASON: ArgSpec = ArgSpec::required("reasonId", ErrorCode::MissingReasonCode);

const fn agent(
    name: &'static str,
    aliases: &'static [&'static str],
    args: &'static [ArgSpec],
    repeat: Repeat,
    step: Step,
) -> CommandSpec {
    CommandSpec {
        name,
        aliases,
        addressee: Addressee::Agent,
        args,
        repeat,
        step,
    }
}

const fn client(name: &'static str, step: Step) -> CommandSpec {
    CommandSpec {
        name,
        aliases: &[],
        addressee: Addressee::Destination,
        args: &[],
        repeat: Repeat::Safe,
        step,
    }
}

/// Every command, in the order of the reference.
pub static COMMANDS: &[CommandSpec] = &[
    client("Hello", Step::Hello),
    client("Beat", Step::Beat),
    agent(
        "Connect",
        &[],
        &[
            ArgSpec::required("destination", ErrorCode::PleaseRetry),
            ArgSpec::password(ErrorCode::MissingPassword),
            ArgSpec::optional("mode"),
        ],
        Repeat::Safe,
        Step::Connect,
    ),
    agent(
        "Login",
        &[],
        &[
            ArgSpec::password(ErrorCode::MissingPassword),
            ArgSpec::required("extension", ErrorCode::MissingExtension),
        ],
        Repeat::Safe,
        Step::SignIn(|_, args| {
            let extension = args.need("extension", ErrorCode::MissingExtension)?;
            if !extension.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ErrorCode::WrongExtension);
            }
            Ok(Action::SignIn {
                extension: extension.to_owned(),
            })
        }),
    ),
    agent(
        "Logout",
        &[],
        &[],
        Repeat::Guarded,
        Step::Request(|subject, _| Ok(set_state("LOGOUT", subject.supervisor_logout_reason))),
    ),
    agent(
        "logoutwithreason",
        &[],
        &[REASON],
        Repeat::Guarded,
        Step::Request(|_, args| state_with_reason("LOGOUT", args)),
    ),
    agent(
        "force_logout",
        &[],
        &[],
        Repeat::Safe,
        Step::Sequence(|subject, _| {
            Ok(vec![
                set_state("NOT_READY", subject.not_ready_reason),
                set_state("LOGOUT", subject.logout_reason),
            ])
        }),
    ),
    agent(
        "refresh",
        &[],
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadUser, Action::ReadDialogs])),
    ),
    agent(
        "GetState",
        &[],
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadUser])),
    ),
    agent(
        "MakeReady",
        &[],
        &[],
        Repeat::Safe,
        Step::Request(|_, _| Ok(set_state("READY", None))),
    ),
    agent(
        "MakeNotReady",
        &[],
        &[],
        Repeat::Safe,
        Step::Request(|subject, _| Ok(set_state("NOT_READY", subject.supervisor_not_ready_reason))),
    ),
    agent(
        "MakeNotReadyWithReason",
        &[],
        &[REASON],
        Repeat::Safe,
        Step::Request(|_, args| state_with_reason("NOT_READY", args)),
    ),
    agent(
        "MakeCall",
        &[],
        &[ArgSpec::required("number", ErrorCode::MissingNumber)],
        Repeat::Unsafe,
        Step::Request(|subject, args| {
            Ok(Action::MakeCall {
                from: own_extension(subject)?,
                to: args.need("number", ErrorCode::MissingNumber)?.to_owned(),
            })
        }),
    ),
    agent(
        "AnswerCall",
        &[],
        &[DIALOG],
        Repeat::Guarded,
        Step::Request(|subject, args| on_dialog(DialogVerb::Answer, subject, args)),
    ),
    agent(
        "ReleaseCall",
        &[],
        &[DIALOG],
        Repeat::Guarded,
        Step::Request(|subject, args| on_dialog(DialogVerb::Drop, subject, args)),
    ),
    agent(
        "HoldCall",
        &[],
        &[DIALOG],
        Repeat::Guarded,
        Step::Request(|subject, args| on_dialog(DialogVerb::Hold, subject, args)),
    ),
    agent(
        "RetrieveCall",
        &["ReterieveCall"],
        &[DIALOG],
        Repeat::Guarded,
        Step::Request(|subject, args| on_dialog(DialogVerb::Retrieve, subject, args)),
    ),
    agent(
        "GetDialogState",
        &[],
        &[ArgSpec::required("dialogId", ErrorCode::NoDialogId)],
        Repeat::Safe,
        Step::Query(|_, args| {
            Ok(vec![Action::ReadDialog {
                dialog: args.need("dialogId", ErrorCode::NoDialogId)?.to_owned(),
            }])
        }),
    ),
    agent(
        "reasoncodenotready",
        &[],
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadReasons(ReasonCategory::NotReady)])),
    ),
    agent(
        "reasoncodelogout",
        &[],
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadReasons(ReasonCategory::Logout)])),
    ),
    agent(
        "wrapupreasoncode",
        &[],
        &[],
        Repeat::Safe,
        Step::Query(|_, _| Ok(vec![Action::ReadReasons(ReasonCategory::WrapUp)])),
    ),
];

fn set_state(state: &'static str, reason: Option<&str>) -> Action {
    Action::SetState {
        state,
        reason: reason.map(str::to_owned),
    }
}

fn state_with_reason(state: &'static str, args: &Args) -> Result<Action, ErrorCode> {
    let reason = args.need("reasonId", ErrorCode::MissingReasonCode)?;
    Ok(set_state(state, Some(reason)))
}

/// The agent's own extension; a session without one lost it in an abnormal failover, and its
/// client must sign in again.
fn own_extension(subject: &Subject<'_>) -> Result<String, ErrorCode> {
    subject
        .extension
        .map(str::to_owned)
        .ok_or(ErrorCode::ReLogin)
}

fn on_dialog(verb: DialogVerb, subject: &Subject<'_>, args: &Args) -> Result<Action, ErrorCode> {
    Ok(Action::OnDialog {
        dialog: args
            .need("dialogId", ErrorCode::MissingDialogId)?
            .to_owned(),
        verb,
        target: own_extension(subject)?,
    })
}
