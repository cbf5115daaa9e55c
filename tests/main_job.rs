//! The main job, end to end: commands from the queue, effects at the downstream, events and
//! replies back.

mod support;

use support::run;

#[test]
fn trial() {
    run(async |shared| {
        let pair = shared.standing(Default::default()).await;
        let desk = pair.desk("desk", 0).await;
        pair.sign_in(&desk, &[1001, 1002]).await;
    });
}
