//! Which error code a client sees for a refusal of the downstream.
//!
//! Names count before numbers, and both are looked for in message and data alike (platform
//! reference, section 2.2). The first step that knows the refusal decides:
//!
//! | step | refusal | code |
//! | --- | --- | --- |
//! | 1 | a word `CF_…` or `E_CTI_…` in message, data or type | that word, unchanged |
//! | 2 | data, message or type is one of the numbers that have no constant: 13145, 20700, 20999, 88001 to 88049 | that number |
//! | 2 | type User Not Found | `USER_NOT_FOUND` |
//! | 2 | type Dialog Not Found | `NO_DIALOG_ID` |
//! | 2 | type Invalid Destination | `BAD_DESTINATION`: clients know it as "called an invalid extension" |
//! | 2 | type Invalid State | `CF_INVALID_OBJECT_STATE` |
//! | 2 | types Authorization Failure, Authentication Failure, Unauthorized, Invalid Authorization User Specified, Invalid Supervisor | `Unauthorized` |
//! | 2 | types Parameter Missing, Invalid Input, Bad Request | `PLEASE_RETRY`: clients know it as "bad parameters" |
//! | 2 | type Service Unavailable | `DOWN` |
//! | 3 | message `UNKNOWN_USER`, `SERVER_OUT_OF_SERVICE` | `USER_NOT_FOUND`, `DOWN` |
//! | 4 | data or message is a number of the private table `NUMBERS` | its constant |
//! | 5 | HTTP 401 and 403, 404, 503 | `Unauthorized`, `CF_OBJECT_NOT_KNOWN`, `DOWN` |
//! | 6 | else | `CF_GENERIC_UNSPECIFIED` |
//!
//! The original's JSON form has `Unauthorized` for wrong credentials, its text form does not know
//! that word: see [`in_text`].

use crate::model::ApiError;

/// CTI numbers and their constants. Numbers that two naming schemes use differently (9, 10) are
/// left out: such a refusal stays unspecified rather than wrong.
const NUMBERS: [(&str, &str); 16] = [
    ("0", "CF_GENERIC_UNSPECIFIED"),
    ("1", "CF_GENERIC_OPERATION"),
    ("2", "CF_REQUEST_INCOMPATIBLE_WITH_OBJECT"),
    ("3", "CF_VALUE_OUT_OF_RANGE"),
    ("4", "CF_OBJECT_NOT_KNOWN"),
    ("5", "CF_INVALID_CALLING_DEVICE"),
    ("6", "CF_INVALID_CALLED_DEVICE"),
    ("7", "CF_INVALID_FORWARDING_DESTINATION"),
    ("11", "CF_INVALID_CSTA_CALL_IDENTIFIER"),
    ("12", "CF_INVALID_CSTA_DEVICE_IDENTIFIER"),
    ("14", "CF_INVALID_DESTINATION"),
    ("22", "CF_INVALID_OBJECT_STATE"),
    ("31", "CF_GENERIC_SYSTEM_RESOURCE_AVAILABILITY"),
    ("33", "CF_RESOURCE_BUSY"),
    ("34", "CF_RESOURCE_OUT_OF_SERVICE"),
    ("265", "CF_INVALID_AGENT_WORKMODE"),
];

/// Longest platform constant that is passed on, in bytes.
const MAX_CONSTANT: usize = 80;

/// Longest message that is passed on, in characters.
const MAX_MESSAGE: usize = 300;

const UNSPECIFIED: &str = "CF_GENERIC_UNSPECIFIED";

/// Code and message for a refusal that came with this HTTP status (202 or 0 for one that came as
/// a notification).
#[must_use]
pub fn code_of(error: &ApiError, status: u16) -> (String, String) {
    let code = constant(error)
        .or_else(|| bare_number(error))
        .or_else(|| by_type(error).map(str::to_owned))
        .or_else(|| by_status(status).map(str::to_owned))
        .unwrap_or_else(|| UNSPECIFIED.to_owned());
    (code, message(error, status))
}

