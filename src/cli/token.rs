//! `tandem token`: a new token for the admin API.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use zeroize::Zeroizing;

use super::{exit, output};
use crate::data_dir;
use crate::model::Secret;
use crate::settings::{Token, TokenRole, is_token_name};

/// Random bytes of a token: nobody guesses it, so that a plain hash of it is enough.
const BYTES: usize = 32;

/// Arguments of `tandem token`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Prints the line for admin.tokens-file, which holds the token's hash only:
  tandem token grafana --role read --out grafana.token >> tokens
The token itself is for who calls: --token-file grafana.token, TANDEM_TOKEN_FILE, or the header
`Authorization: Bearer …`. A running instance takes the new line at SIGHUP.
Exit codes: 0 done; 1 the file cannot be written, or is there already; 64 usage")]
pub struct Args {
    /// Whose it is, for the log and the history: letters, digits and . _ - @
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    /// read: everything that is read; operate: every verb too
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub role: TokenRole,
    /// New file for the token, readable for this user only
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

fn name(text: &str) -> Result<String, String> {
    match is_token_name(text) {
        true => Ok(text.to_owned()),
        false => Err("1 to 64 letters, digits and . _ - @".to_owned()),
    }
}

fn role(text: &str) -> Result<TokenRole, String> {
    text.parse()
}

/// Makes the token, writes it and prints its line.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let mut bytes = Zeroizing::new([0; BYTES]);
    if let Err(error) = getrandom::fill(bytes.as_mut_slice()) {
        complain!("tandem: no random numbers from the system: {error}");
        return ExitCode::from(exit::INTERNAL);
    }
    let token = Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    let written =
        data_dir::new_file(&args.out).and_then(|mut file| writeln!(file, "{}", token.expose()));
    if let Err(error) = written {
        complain!("tandem: {}: {error}", args.out.display());
        return ExitCode::from(exit::FAILED);
    }
    let line = Token::of(&args.name, args.role, &token).line();
    output::print(&match json {
        true => format!(
            "{:#}\n",
            json!({"name": args.name, "role": args.role.as_str(), "line": line,
                   "tokenFile": args.out})
        ),
        false => format!("{line}\n"),
    });
    ExitCode::from(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_for_its_user_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let args = Args {
            name: "ops".to_owned(),
            role: TokenRole::Operate,
            out: folder.path().join("ops.token"),
        };
        assert_eq!(run(&args, true), ExitCode::from(exit::DONE));
        let text = std::fs::read_to_string(&args.out).unwrap();
        assert_eq!(text.trim_end().len(), 43);
        assert_eq!(run(&args, false), ExitCode::from(exit::FAILED));
        assert_eq!(std::fs::read_to_string(&args.out).unwrap(), text);
        for wrong in ["", "a b", "ö"] {
            assert!(name(wrong).is_err());
        }
    }
}
