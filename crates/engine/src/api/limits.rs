//! Every bound of the engine, with what happens at it.

/// Commands waiting for one agent; the next is `REJECTED` with `retryAfterMs`.
pub const LANE_DEPTH: usize = 200;

/// Outcomes that are remembered with words or values of their own; further ones with their error's
/// code only.
pub const LEDGER_ENDS: usize = 100_000;

/// Outcomes that are remembered with their answer's body; a repeat of a further one is answered
/// without it.
pub const LEDGER_BODIES: usize = 100_000;

/// How long an outcome is remembered at least, milliseconds (or until the deadline, if later).
pub const LEDGER_RETENTION_MS: u64 = 600_000;

/// Publications waiting for a broker or a confirm; at the bound the oldest event is dropped and
/// counted. Replies and dead letters are never dropped: their deliveries stay unacknowledged.
pub const OUTBOX_EVENTS: usize = 100_000;

/// Publications waiting beyond which unreadable messages of the own control queue are counted only,
/// and not put into the dead letters.
pub const STRAY_LETTERS: usize = 1_000;

/// Links to one broker that were lost because what it sent could not be read, with the same words:
/// from so many on it is told to the operator, and the broker rests for longer each time.
pub const GARBLED_TIMES: u32 = 3;

/// First and longest of these rests, milliseconds.
pub const GARBLED_PAUSE_MS: u64 = 5_000;
/// See [`GARBLED_PAUSE_MS`].
pub const GARBLED_PAUSE_MAX_MS: u64 = 60_000;

/// Such losses further apart than this do not count together, milliseconds.
pub const GARBLED_FORGET_MS: u64 = 600_000;
/// How long a link that was left may take to settle what was delivered on it, milliseconds; then it
/// is closed, and what is unsettled is delivered again.
pub const LEAVING_MS: u64 = 20_000;

/// How long a broker may take to give a command consumer before it counts as one that gives none,
/// milliseconds.
pub const CONSUMER_PATIENCE_MS: u64 = 4_000;

/// Rest of a publication that failed or was refused, milliseconds.
pub const RETRY_REST_MS: u64 = 100;

/// How often a publication fails on living links, 100 ms apart at least, before its way is looked at.
pub const FAILURES: u8 = 10;

/// How often a publication that a broker refuses is tried again, 100 ms apart. A client whose queue
/// is full and refuses (`x-overflow: reject-publish`) would else keep deliveries, and so the
/// prefetch, for itself. Then a reply goes to the dead letters. For events see [`REFUSED_WAITS`].
pub const REFUSALS: u8 = 5;

/// How often a refused event is tried before commands that caused it, or one behind it, do not wait
/// for it any longer.
pub const REFUSED_WAITS: u8 = 3;

/// First pause before a refused event is tried again, milliseconds; doubled each time.
pub const REFUSED_PAUSE_MS: u64 = 100;

/// The longest one: so long after its queue is mended a client may wait.
pub const REFUSED_PAUSE_MAX_MS: u64 = 5_000;

/// How long events for a client are kept whose queue takes nothing, milliseconds. Then they are
/// dropped and counted: what is older would only mislead.
pub const REFUSED_EVENT_MS: u64 = 60_000;

/// Events that are kept for one such client; beyond that the oldest is dropped and counted.
pub const REFUSED_EVENTS: usize = 1_000;

/// Rest of a dead letter that its queue did not take, milliseconds.
pub const REFUSED_DEAD_LETTER_MS: u64 = 1_000;

/// Agent sessions; a `Connect` beyond it is `REJECTED`.
pub const SESSIONS: usize = 50_000;

/// Client destinations known by `Hello` or `Connect`; beyond it the oldest is forgotten.
pub const DESTINATIONS: usize = 50_000;

/// Calls remembered for one agent; beyond it the oldest is forgotten.
pub const DIALOGS_PER_AGENT: usize = 50;

/// Teams that one supervisor watches; a further one is not watched, and the list is all it gets.
pub const WATCHED_TEAMS: usize = 20;

/// Agents' states published at once to `AgentStates`.
pub const STATES_BATCH: usize = 200;

/// Pause between two such batches, milliseconds.
pub const STATES_PAUSE_MS: u64 = 50;

/// With more events than this waiting for a broker, a round of agents' states is left out.
pub const STATES_BACKLOG: usize = 10_000;

/// Longest body of a `Call`'s answer that is remembered for a repeat of the command, bytes; a repeat
/// of one with a longer body is answered without it.
pub const REMEMBERED_BODY: usize = 512;

/// Peers that are tracked; another one takes the place of one that is gone, and is not heard where
/// all are there.
pub const PEERS: usize = 16;

