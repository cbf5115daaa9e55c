//! Drills on a pair of its own, which the laboratory starts.

use tokio_util::sync::CancellationToken;

use super::Row;
use crate::cli::{demo, output};
use crate::lab::LabError;
use crate::lab::demo::{Drill, Drilled, Verdict, drills};

/// Ids of one kind that are named where something went wrong.
const NAMED: usize = 5;

/// Runs the drills named, or all, one after the other.
pub(super) async fn run(named: &[Drill], json: bool) -> Result<Vec<Row>, LabError> {
    let stop = CancellationToken::new();
    if let Err(error) = demo::stop_at_signals(stop.clone()) {
        complain!("tandem drill: signals: {error}");
    }
    let chosen = match named {
        [] => Drill::ALL.to_vec(),
        named => named.to_vec(),
    };
    let results = drills(&chosen, (json, output::print), stop).await?;
    Ok(results.iter().map(row).collect())
}

fn row((drill, result): &Drilled) -> Row {
    let verdict = match result {
        Ok(verdict) => verdict,
        Err(why) => {
            return Row {
                drill: drill.name().to_owned(),
                why: Some(why.clone()),
                ..Row::default()
            };
        }
    };
    let gap = verdict.gaps.first().and_then(|(_, gap)| *gap);
    let counts = verdict.counts();
    let in_doubt = counts[3];
    Row {
        drill: drill.name().to_owned(),
        first_new: gap.and_then(|gap| gap.first_new),
        silence: gap.map(|gap| gap.silence),
        worst: gap.map(|gap| gap.worst),
        counts: Some(counts),
        good: verdict.is_good() && (in_doubt == 0 || !drill.planned()),
        why: complaints(verdict),
    }
}

/// What was lost or doubled, by name, as far as it fits.
fn complaints(verdict: &Verdict) -> Option<String> {
    let of = |what: &str, ids: &[String]| {
        let shown: Vec<&str> = ids.iter().take(NAMED).map(String::as_str).collect();
        let list = format!("{} {what}: {}", ids.len(), shown.join(", "));
        (!ids.is_empty()).then_some(list)
    };
    let all = [
        of("not answered", &verdict.totals.open),
        of("calls accepted and never made", &verdict.not_made),
        of("calls made twice", &verdict.doubled),
        of("answered in two ways", &verdict.totals.contradicted),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}