/// The text form's word for a code of [`code_of`] with its message: wrong credentials, which the
/// platform tells by the type Authorization Failure or by a bare 401, are
/// `CF_INVALID_PASSWORD_SPECIFIED` there, and one constant is spelt otherwise.
#[must_use]
pub fn in_text<'a>(code: &'a str, message: &str) -> &'a str {
    let kind = message.split(':').next().unwrap_or_default();
    match code {
        "Unauthorized"
            if kind.eq_ignore_ascii_case("Authorization Failure") || kind == bare(401) =>
        {
            "CF_INVALID_PASSWORD_SPECIFIED"
        }
        "E_CTI_INVALID_CALLID" => "E_CTI_INVALID_CALL_ID",
        code => code,
    }
}

/// The message of a refusal that says nothing but its status.
fn bare(status: u16) -> String {
    format!("refused with HTTP status {status}")
}

/// A platform constant in any of the fields.
fn constant(error: &ApiError) -> Option<String> {
    [&error.message, &error.data, &error.kind]
        .into_iter()
        .flat_map(|field| field.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')))
        .find(|word| {
            (word.starts_with("CF_") || word.starts_with("E_CTI_")) && word.len() <= MAX_CONSTANT
        })
        .map(str::to_owned)
}

fn by_type(error: &ApiError) -> Option<&'static str> {
    let kind = error.kind.trim().to_ascii_lowercase();
    let named = match kind.as_str() {
        "user not found" => Some("USER_NOT_FOUND"),
        "dialog not found" => Some("NO_DIALOG_ID"),
        "invalid destination" => Some("BAD_DESTINATION"),
        "invalid state" => Some("CF_INVALID_OBJECT_STATE"),
        "authorization failure"
        | "authentication failure"
        | "unauthorized"
        | "invalid authorization user specified"
        | "invalid supervisor" => Some("Unauthorized"),
        "parameter missing" | "invalid input" | "bad request" => Some("PLEASE_RETRY"),
        "service unavailable" => Some("DOWN"),
        _ => None,
    };
    named
        .or_else(|| match error.message.trim() {
            "UNKNOWN_USER" => Some("USER_NOT_FOUND"),
            "SERVER_OUT_OF_SERVICE" => Some("DOWN"),
            _ => None,
        })
        .or_else(|| number(error))
}

fn number(error: &ApiError) -> Option<&'static str> {
    [&error.data, &error.message].into_iter().find_map(|field| {
        NUMBERS
            .iter()
            .find(|(number, _)| *number == field.trim())
            .map(|(_, name)| *name)
    })
}

/// Numbers by which the platform's guides know a refusal: of silent monitoring, of a conference.
fn bare_number(error: &ApiError) -> Option<String> {
    [&error.data, &error.message, &error.kind]
        .into_iter()
        .map(|field| field.trim())
        .find(|field| {
            let number = field.parse::<u32>();
            number.is_ok_and(|n| matches!(n, 13_145 | 20_700 | 20_999 | 88_001..=88_049))
        })
        .map(str::to_owned)
}

fn by_status(status: u16) -> Option<&'static str> {
    match status {
        401 | 403 => Some("Unauthorized"),
        404 => Some("CF_OBJECT_NOT_KNOWN"),
        503 => Some("DOWN"),
        _ => None,
    }
}

