//! Supervisors (reference, section 2.5).

use super::lists::{list, member};
use super::{DIALOG, TEAM, agent, dialog, on_dialog, own_extension};
use crate::catalogue::{After, ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Subject, Who};
use crate::{Action, DialogVerb};

/// An agent's or participant's extension.
const EXTENSION: ArgSpec = ArgSpec::required("extension", ErrorCode::MissingNumber)
    .or(&["agentExtension", "participantExtension"]);

const WATCH_ERRORS: &str = "MISSING_NUMBER, CF_INVALID_OBJECT_STATE, CF_GENERIC_UNSPECIFIED";

pub(super) static COMMANDS: &[CommandSpec] = &[
    list(
        "getteamusers",
        &[TEAM, ArgSpec::optional("subscribe")],
        |_, args| {
            let team = args.need("teamId", ErrorCode::PleaseRetry)?.to_owned();
            Ok(vec![Action::ReadTeam { team }])
        },
    )
    .by(Who::Supervisor)
    .then(After::WatchTeam)
    .asks("GET Team/{id}; with `true` a subscription to Team/{id}/Users")
    .tells(
        "TeamAgents (text form: TeamUsersList), then State of each member",
        "Unauthorized",
    ),
    list(
        "getteamuserstate",
        &[ArgSpec::required("memberId", ErrorCode::PleaseRetry).or(&["memberAgentId"])],
        |_, args| {
            Ok(vec![Action::ReadMember {
                member: member(args, "memberId")?,
            }])
        },
    )
    .by(Who::Supervisor)
    .asks("GET User/{member} (asked as administrator)")
    .tells(
        "State with teamAgentId (text form: TeamMemberStateChanged)",
        "USER_NOT_FOUND, Unauthorized",
    ),
    agent(
        "silentmonitor",
        &[EXTENSION],
        Repeat::Unsafe,
        Step::Request(|s, a| supervise(s, a, false)),
    )
    .by(Who::Supervisor)
    .asks("POST User/{id}/Dialogs SILENT_MONITOR")
    .tells(
        "both sides: NewInboundCall or InboundCall of type SUPERVISOR_MONITOR",
        WATCH_ERRORS,
    ),
    agent(
        "endsilentmonitor",
        &[DIALOG],
        Repeat::Guarded,
        Step::Request(|s, a| on_dialog(DialogVerb::Drop, s, a)),
    )
    .by(Who::Supervisor)
    .asks("PUT Dialog/{id} DROP, on the monitor call")
    .tells(
        "both sides: InboundCall DROPPED",
        "MISSING_DIALOG_ID, NO_DIALOG_ID",
    ),
    agent(
        "bargein",
        &[EXTENSION, DIALOG],
        Repeat::Unsafe,
        Step::Request(|s, a| supervise(s, a, true)),
    )
    .by(Who::Supervisor)
    .asks("POST User/{id}/Dialogs BARGE_CALL with the monitor call")
    .tells(
        "supervisor: InboundCall DROPPED, NewInboundCall, InboundCall ACTIVE; agent: InboundCall",
        WATCH_ERRORS,
    ),
    agent(
        "dropparticipant",
        &[EXTENSION, DIALOG],
        Repeat::Guarded,
        Step::Request(|_, args| {
            Ok(Action::OnDialog {
                dialog: dialog(args)?,
                verb: DialogVerb::DropParticipant,
                target: args.need("extension", ErrorCode::MissingNumber)?.to_owned(),
            })
        }),
    )
    .by(Who::Supervisor)
    .then(After::ParticipantDropped)
    .asks("PUT Dialog/{id} PARTICIPANT_DROP (UCCE)")
    .tells(
        "Control; InboundCall",
        "MISSING_DIALOG_ID, MISSING_NUMBER, CF_INVALID_OBJECT_STATE",
    ),
];

fn supervise(subject: &Subject<'_>, args: &Args, barge: bool) -> Result<Action, ErrorCode> {
    Ok(Action::Supervise {
        from: own_extension(subject)?,
        to: args.need("extension", ErrorCode::MissingNumber)?.to_owned(),
        barge: if barge { Some(dialog(args)?) } else { None },
    })
}
