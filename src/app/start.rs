//! The first line of the log.

use std::path::Path;

use crate::settings::{Group, Mode, Settings};

/// The first line of the log: what was started, and as what.
pub(super) fn tell(settings: &Settings, file: &Path) {
    let groups: Vec<&str> = settings.groups.iter().map(|g| g.name.as_str()).collect();
    let roles = settings.groups.iter().map(|group| wanted(settings, group));
    let roles: Vec<String> = roles.collect();
    let scheme = if settings.admin.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!(
        version = crate::VERSION,
        instance = settings.instance.id,
        cluster = settings.cluster_name,
        file = %file.display(),
        admin = format!("{scheme}://{}", settings.admin.listen),
        mode = settings.mode.as_str(),
        groups = groups.join(","),
        roles = roles.join(", "),
        "tandem starts"
    );
}

/// What an instance wants to be in a group: the one of highest priority leads, or each does.
fn wanted(settings: &Settings, group: &Group) -> String {
    let name = &group.name;
    match settings.mode {
        Mode::ActivePassive => {
            let priority = group.priority.unwrap_or(settings.consumer.priority);
            format!("{name} priority {priority}")
        }
        Mode::ActiveActive => format!("{name} leader"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_says_what_it_wants_here() {
        let group = |name: &str, priority| Group {
            name: name.to_owned(),
            queues: vec![name.to_owned()],
            priority,
            hash_weight: 1,
        };
        let told = |mode, group: &Group| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("site.properties");
            let text = "instance.id=gc-1\nbroker.url.1=localhost:1\nconsumer.priority=100\n\
                        downstream.url.1=http://localhost:8080/finesse/api\n";
            std::fs::write(&path, text).unwrap();
            let mut settings = crate::settings::load(&path, &|_| None).unwrap().settings;
            settings.mode = mode;
            wanted(&settings, group)
        };
        let own = group("batch", Some(7));
        assert_eq!(told(Mode::ActivePassive, &own), "batch priority 7");
        assert_eq!(told(Mode::ActiveActive, &own), "batch leader");
        let usual = group("agents", None);
        assert_eq!(told(Mode::ActivePassive, &usual), "agents priority 100");
    }
}