/// The platform's own words, bounded.
fn message(error: &ApiError, status: u16) -> String {
    let mut parts = [&error.kind, &error.message, &error.data]
        .into_iter()
        .map(|field| field.trim())
        .filter(|field| !field.is_empty());
    let Some(first) = parts.next() else {
        return bare(status);
    };
    let all = parts.fold(first.to_owned(), |all, part| all + ": " + part);
    all.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(kind: &str, message: &str, data: &str, status: u16) -> String {
        let error = ApiError {
            kind: kind.into(),
            message: message.into(),
            data: data.into(),
        };
        code_of(&error, status).0
    }

    #[test]
    fn each_step_of_the_table() {
        let failure = "Call Operation Failure";
        for (kind, message, data, status, want) in [
            (failure, "CF_RESOURCE_BUSY", "22", 202, "CF_RESOURCE_BUSY"),
            (
                failure,
                "",
                "CF_INVALID_CONSULT_TYPE",
                202,
                "CF_INVALID_CONSULT_TYPE",
            ),
            (
                "Generic Error",
                "refused: E_CTI_DEVICE_IN_USE (10)",
                "",
                400,
                "E_CTI_DEVICE_IN_USE",
            ),
            ("Invalid State", "CF_NEW_ONE", "", 400, "CF_NEW_ONE"),
            ("User Not Found", "UNKNOWN_USER", "9", 404, "USER_NOT_FOUND"),
            ("", "UNKNOWN_USER", "", 404, "USER_NOT_FOUND"),
            ("Dialog Not Found", "", "", 404, "NO_DIALOG_ID"),
            (
                "Invalid State",
                "no",
                "LOGOUT",
                400,
                "CF_INVALID_OBJECT_STATE",
            ),
            ("Invalid Destination", "", "", 400, "BAD_DESTINATION"),
            ("invalid supervisor", "", "", 401, "Unauthorized"),
            ("Parameter Missing", "", "extension", 400, "PLEASE_RETRY"),
            (failure, "", "33", 202, "CF_RESOURCE_BUSY"),
            (failure, "265", "", 202, "CF_INVALID_AGENT_WORKMODE"),
            ("", "", "", 401, "Unauthorized"),
            ("", "", "", 404, "CF_OBJECT_NOT_KNOWN"),
            ("", "", "", 503, "DOWN"),
            ("Generic Error", "", "20999", 400, "20999"),
            ("20700", "no resources", "", 400, "20700"),
            ("Invalid State", "13145", "", 400, "13145"),
            ("Generic Error", "", "88050", 202, "CF_GENERIC_UNSPECIFIED"),
            ("Not Implemented", "", "", 501, "CF_GENERIC_UNSPECIFIED"),
            ("", "", "", 0, "CF_GENERIC_UNSPECIFIED"),
        ] {
            assert_eq!(
                code(kind, message, data, status),
                want,
                "{kind:?} {message:?} {data:?} {status}"
            );
        }
    }

    #[test]
    fn wrong_credentials_have_a_word_of_their_own_in_the_text_form() {
        for (kind, message, status, json, text) in [
            (
                "Authorization Failure",
                "no",
                401,
                "Unauthorized",
                "CF_INVALID_PASSWORD_SPECIFIED",
            ),
            ("", "", 401, "Unauthorized", "CF_INVALID_PASSWORD_SPECIFIED"),
            (
                "Invalid Supervisor",
                "",
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "Unauthorized",
                "The user is not authorized to perform this operation",
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            ("", "", 403, "Unauthorized", "Unauthorized"),
            (
                "Authorization Failure",
                "CF_AGENT_ACCOUNT_LOCKED_OUT",
                401,
                "CF_AGENT_ACCOUNT_LOCKED_OUT",
                "CF_AGENT_ACCOUNT_LOCKED_OUT",
            ),
        ] {
            let error = ApiError {
                kind: kind.into(),
                message: message.into(),
                data: String::new(),
            };
            let (code, words) = code_of(&error, status);
            assert_eq!(
                (code.as_str(), in_text(&code, &words)),
                (json, text),
                "{kind}"
            );
        }
    }

    #[test]
    fn messages_are_bounded_and_never_empty() {
        let long = ApiError {
            message: "é".repeat(5000),
            ..ApiError::default()
        };
        assert_eq!(code_of(&long, 400).1.chars().count(), MAX_MESSAGE);
        assert_eq!(
            code_of(&ApiError::default(), 418).1,
            "refused with HTTP status 418"
        );
    }
}