/// One that is lost keeps its place for so long at least, milliseconds.
pub const PEER_KEPT_MS: u64 = 60_000;

/// Earlier starts remembered of a peer; beyond it the oldest is forgotten.
pub const FORMER_BOOTS: usize = 8;

/// What an earlier start of a peer sent does not arrive later than this after the later one was
/// lost, milliseconds.
pub const FORMER_HEARD_MS: u64 = 10_000;

/// Sessions in one part of a snapshot: some 700 bytes each.
pub const SNAPSHOT_PART: usize = 60;
/// Bytes after which a message to peers takes no further session: supervisors of many teams have
/// large ones. Sealed messages may have 128 KiB.
pub const PART_BYTES: usize = 48 * 1024;

/// Records in one delta.
pub const DELTA_RECORDS: usize = 60;

/// How long changes are gathered before they go to the peers, milliseconds.
pub const DELTA_DELAY_MS: u64 = 20;

/// How long a signed-out agent's subscription is kept for the next sign-in, milliseconds.
pub const LOGOUT_LINGER_MS: u64 = 30_000;

/// How long a former owner keeps an agent's subscription, until the new one has its own,
/// milliseconds.
pub const HANDED_OVER_LINGER_MS: u64 = 2_000;

/// How long the notification of a forced sign-out is awaited before the subscription is closed
/// without it, milliseconds.
pub const FORCED_OUT_MS: u64 = 3_000;

/// How long a command of an agent that is not known waits for word of it, where another instance
/// that serves may just have connected the agent, milliseconds.
pub const UNKNOWN_WAIT_MS: u64 = 2_000;

/// How long an ended session is remembered once all members that are known are here, milliseconds.
pub const TOMBSTONE_MS: u64 = 600_000;

/// Ended sessions that are remembered for members that are away.
pub const TOMBSTONES_KEPT: usize = SESSIONS / 4;

/// Instances with another key that are told of; more are not counted.
pub const STRANGERS: usize = 8;

/// How long after its last message an instance with another key is told of, milliseconds.
pub const STRANGER_MS: u64 = 15_000;

/// Requests of one agent whose notifications are awaited; the oldest is forgotten.
pub const EXPECTED_PER_AGENT: usize = 16;

/// How long a notification that echoes a request's id is known by it, milliseconds.
pub const ECHO_MS: u64 = 60_000;

/// How long a notification without an id may be taken for that of a request, milliseconds.
pub const CORRELATION_MS: u64 = 5_000;

/// How long a forced sign-out waits to see the agent not ready before it goes on, milliseconds.
pub const STEP_EFFECT_MS: u64 = 1_000;

/// Pause before it is tried again where the platform says that the state does not allow it.
pub const STEP_AGAIN_MS: u64 = 500;

/// How long it is tried again, milliseconds.
pub const STEP_PATIENCE_MS: u64 = 5_000;

/// How long an accepted sign-in may take to have its effect, milliseconds: real ones took up to 31 s
/// (connector reference, section 13). Before that the agent is not said to be signed out.
pub const SIGN_IN_PATIENCE_MS: u64 = 60_000;

/// Longest pause between two reads of an agent whose sign-in has no effect yet, milliseconds.
pub const SIGN_IN_READ_MAX_MS: u64 = 8_000;

/// How long after an accepted sign-in the agent is read when no notification came, milliseconds.
pub const SIGN_IN_SETTLE_MS: u64 = 1_000;

/// How long a node is avoided whose application has gone, where nobody hears of it any more,
/// milliseconds; doubled each time, up to the second number.
pub const PRESENCE_HOLD_MS: u64 = 1_000;
/// See [`PRESENCE_HOLD_MS`].
pub const PRESENCE_HOLD_MAX_MS: u64 = 60_000;

/// How long a node is kept that was chosen because notifications could not be had at the other one,
/// before such a move may be made again, milliseconds; doubled each time, up to the second number.
pub const NODE_STAY_MS: u64 = 5_000;
/// See [`NODE_STAY_MS`].
pub const NODE_STAY_MAX_MS: u64 = 30_000;

/// How long the first node is not returned to that was left for its notifications, milliseconds;
/// doubled each time that it is left again soon after a return, up to the second number.
pub const NODE_ABSENCE_MS: u64 = 60_000;
/// See [`NODE_ABSENCE_MS`].
pub const NODE_ABSENCE_MAX_MS: u64 = 1_800_000;

/// How long the node that an agent has left may still sign it out: 120 s to notice, 60 s of grace;
/// milliseconds.
pub const MOVED_MS: u64 = 180_000;

