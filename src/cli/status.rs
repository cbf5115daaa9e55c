//! `tandem status`: what an instance is doing.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::client::{Admin, ClientError, Target, understood};
use super::output::Look;
use super::table::{Tone, cut, paint, plain, render, state};
use super::{block_on, exit, output, watch};
use crate::admin::readiness;
use crate::engine::View;
use crate::engine::peer::Role;

/// Arguments of `tandem status`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown, or alive or ready; 1 not so; 64 usage; 69 the instance cannot be reached"
)]
pub struct Args {
    /// Which instance.
    #[command(flatten)]
    pub target: Target,
    /// Refresh each second until ctrl-c; with --json one line a second
    #[arg(long)]
    pub watch: bool,
    /// Only ask whether the process lives (/livez), which wants no token: for health checks
    #[arg(long, conflicts_with = "watch")]
    pub alive: bool,
    /// Only ask whether it can serve or take over (/readyz), which wants no token
    #[arg(long, conflicts_with_all = ["watch", "alive"])]
    pub ready: bool,
}

/// Shows the status once, or each second until ctrl-c.
pub fn run(args: Args, json: bool) -> ExitCode {
    block_on(async move {
        let admin = match Admin::new(&args.target) {
            Ok(admin) => admin,
            Err(error) => return error.report(),
        };
        if args.alive || args.ready {
            return health(&admin, if args.alive { "livez" } else { "readyz" }, json).await;
        }
        if args.watch {
            watch::each_second(json, async || shown(&admin, json).await).await
        } else {
            once(&admin, json).await
        }
    })
}

async fn health(admin: &Admin, path: &str, json: bool) -> u8 {
    match admin.health(path).await {
        Ok((good, line)) => {
            output::print(&match json {
                true => format!("{}\n", serde_json::json!({ "good": good, "why": line })),
                false => format!("{line}\n"),
            });
            if good { exit::DONE } else { exit::FAILED }
        }
        Err(error) => error.report(),
    }
}

async fn once(admin: &Admin, json: bool) -> u8 {
    match shown(admin, json).await {
        Ok(text) => {
            output::print(&text);
            exit::DONE
        }
        Err(error) => error.report(),
    }
}

/// For machines as it came, whatever its version.
async fn shown(admin: &Admin, json: bool) -> Result<String, ClientError> {
    let raw = admin.raw_status().await?;
    if json {
        return Ok(format!("{raw:#}\n"));
    }
    Ok(text(&understood(raw)?, output::look()))
}

/// The status for people.
fn text(view: &View, look: Look) -> String {
    let (width, colours) = (look.width, look.colours);
    let mut out = String::new();
    let title = format!(
        "{}  site {}  cluster {}  {}  version {}",
        view.instance, view.site, view.cluster, view.mode, view.version
    );
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", cut(&title, width));
    let (service, tone) = service(view);
    let sessions = view.sessions;
    let held = format!(
        "sessions {} ({} owned, {} subscribed)",
        sessions.total, sessions.owned, sessions.subscribed
    );
    let work = format!(
        "in work {}  waiting to publish {}",
        view.inflight, view.outbox
    );
    let service = cut(&service, width);
    let wide = service.len() + held.len() + work.len() + 4;
    let gap = if wide > width { "\n" } else { "  " };
    let behind = if service.len() + held.len() + 2 > width {
        "\n"
    } else {
        "  "
    };
    let service = paint(&service, tone, colours);
    let _ = writeln!(out, "{service}{behind}{held}{gap}{work}");
    for (heads, rows) in tables(view) {
        if !rows.is_empty() {
            let _ = write!(out, "\n{}", render(heads, &rows, look));
        }
    }
    let reasons = view.groups.iter().filter(|group| !group.reason.is_empty());
    let mut notes: Vec<String> = reasons
        .map(|group| format!("{}: {}", group.name, group.reason))
        .collect();
    notes.extend(
        view.drain
            .iter()
            .map(|drain| format!("this instance is {drain}")),
    );
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in notes {
        let _ = writeln!(out, "{}", cut(&note, width));
    }
    if !view.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &view.warnings {
        let line = cut(&format!("! {warning}"), width);
        let _ = writeln!(out, "{}", paint(&line, Tone::Warn, colours));
    }
    out
}

/// In service is who could take a command now, or take over: as `/readyz` has it.
fn service(view: &View) -> (String, Tone) {
    let joining = view.groups.iter().all(|group| group.role == Role::Joining);
    let broker = view.brokers.iter().any(|broker| broker.attached);
    let (words, tone) = match (view.in_service, broker, joining) {
        (false, true, _) => ("out of service", Tone::Bad),
        (_, false, true) => ("joining, no broker", Tone::Warn),
        (_, false, false) => ("no broker", Tone::Bad),
        (true, true, true) => ("joining", Tone::Warn),
        (true, true, false) => match readiness(view) {
            Ok(_) => ("in service", Tone::Good),
            Err(why) => {
                let why = why.strip_prefix("not serving: ").unwrap_or(&why);
                return (format!("not serving: {why}"), Tone::Bad);
            }
        },
    };
    (words.to_owned(), tone)
}

