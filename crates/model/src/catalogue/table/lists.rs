//! Lists (reference, section 2.4).

use super::{TEAM, agent};
use crate::catalogue::{ArgSpec, Args, CommandSpec, ErrorCode, Repeat, Step, Subject, Who};
use crate::{Action, AgentId, ReasonCategory};

pub(super) static COMMANDS: &[CommandSpec] = &[
    list("reasoncodenotready", &[], |_, _| {
        Ok(vec![Action::ReadReasons(ReasonCategory::NotReady)])
    })
    .asks("GET User/{id}/ReasonCodes?category=NOT_READY")
    .tells("ReasonCodes", "CF_RESOURCE_BUSY"),
    list("reasoncodelogout", &[], |_, _| {
        Ok(vec![Action::ReadReasons(ReasonCategory::Logout)])
    })
    .asks("GET User/{id}/ReasonCodes?category=LOGOUT")
    .tells("ReasonCodes", "CF_RESOURCE_BUSY"),
    list("wrapupreasoncode", &[], |_, _| {
        Ok(vec![Action::ReadReasons(ReasonCategory::WrapUp)])
    })
    .asks("GET User/{id}/WrapUpReasons")
    .tells("ReasonCodes", "CF_RESOURCE_BUSY"),
    list("getallagents", &[], |_, _| Ok(vec![Action::ReadUsers]))
        .by(Who::Administrator)
        .asks("GET Users; those who are signed in")
        .tells(
            "Agents (text form: AgentsList)",
            "Unauthorized, CF_GENERIC_UNSPECIFIED",
        ),
    list("GetPhonebooks", &[], phone_books)
        .by(Who::Administrator)
        .asks("GET PhoneBooks; GET Team/{id}/PhoneBooks of the agent's team")
        .tells(
            "PhoneBook (text form: Phonebooks); no_data_found",
            "Unauthorized",
        ),
    list("GetTeamPhonebooks", &[TEAM], |_, args| {
        let team = args.need("teamId", ErrorCode::PleaseRetry)?.to_owned();
        Ok(vec![Action::ReadPhoneBooks { team: Some(team) }])
    })
    .by(Who::Administrator)
    .asks("GET Team/{id}/PhoneBooks")
    .tells(
        "TeamPhoneBook (text form: TeamPhoneBooks); no_data_found",
        "Unauthorized",
    ),
    list("GetPhonebookContacts", &[BOOK], |_, args| {
        let book = args.need("phonebookId", ErrorCode::PleaseRetry)?.to_owned();
        Ok(vec![Action::ReadContacts { book }])
    })
    .by(Who::Administrator)
    .asks("GET PhoneBook/{id}/Contacts")
    .tells(
        "phoneBookContacts (text form: PhonebookContacts); no_data_found",
        "Unauthorized",
    ),
    list("getqueuelist", &[], |_, _| Ok(vec![Action::ReadQueues]))
        .by(Who::Supervisor)
        .asks("GET User/{id}/Queues (UCCE)")
        .tells(
            "QueueStats (text form: QueueList)",
            "CF_OBJECT_NOT_KNOWN (UCCX)",
        ),
    list(
        "GETSKILLGROUP",
        &[
            ArgSpec::optional("mode"),
            ArgSpec::optional("from"),
            ArgSpec::optional("to"),
        ],
        |_, args| {
            skill_range(args)?;
            Ok(vec![Action::ReadQueues])
        },
    )
    .also(&["GETSKILLGROPU"])
    .asks("GET User/{id}/Queues (UCCE)")
    .tells("skillGroup", "CF_OBJECT_NOT_KNOWN (UCCX)"),
    list("GETSUPERVISOR", &[], |_, _| Ok(vec![Action::ReadUsers]))
        .by(Who::Administrator)
        .asks("GET Users; those with the role Supervisor")
        .tells("supervisors", "Unauthorized"),
    list(
        "GETAGENTEXTENSION",
        &[ArgSpec::required("agent", ErrorCode::PleaseRetry).or(&["F_Number"])],
        |_, args| {
            Ok(vec![Action::ReadMember {
                member: member(args, "agent")?,
            }])
        },
    )
    .by(Who::Administrator)
    .asks("GET User/{id} of that agent")
    .tells("agentExtension", "Unauthorized, USER_NOT_FOUND"),
];