/// Pause between two sign-ins of an agent that the platform signed out, milliseconds; signed out
/// sooner it stays out.
pub const SIGN_IN_AGAIN_MS: u64 = 5_000;

/// Tries to reach the notification service before the other node is tried.
pub const SUBSCRIBE_TRIES: u32 = 3;

/// Retry advice to a client whose command was refused for overload, milliseconds.
pub const RETRY_AFTER_MS: u64 = 1_000;

/// Retry advice to a client whose agent finds no room on this machine, and the pause after which
/// an agent without a session is tried again, milliseconds.
pub const NO_ROOM_RETRY_MS: u64 = 5_000;

/// How long after the last time a shortage of this machine is shown, milliseconds.
pub const SHORTAGE_SHOWN_MS: u64 = 60_000;

/// How often a peer's consumers are counted, milliseconds.
pub const EVIDENCE_INTERVAL_MS: u64 = 250;

/// Members of before whose consumers a newcomer looks for.
pub const UNHEARD_MEMBERS: usize = 8;

/// No heartbeat for this long, and no consumer where it had one: the peer is lost, milliseconds.
pub const EVIDENCE_LOST_MS: u64 = 500;

/// Who was taken for gone because its consumer was, and lived, is lost by silence alone for this
/// long, milliseconds: on an overloaded machine that happens again.
pub const COUNTS_DISTRUSTED_MS: u64 = 60_000;

/// Own pauses within the second number of milliseconds that make a machine count as short of time.
pub const STARVED_PAUSES: usize = 3;
/// See [`STARVED_PAUSES`].
pub const STARVED_MS: u64 = 10_000;

/// A count of no consumer older than this proves nothing of now, milliseconds: less than
/// [`LISTEN_MS`], after which a peer that has come back meanwhile may act alone.
pub const COUNT_FRESH_MS: u64 = 600;

/// Who may not have been heard for longer than this may have been taken for gone, milliseconds: that
/// takes two counts at least.
pub const UNHEARD_MS: u64 = 400;

/// Who comes back after that listens at least so long before it takes others for lost,
/// milliseconds.
pub const LISTEN_MS: u64 = 1_000;

/// How long after a consumer stands what comes may have waited in its queue, milliseconds.
pub const BACKLOG_MS: u64 = 500;

/// The same of what another broker passed on, which may have to connect first, milliseconds.
pub const RELAYED_BACKLOG_MS: u64 = 10_000;

/// How long a broker may be out of reach without a lost peer's having served there, milliseconds:
/// less than a newcomer listens before it serves alone.
pub const UNWATCHED_MS: u64 = 1_000;

/// A pause of the own process longer than this makes it doubt itself, milliseconds.
pub const OWN_LAG_MS: u64 = 250;

/// Heartbeats in a row with a table that differs from ours, before its sender gets a snapshot.
pub const DIFFERING_BEATS: u32 = 4;

/// How often an unanswered forward or claim is sent again, milliseconds.
pub const RESEND_MS: u64 = 1_000;

/// Epochs reserved on disk ahead of use; a restart skips at most so many. More are reserved when
/// half of them are used.
pub const EPOCH_BLOCK: u64 = 10_000;

/// A lead that was taken back and is lost sooner than this makes the next takeback wait twice as
/// long, milliseconds.
pub const STEADY_LEAD_MS: u64 = 60_000;
/// As many times `takeback.hold` at most.
pub const HOLD_FACTOR: u64 = 32;

/// How long a planned handover waits for its claimant before the instance leaves without one,
/// milliseconds.
pub const HANDOVER_WAIT_MS: u64 = 20_000;

/// How long a leader waits for proof that a lost peer is gone before it calls itself alone,
/// milliseconds.
pub const PROOF_MS: u64 = 1_000;

/// Heartbeats of another process under the own id that show that it lives, and over how long they
/// come at least, milliseconds: the last ones of an earlier life come close together.
pub const TWIN_BEATS: u32 = 5;
/// Heartbeats that one of two processes has sent more than the other when that decides which of them
/// was first; else their clocks do.
pub const TWIN_APART: u64 = 40;
/// See [`TWIN_BEATS`].
pub const TWIN_MS: u64 = 2_500;

/// How long a peer's further questions for the same are taken for echoes, milliseconds: less than
/// [`ASK_AGAIN_MS`].
pub const GREETING_MS: u64 = 700;

/// Outcomes that are told again to a peer that was away; older ones it does not hear of.
pub const OUTCOMES_TOLD_AGAIN: usize = 3_000;

/// How often a newcomer asks again for what the others know, milliseconds.
pub const ASK_AGAIN_MS: u64 = 1_000;

