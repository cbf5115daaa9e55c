//! The table, one file a family.

mod calls;
mod http;
mod lists;
mod outbound;
mod session;
mod supervisor;

pub use lists::skill_range;

use super::{
    Addressee, After, ArgSpec, Args, CommandSpec, ErrorCode, Family, Repeat, Step, Subject, Who,
};
use crate::{Action, DialogVerb};

/// Every command, in the order of the reference.
pub static FAMILIES: &[Family] = &[
    Family {
        title: "Session and state",
        commands: session::COMMANDS,
    },
    Family {
        title: "Calls",
        commands: calls::COMMANDS,
    },
    Family {
        title: "Lists",
        commands: lists::COMMANDS,
    },
    Family {
        title: "Supervisor",
        commands: supervisor::COMMANDS,
    },
    Family {
        title: "Outbound campaigns",
        commands: outbound::COMMANDS,
    },
    Family {
        title: "Generic HTTP downstream",
        commands: http::COMMANDS,
    },
];

const DIALOG: ArgSpec = ArgSpec::required("dialogId", ErrorCode::MissingDialogId).or(&["dialog"]);
const REASON: ArgSpec =
    ArgSpec::required("reasonId", ErrorCode::MissingReasonCode).or(&["reasonCodeId"]);
const NUMBER: ArgSpec = ArgSpec::required("number", ErrorCode::MissingNumber);
const TEAM: ArgSpec = ArgSpec::required("teamId", ErrorCode::PleaseRetry);

const fn agent(
    name: &'static str,
    args: &'static [ArgSpec],
    repeat: Repeat,
    step: Step,
) -> CommandSpec {
    CommandSpec {
        name,
        aliases: &[],
        addressee: Addressee::Agent,
        who: Who::Agent,
        args,
        repeat,
        step,
        after: After::Nothing,
        asks: "",
        events: "",
        errors: "",
    }
}

const fn client(name: &'static str, step: Step) -> CommandSpec {
    CommandSpec {
        addressee: Addressee::Destination,
        who: Who::Client,
        ..agent(name, &[], Repeat::Safe, step)
    }
}

impl CommandSpec {
    const fn also(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn by(mut self, who: Who) -> Self {
        self.who = who;
        self
    }

    const fn then(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    const fn asks(mut self, asks: &'static str) -> Self {
        self.asks = asks;
        self
    }

    const fn tells(mut self, events: &'static str, errors: &'static str) -> Self {
        self.events = events;
        self.errors = errors;
        self
    }
}

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

fn dialog(args: &Args) -> Result<String, ErrorCode> {
    let id = args.need("dialogId", ErrorCode::MissingDialogId)?;
    Ok(id.to_owned())
}

fn on_dialog(verb: DialogVerb, subject: &Subject<'_>, args: &Args) -> Result<Action, ErrorCode> {
    Ok(Action::OnDialog {
        dialog: dialog(args)?,
        verb,
        target: own_extension(subject)?,
    })
}
