//! Environment variables inside values.

use super::Env;

/// Replaces `${NAME}` and `${NAME:-default}`; `$${` is a literal `${`. A variable that is empty
/// counts as not set, as in a shell's `:-`.
pub fn expand(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let end = after.find('}').ok_or("${ without }")?;
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        let first = name.bytes().next();
        let good = first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good {
            return Err("not an environment variable's name between ${ and }".into());
        }
        let value = env(name).filter(|value| !value.is_empty());
        match (value, default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "environment variable {name} is not set and has no default"
                ));
            }
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("rabbit".into()),
            "EMPTY" => Some(String::new()),
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
        for bad in ["${HOST", "${}", "${1A}", "${A B}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_from_variables_are_not_expanded_again() {
        let env = |name: &str| (name == "A").then(|| "${B}".to_owned());
        assert_eq!(expand("${A}", &env).as_deref(), Ok("${B}"));
    }
}
