//! An instance whose disk is small.

use std::collections::BTreeMap;
use std::path::Path;

use tandem::lab::{ProcessSpec, TandemProcess};

use crate::support::Pair;

/// Starts gc-1 with a data folder on a file system of 8 MiB, in a mount namespace of its own that
/// ends with it. `false`: this machine lets nobody have one.
pub async fn start_on_a_small_disk(pair: &mut Pair) -> bool {
    let own = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"])
        .output();
    if !own.is_ok_and(|output| output.status.success()) {
        return false;
    }
    let data = pair.gc1.config.with_file_name("data-gc-1");
    std::fs::create_dir_all(&data).unwrap();
    let mount = "mount -t tmpfs -o size=8m tmpfs \"$0\" && exec \"$@\"";
    let mut args: Vec<String> = ["-rm", "sh", "-c", mount].map(str::to_owned).to_vec();
    for part in [data.as_path(), Path::new(env!("CARGO_BIN_EXE_tandem"))] {
        args.push(part.display().to_string());
    }
    args.extend(["run".to_owned(), "--config".to_owned()]);
    args.push(pair.gc1.config.display().to_string());
    let process = TandemProcess::start_spec(ProcessSpec {
        name: "gc-1 on a small disk".to_owned(),
        program: "unshare".into(),
        args,
        env: BTreeMap::new(),
        log: pair.gc1.log.clone(),
    });
    pair.gc1.process = Some(process.unwrap());
    true
}
