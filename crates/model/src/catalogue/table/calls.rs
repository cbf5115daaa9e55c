//! Calls (reference, section 2.3).

use super::{DIALOG, NUMBER, agent, dialog, on_dialog, own_extension};
use crate::catalogue::{ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Subject};
use crate::{Action, DialVerb, DialogVerb};

/// Longest list of call variables of one command: the platform's ten, and extended ones.
const MAX_VARIABLES: usize = 64;

const CALL_ERRORS: &str =
    "MISSING_DIALOG_ID, NO_DIALOG_ID, CF_INVALID_OBJECT_STATE, CF_GENERIC_UNSPECIFIED";
const DIAL_ERRORS: &str =
    "MISSING_NUMBER, MISSING_DIALOG_ID, BAD_DESTINATION, CF_INVALID_OBJECT_STATE, CF_RESOURCE_BUSY";

/// The other party of a consultation: given, and not used; the platform finds the leg itself.
const OTHER: ArgSpec = ArgSpec::optional("extension").or(&["agentExtension"]);
/// The call that a query is about.
const KNOWN_DIALOG: &[ArgSpec] =
    &[ArgSpec::required("dialogId", ErrorCode::NoDialogId).or(&["dialog"])];
const ZOOM: Step =
    Step::Unsupported("call recording is not the downstream's: no recorder is configured");

pub(super) static COMMANDS: &[CommandSpec] = &[
    agent(
        "MakeCall",
        &[NUMBER],
        Repeat::Unsafe,
        Step::Request(|subject, args| {
            Ok(Action::MakeCall {
                from: own_extension(subject)?,
                to: args.need("number", ErrorCode::MissingNumber)?.to_owned(),
            })
        }),
    )
    .asks("POST User/{id}/Dialogs MAKE_CALL")
    .tells(
        "State TALKING, InboundCall INITIATING, INITIATED, ALERTING, ACTIVE",
        DIAL_ERRORS,
    ),
    simple(
        "AnswerCall",
        Step::Request(|s, a| on_dialog(DialogVerb::Answer, s, a)),
    )
    .asks("PUT Dialog/{id} ANSWER")
    .tells("InboundCall ACTIVE, State TALKING", CALL_ERRORS),
    simple(
        "ReleaseCall",
        Step::Request(|s, a| on_dialog(DialogVerb::Drop, s, a)),
    )
    .asks("PUT Dialog/{id} DROP")
    .tells("InboundCall DROPPED, State", CALL_ERRORS),
    simple(
        "HoldCall",
        Step::Request(|s, a| on_dialog(DialogVerb::Hold, s, a)),
    )
    .asks("PUT Dialog/{id} HOLD")
    .tells("InboundCall HELD, State HOLD (UCCE)", CALL_ERRORS),
    simple(
        "RetrieveCall",
        Step::Request(|s, a| on_dialog(DialogVerb::Retrieve, s, a)),
    )
    .also(&["ReterieveCall"])
    .asks("PUT Dialog/{id} RETRIEVE")
    .tells("InboundCall ACTIVE, State TALKING", CALL_ERRORS),
    agent(
        "ConsultCall",
        &[NUMBER, DIALOG],
        Repeat::Unsafe,
        Step::Request(|s, a| dial(DialVerb::Consult, s, a)),
    )
    .asks("PUT Dialog/{id} CONSULT_CALL")
    .tells(
        "InboundCall HELD, ConsultCall INITIATING, INITIATED, ALERTING, ACTIVE",
        DIAL_ERRORS,
    ),
    agent(
        "TransferCall",
        &[OTHER, DIALOG],
        Repeat::Guarded,
        Step::Request(|s, a| on_dialog(DialogVerb::Transfer, s, a)),
    )
    .asks("PUT Dialog/{id} TRANSFER, on the held main call")
    .tells(
        "InboundCall DROPPED, ConsultCall DROPPED, State",
        CALL_ERRORS,
    ),
    agent(
        "Conferencecall",
        &[OTHER, DIALOG],
        Repeat::Guarded,
        Step::Request(|s, a| on_dialog(DialogVerb::Conference, s, a)),
    )
    .asks("PUT Dialog/{id} CONFERENCE, on the held main call")
    .tells(
        "InboundCall ACTIVE, ConsultCall DROPPED, InboundCall ACTIVE",
        CALL_ERRORS,
    ),
    agent(
        "Transfer_sst",
        &[NUMBER, DIALOG],
        Repeat::Unsafe,
        Step::Request(|s, a| dial(DialVerb::BlindTransfer, s, a)),
    )
    .asks("PUT Dialog/{id} TRANSFER_SST")
    .tells("InboundCall, State", DIAL_ERRORS),
    read("GetDialogState").tells(
        "DialogState (NOT_FOUND where there is none)",
        "NO_DIALOG_ID",
    ),
    read("getdialogstatecontrols").tells("DialogState with the kind of call", "NO_DIALOG_ID"),
    read("getDialogParticipants").tells(
        "ConferenceParticipants; DialogState NOT_FOUND",
        "NO_DIALOG_ID",
    ),
    agent(
        "update_call_variable",
        &[
            DIALOG,
            ArgSpec::required("variables", ErrorCode::InvalidCallData)
                .or(&["callVariables"])
                .or_pairs()
                .with_commas(),
        ],
        Repeat::Safe,
        Step::Request(|subject, args| {
            Ok(Action::CallData {
                dialog: dialog(args)?,
                target: subject.extension.map(str::to_owned),
                variables: variables(args.need("variables", ErrorCode::InvalidCallData)?)?,
                wrap_up: None,
            })
        }),
    )
    .asks("PUT Dialog/{id} UPDATE_CALL_DATA")
    .tells(
        "InboundCall with the new variables",
        "MISSING_DIALOG_ID, INVALID_CALL_DATA",
    ),
    agent(
        "wrapup",
        &[
            ArgSpec::required("label", ErrorCode::MissingReasonCode)
                .or(&["reasonLabel"])
                .with_commas(),
            DIALOG,
        ],
        Repeat::Safe,
        Step::Request(|subject, args| {
            Ok(Action::CallData {
                dialog: dialog(args)?,
                target: subject.extension.map(str::to_owned),
                variables: Vec::new(),
                wrap_up: Some(args.need("label", ErrorCode::MissingReasonCode)?.to_owned()),
            })
        }),
    )
    .asks("PUT Dialog/{id} UPDATE_CALL_DATA with wrapUpReason")
    .tells("none of its own", "MISSING_DIALOG_ID, E_CTI_INVALID_CALLID"),
    agent("ZOOMPauseRecording", &[], Repeat::Guarded, ZOOM).tells("Error", "NOT_IMPLEMENTED"),
    agent("ZOOMResumeRecording", &[], Repeat::Guarded, ZOOM).tells("Error", "NOT_IMPLEMENTED"),
];

