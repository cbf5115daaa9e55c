//! I10: once the faults have stopped, everything is served: no command is left in a queue, every
//! client works, and what it sends when all had time to settle is carried out.

use crate::world::World;

/// Commands that each client gets carried out at least.
const SERVED: u64 = 3;

pub fn judge(world: &World) -> Vec<String> {
    let mut bad = Vec::new();
    for client in &world.clients {
        // Who has signed out for good wants nothing more.
        let served = client.served >= SERVED || client.out_since.is_some();
        if !client.idle() || !served || !client.refused.is_empty() {
            bad.push(format!("I10: after healing {client:?}"));
        }
    }
    for (number, broker) in world.brokers.iter().enumerate() {
        let (commands, expired) = (broker.commands.len(), broker.expired.len());
        if commands + expired > 0 {
            bad.push(format!(
                "I10: {commands} commands and {expired} expired ones are left on b{number}"
            ));
        }
    }
    bad
}