/// Sessions in one write to the store.
pub const KEEP_RECORDS: usize = 500;

/// Rest of what found no queue of dead letters, while that is declared again, milliseconds.
pub const DECLARED_MS: u64 = 250;

/// A peer that has a consumer at two brokers is taken to be where it was first, as long as the count
/// there is not older than this, milliseconds.
pub const MOVING_COUNT_MS: u64 = 2 * EVIDENCE_INTERVAL_MS + 100;

/// How long changes are gathered before they are made durable, milliseconds.
pub const KEEP_DELAY_MS: u64 = 20;

/// When a failed write to the store is tried again, milliseconds.
pub const KEEP_RETRY_MS: u64 = 1_000;

/// Commands of peers that are remembered as over, so that copies of them are not run. Copies live as
/// long as messages between instances, ten seconds.
pub const FORWARDS_OVER: usize = 8_192;

/// How long after its deadline a command is left with an owner that lives and does not answer,
/// milliseconds.
pub const FORWARD_PATIENCE_MS: u64 = 60_000;

/// Intents (with their outcomes) that the journal holds; at the bound a new non-idempotent
/// command is `REJECTED` with `retryAfterMs`, a peer's intent is taken and the oldest one dropped.
pub const JOURNAL_ENTRIES: usize = 200_000;

/// Entries beyond which outcomes without an intent are not journaled any more: they do not take the
/// room of intents.
pub const JOURNAL_OUTCOMES: usize = JOURNAL_ENTRIES / 2;

/// Nothing is remembered for longer, whatever a client's deadline or a member's clock says,
/// milliseconds.
pub const REMEMBERED_MOST_MS: u64 = 25 * 60 * 60 * 1_000;

/// Own intents that were taken back of which members are told again when they, or this instance, can
/// hear again; beyond it the one that would be forgotten first is not.
pub const WITHDRAWN: usize = 2_000;

/// How often members are told that an own intent was taken back, each time after twice the pause.
pub const WITHDRAWN_TIMES: u32 = 6;

/// Records in one journal message to a peer.
pub const JOURNAL_RECORDS: usize = 60;

/// How long journal records are gathered while a message is fresh, milliseconds.
pub const JOURNAL_GATHER_MS: u64 = 2;

/// When an unacknowledged journal record is sent again, milliseconds.
pub const JOURNAL_RESEND_MS: u64 = 300;

/// How long an outcome's reply waits for the members to have it, milliseconds.
pub const OUTCOME_WAIT_MS: u64 = 1_000;

/// Which part of `peer.lost` a lease ends before the others may think us lost: a sixth.
pub const LEASE_MARGIN: u64 = 6;

/// Which part of `peer.lost` a silent peer is declared lost early, so that what follows fits into
/// the time: a fifteenth. Less than [`LEASE_MARGIN`]: its lease has ended by then.
pub const LOST_EARLY: u64 = 15;

/// How long a command that may have run is held back for what the members know, milliseconds.
pub const DOUBT_WAIT_MS: u64 = 5_000;

/// How often commands that wait for evidence are looked at, milliseconds.
pub const DOUBT_LOOK_MS: u64 = 50;

/// After an unclear call, when the platform is asked whether it was made, milliseconds.
pub const ASK_LATER_MS: u64 = 2_000;

/// Answers in doubt that may still be resolved; beyond it the oldest is not.
pub const DOUBTS: usize = 10_000;

/// A member that was not heard for this long by a process that was there all the time is forgotten,
/// milliseconds.
pub const MEMBER_FORGET_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// How often the disk is told that a member is there, milliseconds.
pub const MEMBER_NOTED_MS: u64 = 60 * 60 * 1000;

/// Members of now and before that are remembered; beyond it the one heard longest ago is forgotten.
pub const KNOWN_MEMBERS: usize = 64;
/// How much of a downstream's reason a heartbeat carries, characters.
pub const STANDING_REASON_CHARS: usize = 120;

/// Longest id that a member may ask for, bytes: what brokers carry.
pub const TRACE_ID: usize = 255;

/// Steps that one member tells of a command; further ones are left out.
pub const TRACE_ROWS: usize = 60;

/// A journal or a store that has not taken a record for so long counts as failing, milliseconds.
pub const DISK_WAIT_MS: u64 = 3_000;

/// A client's clock that is so far ahead of this one is believed, milliseconds.
pub const CLIENT_AHEAD_MS: u64 = 2_000;

/// Clocks of members and of the platform that are less apart count as equal, milliseconds.
pub const CLOCKS_APART_MS: u64 = 60_000;
