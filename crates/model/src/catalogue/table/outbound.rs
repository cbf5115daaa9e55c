//! Outbound campaigns (reference, section 2.6).

use super::{DIALOG, agent, dialog, on_dialog, own_extension};
use crate::catalogue::{After, ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Subject};
use crate::{Action, CampaignVerb, DialogVerb};

const OWN: ArgSpec = ArgSpec::optional("extension").or(&["ownExt", "ownExtension"]);
const PREVIEW: &[ArgSpec] = &[DIALOG, ArgSpec::optional("answer")];
const CALLBACK: &[ArgSpec] = &[
    OWN,
    DIALOG,
    ArgSpec::required("time", ErrorCode::PleaseRetry),
    ArgSpec::optional("number"),
];
const ERRORS: &str =
    "MISSING_DIALOG_ID, NO_DIALOG_ID, CF_INVALID_OBJECT_STATE, CF_GENERIC_UNSPECIFIED";
const SCHEDULES: &str =
    "PUT Dialog/{id} UPDATE_SCHEDULED_CALLBACK, first the time, then the number";

pub(super) static COMMANDS: &[CommandSpec] = &[
    preview(
        "AcceptOutboundPreview",
        Step::Request(|s, a| answer("ACCEPT", DialogVerb::Accept, s, a)),
    )
    .asks("PUT Dialog/{id} ACCEPT")
    .tells(
        "InboundCall ACCEPTED, DROPPED; InboundCall of the customer's call",
        ERRORS,
    ),
    preview(
        "RejectOutboundPreview",
        Step::Request(|s, a| answer("REJECT", DialogVerb::Reject, s, a)),
    )
    .asks("PUT Dialog/{id} REJECT")
    .tells("InboundCall DROPPED", ERRORS),
    preview(
        "CloseOutboundPreview",
        Step::Request(|s, a| answer("CLOSE", DialogVerb::Close, s, a)),
    )
    .asks("PUT Dialog/{id} CLOSE")
    .tells("InboundCall DROPPED", ERRORS),
    agent(
        "SHCEDULECALLBACK",
        CALLBACK,
        Repeat::Safe,
        Step::Requests(schedule),
    )
    .also(&["SCHEDULECALLBACK"])
    .then(After::Callback("CallBack scheduled"))
    .asks(SCHEDULES)
    .tells("callback (text form: CallBack), Control", ERRORS),
    agent(
        "UPDATECALLBACK",
        CALLBACK,
        Repeat::Safe,
        Step::Requests(schedule),
    )
    .then(After::Callback("CallBack updated"))
    .asks(SCHEDULES)
    .tells("callback (text form: CallBack), Control", ERRORS),
    agent(
        "CANCELSHCEDULECALLBACK",
        &[OWN, DIALOG],
        Repeat::Guarded,
        Step::Request(|s, a| on_dialog(DialogVerb::CancelCallback, s, a)),
    )
    .also(&["CANCELSCHEDULECALLBACK"])
    .then(After::Callback("CallBack canceled"))
    .asks("PUT Dialog/{id} CANCEL_SCHEDULED_CALLBACK")
    .tells("callback (text form: CallBack), Control", ERRORS),
    agent(
        "RECLASSIFYCALL",
        &[
            OWN,
            DIALOG,
            ArgSpec::required("value", ErrorCode::PleaseRetry),
        ],
        Repeat::Safe,
        Step::Request(|subject, args| {
            let value = args.need("value", ErrorCode::PleaseRetry)?;
            campaign(
                subject,
                args,
                CampaignVerb::Reclassify,
                "outboundClassification",
                value,
            )
        }),
    )
    .then(After::Reclassify)
    .asks("PUT Dialog/{id} RECLASSIFY")
    .tells("CALLBACK (text form: RECLASSIFY)", ERRORS),
];

const fn preview(name: &'static str, step: Step) -> CommandSpec {
    agent(name, PREVIEW, Repeat::Guarded, step)
}

/// The word behind the dialog says what the command's name says; another one is a mistake.
fn answer(
    word: &str,
    verb: DialogVerb,
    subject: &Subject<'_>,
    args: &Args,
) -> Result<Action, ErrorCode> {
    match args.get("answer") {
        Some(given) if !given.eq_ignore_ascii_case(word) => Err(ErrorCode::PleaseRetry),
        _ => on_dialog(verb, subject, args),
    }
}

fn campaign(
    subject: &Subject<'_>,
    args: &Args,
    verb: CampaignVerb,
    name: &'static str,
    value: &str,
) -> Result<Action, ErrorCode> {
    Ok(Action::Campaign {
        dialog: dialog(args)?,
        verb,
        target: own_extension(subject)?,
        parameter: (name, value.to_owned()),
    })
}

/// Time and number go in a request each, time first.
fn schedule(subject: &Subject<'_>, args: &Args) -> Result<Vec<Action>, ErrorCode> {
    let verb = CampaignVerb::ScheduleCallback;
    let time = args.need("time", ErrorCode::PleaseRetry)?;
    let mut requests = vec![campaign(subject, args, verb, "callbackTime", time)?];
    if let Some(number) = args.get("number") {
        requests.push(campaign(subject, args, verb, "callbackNumber", number)?);
    }
    Ok(requests)
}
