//! I9: nothing grows for ever: at the end no command is in work, no publication waits, no
//! delivery is held. A hot loop of timers is noticed while it turns.

use tandem_engine::Engine;

use crate::instance::name_of;
use crate::world::World;

pub fn judge(world: &World) -> Vec<String> {
    let mut bad = Vec::new();
    for (node, entry) in world.nodes.iter().enumerate() {
        let who = name_of(node);
        let Some(view) = entry.engine.as_ref().map(Engine::view) else {
            continue;
        };
        let (commands, publications) = (view.inflight, view.outbox);
        if commands != 0 || publications != 0 {
            bad.push(format!(
                "I9: {who} has {commands} commands and {publications} publications left"
            ));
        }
        let left = entry.engine.iter().flat_map(Engine::left_over);
        for (what, count) in left.filter(|(_, count)| *count > 0) {
            bad.push(format!("I9: {who} has {count} {what} left"));
        }
        let held: usize = world.brokers.iter().map(|b| b.held_by(node)).sum();
        if held != 0 {
            bad.push(format!("I9: {who} holds {held} deliveries"));
        }
    }
    bad
}
