//! How many sessions there are, and their digest, without a look at each of them.

use crate::model::InstanceId;
use crate::peer::SessionRecord;

use super::session::{Session, Subscription};

/// What living sessions come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of sessions.
    pub total: u64,
    /// Of these, own ones.
    pub owned: u64,
    /// Of all, with an established subscription here.
    pub subscribed: u64,
    /// Of the digests of their versions.
    sum: u64,
    /// Sessions, tombstones too, that have the subscription that they should have here: an own one
    /// an established one, the others none.
    pub at_rest: u64,
}

impl Tally {
    pub(super) fn of(session: &Session, me: &InstanceId) -> Self {
        let (owned, up) = (session.owned_by(me), session.subscription.is_up());
        let none = session.subscription == Subscription::None;
        if !session.live() {
            return Self {
                at_rest: u64::from(none),
                ..Self::default()
            };
        }
        Self {
            total: 1,
            owned: u64::from(owned),
            subscribed: u64::from(up),
            sum: digest_of(&session.record),
            at_rest: u64::from(if owned { up } else { none }),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.total += other.total;
        self.owned += other.owned;
        self.subscribed += other.subscribed;
        self.sum = self.sum.wrapping_add(other.sum);
        self.at_rest += other.at_rest;
    }

    pub(super) fn subtract(&mut self, other: Self) {
        self.total -= other.total;
        self.owned -= other.owned;
        self.subscribed -= other.subscribed;
        self.sum = self.sum.wrapping_sub(other.sum);
        self.at_rest -= other.at_rest;
    }

    /// Whether no living session is another's.
    #[must_use]
    pub fn all_own(self) -> bool {
        self.owned == self.total
    }

    /// Digest of the sessions' versions, never 0: equal tables have equal digests.
    #[must_use]
    pub fn digest(self) -> u64 {
        self.sum | 1
    }
}

/// Of one session's version. They are added up, so that one can be taken out: the last steps make
/// that the sum of others is not met by chance (Steele, Lea and Flood, 2014: SplitMix).
fn digest_of(record: &SessionRecord) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    let mut digest: u64 = 0xCBF2_9CE4_8422_2325;
    let version = &record.version;
    let texts = [record.agent.as_str(), version.owner.as_str()];
    for byte in texts.into_iter().flat_map(str::bytes) {
        digest = (digest ^ u64::from(byte)).wrapping_mul(PRIME);
    }
    for number in [version.epoch, version.counter] {
        digest = (digest ^ number).wrapping_mul(PRIME);
    }
    digest = (digest ^ (digest >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    digest = (digest ^ (digest >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    digest ^ (digest >> 31)
}
