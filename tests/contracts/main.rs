//! The contracts for machines (`docs/api`): kept as the program says them, true of what it reads
//! and writes, and taken by the formats' own tools.
//!
//! `TANDEM_WRITE_DOCS=1 cargo test --test contracts documents` writes the files anew.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod amqp;
mod schema;
mod tools;

use std::path::{Path, PathBuf};

use tandem::contracts::Contract;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api")
}

#[test]
fn the_documents_of_docs_api_are_what_the_program_says() {
    for contract in Contract::ALL {
        let wanted = format!("{:#}\n", contract.document());
        let file = folder().join(contract.file());
        if std::env::var_os("TANDEM_WRITE_DOCS").is_some() {
            std::fs::write(&file, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        for (line, (found, wanted)) in found.lines().zip(wanted.lines()).enumerate() {
            assert_eq!(found, wanted, "{}, line {}", file.display(), line + 1);
        }
        assert_eq!(
            found.lines().count(),
            wanted.lines().count(),
            "{}",
            file.display()
        );
    }
}