const fn simple(name: &'static str, step: Step) -> CommandSpec {
    agent(name, &[DIALOG], Repeat::Guarded, step)
}

const fn read(name: &'static str) -> CommandSpec {
    agent(
        name,
        KNOWN_DIALOG,
        Repeat::Safe,
        Step::Query(|_, args| {
            Ok(vec![Action::ReadDialog {
                dialog: args.need("dialogId", ErrorCode::NoDialogId)?.to_owned(),
            }])
        }),
    )
    .asks("GET Dialog/{id}")
}

fn dial(verb: DialVerb, subject: &Subject<'_>, args: &Args) -> Result<Action, ErrorCode> {
    Ok(Action::Dial {
        dialog: dialog(args)?,
        verb,
        target: own_extension(subject)?,
        to: args.need("number", ErrorCode::MissingNumber)?.to_owned(),
    })
}

/// `name=value|name=value…`, or the older `name,value`.
fn variables(text: &str) -> Result<Vec<(String, String)>, ErrorCode> {
    let pair = |name: &str, value: &str| match name.trim() {
        "" => Err(ErrorCode::InvalidCallData),
        name => Ok((name.to_owned(), value.trim().to_owned())),
    };
    // No name has a comma, so one before any `=` ends a name of the older form.
    if let Some((name, value)) = text.split_once(',')
        && !name.contains('=')
    {
        return Ok(vec![pair(name, value)?]);
    }
    let list = text
        .split('|')
        .map(|part| {
            let (name, value) = part.split_once('=').ok_or(ErrorCode::InvalidCallData)?;
            pair(name, value)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if list.len() > MAX_VARIABLES {
        return Err(ErrorCode::InvalidCallData);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_call_variables() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            variables("callVariable1=a| user.x =b=c|callVariable2=").unwrap(),
            [
                pair("callVariable1", "a"),
                pair("user.x", "b=c"),
                pair("callVariable2", "")
            ]
        );
        assert_eq!(
            variables("callVariable3,gold").unwrap(),
            [pair("callVariable3", "gold")]
        );
        assert_eq!(
            variables("callVariable3,a=b|c").unwrap(),
            [pair("callVariable3", "a=b|c")]
        );
        assert_eq!(
            variables("callVariable3=a,b|callVariable4=c").unwrap(),
            [pair("callVariable3", "a,b"), pair("callVariable4", "c")]
        );
        for broken in ["callVariable1", "=a", "a=1|b", "|", ",x"] {
            assert_eq!(
                variables(broken),
                Err(ErrorCode::InvalidCallData),
                "{broken}"
            );
        }
    }
}
