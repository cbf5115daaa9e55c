//! Which function tells which happenings. A new variant has to be put into a list, or nothing
//! compiles; and once it stands in one, the function of that list has to tell it.

macro_rules! about_messages {
    () => {
        Event::CommandFinished { .. }
            | Event::Stage { .. }
            | Event::DeadLettered { .. }
            | Event::InDoubt { .. }
            | Event::Duplicate { .. }
            | Event::EventPublished
            | Event::EventDropped
            | Event::ReplyUnroutable
            | Event::Resolved { .. }
            | Event::DoubleEffect { .. }
            | Event::LedgerOverflow { .. }
    };
}

macro_rules! about_brokers {
    () => {
        Event::BrokerLink { .. }
            | Event::BrokerFailover { .. }
            | Event::BrokerBlocked { .. }
            | Event::LinkGarbled { .. }
            | Event::BrokerWay { .. }
            | Event::OneCluster { .. }
            | Event::ConsumerLost { .. }
    };
}

macro_rules! about_the_instance {
    () => {
        Event::RoleChanged { .. }
            | Event::Operator { .. }
            | Event::Alone { .. }
            | Event::TakeoverStarted { .. }
            | Event::TakeoverFinished { .. }
            | Event::OwnPause { .. }
            | Event::Shortage { .. }
            | Event::NotKept { .. }
            | Event::NotJournaled { .. }
            | Event::ImpossibleStep { .. }
            | Event::Stale { .. }
    };
}

macro_rules! about_peers {
    () => {
        Event::PeerUp { .. }
            | Event::PeerSuspect { .. }
            | Event::PeerLost { .. }
            | Event::AgentMoved { .. }
            | Event::Fenced { .. }
            | Event::PeerRejected { .. }
            | Event::PeerRoundTrip { .. }
    };
}

macro_rules! about_downstreams {
    () => {
        Event::DownstreamState { .. }
            | Event::DownstreamFailover { .. }
            | Event::Service { .. }
            | Event::SubscriptionLost { .. }
    };
}