type Table = (&'static [&'static str], Vec<Vec<super::table::Cell>>);

fn tables(view: &View) -> [Table; 4] {
    let yes = |flag: bool| plain(if flag { "yes" } else { "" });
    let groups = view.groups.iter().map(|group| {
        vec![
            plain(&group.name),
            state(group.role.as_str()),
            plain(&group.queue),
            plain(group.broker.as_deref().unwrap_or("-")),
            plain(group.priority.map_or("-".to_owned(), |p| p.to_string())),
            yes(group.consuming),
            plain(group.tag.as_deref().unwrap_or("-")),
        ]
    });
    let peers = view.peers.iter().map(|peer| {
        let roles: Vec<String> = peer
            .groups
            .iter()
            .map(|group| format!("{} {}", group.name, group.role.as_str()))
            .collect();
        vec![
            plain(&peer.instance),
            plain(&peer.site),
            state(&peer.state),
            plain(roles.join(", ")),
            plain(format!("{} ms ago", peer.last_seen_ms)),
            plain(peer.rtt_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"))),
            plain(peer.owned),
            plain(&peer.broker),
        ]
    });
    let brokers = view.brokers.iter().map(|broker| {
        vec![
            plain(match broker.node.is_empty() {
                true => broker.url.clone(),
                false => format!("{} (now {})", broker.url, broker.node),
            }),
            state(&broker.state),
            yes(broker.attached),
            yes(broker.preferred),
            plain(&broker.problem),
        ]
    });
    let downstreams = view.downstreams.iter().map(|node| {
        vec![
            plain(&node.host),
            state(&node.state),
            yes(node.current),
            plain(node.reason.as_deref().unwrap_or("")),
        ]
    });
    [
        (
            &[
                "group",
                "role",
                "queue",
                "broker",
                "priority",
                "consuming",
                "tag",
            ],
            groups.collect(),
        ),
        (
            &[
                "peer", "site", "state", "roles", "heard", "rtt", "owned", "broker",
            ],
            peers.collect(),
        ),
        (
            &["broker", "state", "serves", "preferred", "problem"],
            brokers.collect(),
        ),
        (
            &["downstream", "state", "current", "reason"],
            downstreams.collect(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::view;

    #[test]
    fn everything_is_shown_within_a_page() {
        let mut view = view();
        view.warnings.push("w".repeat(200));
        view.downstreams[1].reason = Some("r".repeat(200));
        view.groups[0].tag = Some("t".repeat(90));
        view.groups[0].reason = "gc-1 leads, chosen by operator on gc-2 at noon".to_owned();
        view.drain = Some("draining".to_owned());
        let text = text(&view, Look::PAGE);
        for line in text.lines() {
            assert!(line.chars().count() <= Look::PAGE.width, "{line}");
        }
        for part in [
            "gc-1  site site-1  cluster tandem  active-passive",
            "in service  sessions 10 (7 owned, 6 subscribed)  in work 4",
            "agents  leader  Connector1  127.0.0.1:5672  127",
            "gc-2  site-2  alive  agents follower  120 ms ago  3 ms",
            "127.0.0.1:5673  down",
            "agents: gc-1 leads, chosen by operator on gc-2 at noon",
            "this instance is draining",
            "finesse-2   down",
            "! www",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn who_has_no_broker_is_not_in_service() {
        let mut view = view();
        assert_eq!(service(&view).0, "in service");
        view.brokers
            .iter_mut()
            .for_each(|broker| broker.attached = false);
        assert_eq!(service(&view).0, "no broker");
        view.groups[0].role = Role::Joining;
        assert_eq!(service(&view).0, "joining, no broker");
        assert!(text(&view, Look::PAGE).contains("joining, no broker"));
    }

    #[test]
    fn who_is_not_ready_is_not_in_service_and_why_is_said() {
        for role in [Role::Draining, Role::Disabled] {
            let mut view = view();
            view.groups[0].role = role;
            let (words, tone) = service(&view);
            assert_eq!(words, format!("not serving: agents {}", role.as_str()));
            assert_eq!(tone, Tone::Bad);
            assert!(readiness(&view).is_err());
        }
        let mut unfit = view();
        unfit.brokers[0].unfit = true;
        unfit.brokers[0].problem = "replies cannot be published ".repeat(9);
        let (words, _) = service(&unfit);
        assert!(
            words.starts_with("not serving: broker 127.0.0.1:5672: replies"),
            "{words}"
        );
        let shown = text(&unfit, Look::PAGE);
        let widest = shown.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(Look::PAGE.width), "{shown}");
        assert!(shown.contains("sessions 10"), "{shown}");
    }

    #[test]
    fn colours_on_request() {
        let look = Look {
            colours: true,
            ..Look::PAGE
        };
        let text = text(&view(), look);
        assert!(text.contains("\u{1b}[31mdown\u{1b}[0m"), "{text}");
    }
}