const BOOK: ArgSpec = ArgSpec::required("phonebookId", ErrorCode::PleaseRetry);

type Reads = fn(&Subject<'_>, &Args) -> Result<Vec<Action>, ErrorCode>;

pub(super) const fn list(
    name: &'static str,
    args: &'static [ArgSpec],
    reads: Reads,
) -> CommandSpec {
    agent(name, args, Repeat::Safe, Step::Query(reads))
}

/// All that anybody sees, then those of the agent's own team.
fn phone_books(subject: &Subject<'_>, _: &Args) -> Result<Vec<Action>, ErrorCode> {
    let own = subject.team.filter(|team| !team.is_empty());
    let mut reads = vec![Action::ReadPhoneBooks { team: None }];
    reads.extend(own.map(|team| Action::ReadPhoneBooks {
        team: Some(team.to_owned()),
    }));
    Ok(reads)
}

pub(super) fn member(args: &Args, name: &str) -> Result<AgentId, ErrorCode> {
    AgentId::new(args.need(name, ErrorCode::PleaseRetry)?).map_err(|_| ErrorCode::PleaseRetry)
}

/// Rows without a range: what the original returns where not all are asked for.
const FIRST_ROWS: usize = 25;

/// Which of the skill groups are wanted: `ALL`, or `INDEXING` from a row to a row, counted from 1.
/// The first row and how many.
///
/// # Errors
/// `PLEASE_RETRY` for another mode or numbers that are none.
pub fn skill_range(args: &Args) -> Result<(usize, usize), ErrorCode> {
    let number = |name| match args.get(name) {
        None => Ok(None),
        Some(text) => text
            .parse::<usize>()
            .map(Some)
            .map_err(|_| ErrorCode::PleaseRetry),
    };
    let (from, to) = (number("from")?, number("to")?);
    match args.get("mode").map(str::to_ascii_uppercase).as_deref() {
        None => Ok((0, FIRST_ROWS)),
        Some("ALL") => Ok((0, usize::MAX)),
        Some("INDEXING") => {
            let from = from.unwrap_or(1).max(1);
            let to = to.unwrap_or(FIRST_ROWS);
            Ok((from - 1, to.saturating_add(1).saturating_sub(from)))
        }
        Some(_) => Err(ErrorCode::PleaseRetry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skill_groups_come_all_or_by_rows_from_one() {
        let range = |values: &[(&'static str, &str)]| {
            let mut args = Args::default();
            for (name, value) in values {
                args.push(name, *value);
            }
            skill_range(&args)
        };
        assert_eq!(range(&[]), Ok((0, 25)));
        assert_eq!(
            range(&[("mode", "all"), ("from", "0"), ("to", "0")]),
            Ok((0, usize::MAX))
        );
        assert_eq!(
            range(&[("mode", "INDEXING"), ("from", "3"), ("to", "7")]),
            Ok((2, 5))
        );
        assert_eq!(
            range(&[("mode", "INDEXING"), ("from", "9"), ("to", "7")]),
            Ok((8, 0))
        );
        let all = usize::MAX.to_string();
        assert_eq!(
            range(&[("mode", "INDEXING"), ("from", "1"), ("to", all.as_str())]),
            Ok((0, usize::MAX - 1))
        );
        assert_eq!(range(&[("mode", "SOME")]), Err(ErrorCode::PleaseRetry));
        assert_eq!(
            range(&[("mode", "INDEXING"), ("from", "x")]),
            Err(ErrorCode::PleaseRetry)
        );
    }
}
