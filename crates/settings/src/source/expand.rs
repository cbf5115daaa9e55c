//! Environment variables inside values.

use tandem_model::text::trimmed;

use super::Env;

/// How deep defaults may nest.
const DEPTH: usize = 8;

/// Replaces `${NAME}` and `${NAME:-default}`, whose default may hold the same again; `$${` is a
/// literal `${`. Blanks around a variable's value are none of it, and one that is empty counts as
/// not set, as in a shell's `:-`.
pub fn expand(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut rest = text;
    read(&mut rest, env, true, 0)
}

/// Reads to the end or, within a default, over its closing brace. What is not `wanted` needs no
/// value.
fn read(rest: &mut &str, env: Env<'_>, wanted: bool, depth: usize) -> Result<String, String> {
    let mut out = String::new();
    // Literal `${` within a default, each with a brace of its own.
    let mut literals = 0_usize;
    loop {
        let start = rest.find("${");
        let end = rest.find('}').filter(|_| depth > 0);
        if let Some(end) = end.filter(|end| start.is_none_or(|start| *end < start)) {
            out.push_str(&rest[..end]);
            *rest = &rest[end + 1..];
            if literals == 0 {
                return Ok(out);
            }
            literals -= 1;
            out.push('}');
            continue;
        }
        let Some(start) = start else {
            if depth > 0 {
                return Err("${ without }".into());
            }
            out.push_str(rest);
            return Ok(out);
        };
        let before = &rest[..start];
        *rest = &rest[start + 2..];
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            literals += 1;
        } else {
            out.push_str(before);
            out.push_str(&variable(rest, env, wanted, depth + 1)?);
        }
    }
}

/// What stands behind `${`, up to its brace.
fn variable(rest: &mut &str, env: Env<'_>, wanted: bool, depth: usize) -> Result<String, String> {
    if depth > DEPTH {
        return Err(format!("defaults nest more than {DEPTH} deep"));
    }
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, behind) = rest.split_at(rest.find(|c| !of_name(c)).ok_or("${ without }")?);
    let value = env(name).map(|value| trimmed(&value).to_owned());
    let value = value.filter(|value| !value.is_empty());
    let good = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
    let default = match (behind.strip_prefix(":-"), behind.strip_prefix('}')) {
        (Some(default), _) if good => {
            *rest = default;
            Some(read(rest, env, wanted && value.is_none(), depth)?)
        }
        (_, Some(behind)) if good => {
            *rest = behind;
            None
        }
        _ if !behind.contains('}') => return Err("${ without }".into()),
        _ => return Err("not an environment variable's name between ${ and }".into()),
    };
    match value.or(default) {
        Some(value) => Ok(value),
        None if !wanted => Ok(String::new()),
        None => Err(format!(
            "environment variable {name} is not set and has no default"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("rabbit".into()),
            "EMPTY" => Some(String::new()),
            "BLANK" => Some(" \n".into()),
            "LINE" => Some(" line\n".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced() {
        let expand = |text| expand(text, &env);
        assert_eq!(expand("a").as_deref(), Ok("a"));
        assert_eq!(
            expand("${HOST}:${PORT:-5672}").as_deref(),
            Ok("rabbit:5672")
        );
        assert_eq!(expand("${EMPTY:-x}${NONE:-}").as_deref(), Ok("x"));
        assert_eq!(expand("$5 $${HOST} $").as_deref(), Ok("$5 ${HOST} $"));
        assert!(expand("${NONE}").unwrap_err().contains("NONE"));
        for bad in ["${HOST", "${", "${}", "${1A}", "${A B}", "${A:x}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn defaults_may_hold_variables() {
        let expand = |text: &str| expand(text, &env);
        for (text, wanted) in [
            ("${A:-${B:-x}}", "x"),
            ("${A:-${HOST}}:1", "rabbit:1"),
            ("${A:-<${B:-${HOST}}>}${C:-}.", "<rabbit>."),
            ("${HOST:-${NONE}}", "rabbit"),
            ("${A:-$${B}}c", "${B}c"),
            ("}${A:-}}", "}}"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(wanted), "{text}");
        }
        assert!(expand("${A:-${B}}").unwrap_err().contains("variable B"));
        for bad in ["${A:-${B:-x}", "${A:-${", "${HOST:-${B C}}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        let nested = |depth: usize| "${A:-".repeat(depth) + "x" + &"}".repeat(depth);
        assert_eq!(expand(&nested(DEPTH)).as_deref(), Ok("x"));
        assert!(expand(&nested(DEPTH + 1)).unwrap_err().contains("nest"));
        assert!(expand(&nested(100_000)).is_err());
    }

    #[test]
    fn blanks_around_a_variable_are_none_of_its_value() {
        let expand = |text: &str| expand(text, &env);
        assert_eq!(expand("<${LINE}>").as_deref(), Ok("<line>"));
        assert_eq!(expand("${BLANK:-x}").as_deref(), Ok("x"));
    }

    #[test]
    fn values_from_variables_are_not_expanded_again() {
        let env = |name: &str| (name == "A").then(|| "${B}".to_owned());
        assert_eq!(expand("${A}", &env).as_deref(), Ok("${B}"));
    }
}
